/* SPDX-License-Identifier: Apache-2.0 */
/* The machine in QEMU: nobody else is there, so nothing is to be given back.
 * There is no watchdog: Unikraft's timer is armed only while something waits. */

#include "tardigrade.h"

#include <uk/plat/time.h>
#include <uk/sched.h>

#define SECOND_NS 1000000000ull

void machine_init(void)
{
}

void machine_before_snapshot(void)
{
}

void machine_reset(void)
{
}

void machine_delay(uint64_t ns)
{
    uint64_t end = ukplat_monotonic_clock() + ns;
    while (ukplat_monotonic_clock() < end)
        __asm__ volatile("pause");
}

/* Nobody can raise anything: there are no event channels. */
bool machine_wait(int64_t timeout_ns)
{
    crash_has_served();
    do
        uk_sched_thread_sleep(timeout_ns < 0 ? SECOND_NS : (uint64_t)timeout_ns);
    while (timeout_ns < 0);
    return false;
}

void machine_watchdog(uint64_t ns)
{
    (void)ns;
}
