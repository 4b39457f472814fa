/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of the processor: each ends the life. Unikraft raises an event for most of them; we are
 * the first to hear of it, so its own handler, which would end the machine, is not run.
 *
 * Python is asked for its traceback before (T1), straight into the crash slot.
 *   T1. That reads Python's memory, which may be what is broken: a second fault within it is not
 *       told, and ends the life with what is there. */

#include "tardigrade.h"

#include <stdio.h>

#include <uk/arch/traps.h>
#include <uk/event.h>
#include <uk/prio.h>

#include "python.h"

static const char *const names[] = {
    [0] = "divide error", [1] = "debug", [3] = "breakpoint", [6] = "invalid opcode",
    [7] = "no FPU", [11] = "segment not present", [12] = "stack fault",
    [13] = "general protection fault", [14] = "page fault", [16] = "FPU error",
    [17] = "alignment check", [19] = "SIMD error",
};

static bool is_telling;
static char line[64];

static const char *name_of(int number)
{
    bool is_known = number >= 0 && (size_t)number < sizeof(names) / sizeof(*names);
    const char *name = is_known ? names[number] : NULL;
    return name ? name : "fault";
}

static int on_trap(void *data)
{
    const struct ukarch_trap_ctx *trap = data;
    if (!is_telling) {
        is_telling = true;
        snprintf(line, sizeof(line), "Fatal Python error: %s", name_of(trap->trapnr));
        python_traceback(line);
    }
    if (trap->trapnr == 14)
        crash_end(trap->regs, "page fault: %s 0x%lx", trap->error_code & 2 ? "write to" : "read of",
                  trap->fault_address);
    crash_end(trap->regs, "%s, error 0x%x", name_of(trap->trapnr), (unsigned)trap->error_code);
}

UK_EVENT_HANDLER_PRIO(UKARCH_TRAP_INVALID_OP, on_trap, UK_PRIO_EARLIEST);
UK_EVENT_HANDLER_PRIO(UKARCH_TRAP_DEBUG, on_trap, UK_PRIO_EARLIEST);
UK_EVENT_HANDLER_PRIO(UKARCH_TRAP_PAGE_FAULT, on_trap, UK_PRIO_EARLIEST);
UK_EVENT_HANDLER_PRIO(UKARCH_TRAP_BUS_ERROR, on_trap, UK_PRIO_EARLIEST);
UK_EVENT_HANDLER_PRIO(UKARCH_TRAP_MATH, on_trap, UK_PRIO_EARLIEST);
UK_EVENT_HANDLER_PRIO(UKARCH_TRAP_X86_GP, on_trap, UK_PRIO_EARLIEST);
