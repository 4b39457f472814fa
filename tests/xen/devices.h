// SPDX-License-Identifier: Apache-2.0
/* A guest's devices: devices.c. */

/* Use all devices of this guest for ever, in a process of its own. */
void devices_run(void);
