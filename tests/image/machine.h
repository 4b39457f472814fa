/* SPDX-License-Identifier: Apache-2.0 */
/* A machine for the kernel's files on this host. Physical memory: direct() leads into a mapping of
 * 4 GiB, of which only what is touched exists (test_kernel.py moves DIRECT_BASE there). And what
 * ends the machine ends a process. */

#ifndef MACHINE_H
#define MACHINE_H

#include <string.h>

#include "check.h"

#define EXIT_PANIC 3 /* check.h */
#define EXIT_OFF 4

/* machine.c, because the kernel and the host's headers have names in common. */
bool machine_map(uint64_t va, size_t size);
int machine_fork(void);          /* 0: in a process of its own, which is silent */
int machine_wait(int process);   /* its exit code */

/* The exit code of a process of its own that runs `statement`. */
#define EXIT_OF(statement) (__extension__({ \
    int process = machine_fork(); \
    if (process == 0) { \
        statement; \
        exit(0); \
    } \
    machine_wait(process); }))

#endif
