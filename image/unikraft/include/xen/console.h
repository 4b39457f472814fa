/* SPDX-License-Identifier: Apache-2.0 */
/* What Unikraft's Xen platform includes of its own console's, which console.c stands in for. */

#ifndef XEN_CONSOLE_H
#define XEN_CONSOLE_H

void flush_console(void);

#endif
