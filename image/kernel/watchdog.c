/* SPDX-License-Identifier: Apache-2.0 */
/* A loop without an end, in Python or in C: the program's own running time since it last said that
 * it makes progress, counted in ticks.
 *
 * Not counted: time in clock_wait(), and ticks that never came because the machine was paused or
 * had to wait for a processor. System calls are no progress; only setitimer() is, which app/
 * lastwords.py calls between turns. At the end of its time the program hears SIGPROF, so that
 * its traceback can be written; a handler has HANDLER_NS (signal.c). */

#include "linux.h"
#include "trap.h"

#define TICKS_PER_SECOND 100u

static uint64_t limit_ticks, used_ticks;

void watchdog_start(void)
{
    watchdog_set(0);
}

void watchdog_set(uint64_t ns)
{
    limit_ticks = ns ? ns / (1000000000 / TICKS_PER_SECOND) + 1
                     : (uint64_t)options.watchdog_s * TICKS_PER_SECOND;
    used_ticks = 0;
}

void watchdog_tick(struct frame *frame)
{
    xen_tick();
    if (!frame_is_user(frame) || ++used_ticks < limit_ticks)
        return;
    crash_note(frame, "watchdog: no progress in %lu s of running time",
               used_ticks / TICKS_PER_SECOND);
    signal_fault(frame, SIGPROF); /* the second time it ends the life */
}
