/* SPDX-License-Identifier: Apache-2.0 */
/* Signals, as far as Python's faulthandler needs them to write a traceback before the end.
 *
 *   S1. A life hears of one fault only. A second one ends it: the handler itself is broken.
 *   S2. No handler ever returns: it ends by raising its signal again, with the default action by
 *       then (faulthandler puts it back), which ends the life. So there is no sigreturn.
 * Knows nothing of what handlers do. */

#include "linux.h"
#include "trap.h"

#define RED_ZONE 128
#define HANDLER_IGNORE 1
#define HANDLER_NS 2000000000ull

PROGRAM_STATE struct signals signals;
static bool has_heard; /* S1 */

/* Go on in the handler, on the alternate stack if there is one. */
static void enter_handler(struct frame *frame, uint32_t signal)
{
    const struct action *action = &signals.actions[signal];
    uint64_t stack = frame->rsp - RED_ZONE;
    if (signals.stack_size && action->flags & SA_ONSTACK)
        stack = signals.stack_va + signals.stack_size;
    stack = (stack & -16ull) - 8; /* as behind a call: System V ABI 3.2.2 */
    if (!user_can_write(stack, 8))
        crash_end(frame, "no stack for the handler of signal %u", signal);
    *(uint64_t *)stack = 0; /* a return would be a fault: S2 */
    frame->rsp = stack;
    frame->rip = action->handler;
    frame->rdi = signal;
    frame->rsi = frame->rdx = 0;
    frame->rflags = RFLAGS_USER;
}

void signal_fault(struct frame *frame, uint32_t signal)
{
    if (has_heard || signals.actions[signal].handler <= HANDLER_IGNORE)
        crash_end(frame, "signal %u", signal); /* crash_note() has said more already */
    has_heard = true;
    watchdog_set(HANDLER_NS); /* a handler that hangs is a second fault */
    enter_handler(frame, signal);
}

int64_t signal_raise(struct frame *frame, uint32_t signal)
{
    if (signal >= SIGNALS)
        return -EINVAL;
    if (signal == 0 || signals.actions[signal].handler == HANDLER_IGNORE)
        return 0;
    crash_note(frame, "signal %u raised", signal);
    signal_fault(frame, signal);
    trap_return(frame); /* into the handler: every register counts */
}
