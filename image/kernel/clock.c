/* SPDX-License-Identifier: Apache-2.0 */
/* Time: the processor's time stamp counter, scaled to ns; the wall clock from the CMOS RTC, or Xen.
 *
 *   T1. clock_now() never goes back, not across a restart either: frequency and base are measured
 *       once, at power-on, and kept.
 *   T2. The frequency is told by the hypervisor, or measured with the PIT, never guessed.
 *   T3. The wall clock is read once, at power-on: it is good to a second, and drifts with the TSC.
 *   T4. Where nothing happens there is no tick: who waits then sleeps until its time, or NAP_NS,
 *       for the hypervisor's watchdog (xen.c) and devices without an interrupt.
 * Reading the TSC is cheap under TCG. Xen may trap it (tsc_mode="native" avoids that).
 * Sources: Intel SDM volume 3, 18.7; the hypervisor timing leaf 0x40000010
 * (lkml.org/lkml/2008/10/1/246); Intel 8254 and Motorola MC146818 data sheets. */

#include "cpu.h"
#include "kernel.h"
#include "pv.h"

#define SECOND_NS 1000000000ull
#define HZ_MIN 100000000ull
#define HZ_MAX 20000000000ull
#define QUIET_TICKS 10
#define NAP_NS 250000000ull

#define CPUID_1_ECX_HYPERVISOR (1u << 31)
#define HYPERVISOR_FIRST 0x40000000u
#define XEN_TIMING 3
#define HYPERVISOR_TIMING 0x40000010u

#define PIT_HZ 1193182ull
#define PIT_COUNTER 0x40 /* channel 0: it counts always; channel 2 needs port 0x61 */
#define PIT_COMMAND 0x43
#define PIT_ONE_SHOT 0x30   /* channel 0, low and high byte, mode 0, binary */
#define PIT_LATCH 0x00      /* the counter of channel 0 */
#define PIT_LATCH_STATUS 0xe2
#define PIT_STATUS_MASK 0xbf
#define PIT_STATUS_RUNS 0x30 /* as programmed, and the output still low: not yet at 0 */
#define PIT_START 0xffffu
#define PIT_SPAN 23864u /* 20 ms; the counter is at 0 after 55 ms */
#define PIT_READINGS 16
#define PIT_TRIES 8
#define PIT_LOOKS 20000

#define RTC_INDEX 0x70
#define RTC_DATA 0x71
#define RTC_STATUS_A 0x0a
#define RTC_STATUS_B 0x0b
#define RTC_A_UPDATING 0x80
#define RTC_B_BINARY 0x04
#define RTC_LOOKS 20000 /* an update takes 2 ms */
enum { RTC_SECOND, RTC_MINUTE, RTC_HOUR, RTC_DAY, RTC_MONTH, RTC_YEAR, RTC_FIELDS };

struct reading { uint64_t tsc; uint32_t count; };

static uint64_t clock_scale; /* ns per tick of the TSC, times 2^32 */
static uint64_t clock_last;

/* ---- the TSC's frequency; 0: not known */

/* Xen says it in its leaf 3 (arch-x86/cpuid.h), others in 0x40000010. */
static uint64_t hz_of_hypervisor(void)
{
    if (pv_is_on)
        return xen_tsc_hz();
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_HYPERVISOR))
        return 0;
    if (xen_leaf())
        return cpuid(xen_leaf() + XEN_TIMING, 0).ecx * 1000ull;
    if (cpuid(HYPERVISOR_FIRST, 0).eax < HYPERVISOR_TIMING)
        return 0;
    return cpuid(HYPERVISOR_TIMING, 0).eax * 1000ull;
}

/* The counter and the TSC at one moment: of several readings the one that took least time, so
 * that an interruption of the whole machine does not count. */
static struct reading pit_read(void)
{
    struct reading best = {0};
    uint64_t best_width = UINT64_MAX;
    for (uint32_t index = 0; index < PIT_READINGS; index++) {
        uint64_t before = rdtsc();
        outb(PIT_COMMAND, PIT_LATCH);
        uint64_t width = rdtsc() - before;
        uint32_t count = inb(PIT_COUNTER);
        count |= (uint32_t)inb(PIT_COUNTER) << 8;
        if (width >= best_width)
            continue;
        best_width = width;
        best = (struct reading){before + width / 2, count};
    }
    return best;
}

static bool pit_runs(void)
{
    outb(PIT_COMMAND, PIT_LATCH_STATUS);
    return (inb(PIT_COUNTER) & PIT_STATUS_MASK) == PIT_STATUS_RUNS;
}

static uint64_t hz_of_pit_once(void)
{
    outb(PIT_COMMAND, PIT_ONE_SHOT);
    outb(PIT_COUNTER, PIT_START & 0xff);
    outb(PIT_COUNTER, PIT_START >> 8);
    struct reading first = pit_read(), last = first;
    for (uint32_t looks = 0; looks < PIT_LOOKS; looks++) {
        if (last.count > first.count || first.count - last.count >= PIT_SPAN)
            break;
        last = pit_read();
    }
    if (!pit_runs() || last.count >= first.count || first.count - last.count < PIT_SPAN)
        return 0; /* not there; or we slept until it was through */
    return (last.tsc - first.tsc) * PIT_HZ / (first.count - last.count);
}

static uint64_t hz_of_pit(void)
{
    uint64_t hz = 0;
    for (uint32_t tries = 0; !hz && tries < PIT_TRIES; tries++)
        hz = hz_of_pit_once();
    return hz;
}

static uint64_t tsc_hz(void)
{
    uint64_t told = hz_of_hypervisor(), hz = told ? told : hz_of_pit();
    log_info("clock: %lu kHz (%s)", hz / 1000, told ? "hypervisor" : "PIT");
    if (hz >= HZ_MIN && hz <= HZ_MAX)
        return hz;
    machine_off("nothing tells the TSC's frequency (QEMU microvm: pit=on)");
}

/* ---- the wall clock */

static uint8_t rtc_register(uint8_t index)
{
    outb(RTC_INDEX, index);
    return inb(RTC_DATA);
}

static void rtc_fields(uint8_t *fields)
{
    static const uint8_t registers[RTC_FIELDS] = {0, 2, 4, 7, 8, 9};
    for (uint32_t field = 0; field < RTC_FIELDS; field++)
        fields[field] = rtc_register(registers[field]);
}

/* Twice the same, with no update going on, is a time; without an RTC every byte is 0xff. */
static bool rtc_read(uint8_t *fields)
{
    uint8_t again[RTC_FIELDS];
    for (uint32_t looks = 0; looks < RTC_LOOKS; looks++) {
        if (rtc_register(RTC_STATUS_A) & RTC_A_UPDATING)
            continue;
        rtc_fields(fields);
        rtc_fields(again);
        if (memcmp(fields, again, RTC_FIELDS) == 0)
            return true;
    }
    return false;
}

static void rtc_decode(uint8_t *fields, uint8_t status)
{
    for (uint32_t field = 0; field < RTC_FIELDS && !(status & RTC_B_BINARY); field++)
        fields[field] = (uint8_t)((fields[field] >> 4) * 10 + (fields[field] & 15));
}

/* Days from 1970 to a date of this century, by counting years from March on. */
static uint64_t days_of(uint64_t year, uint64_t month, uint64_t day)
{
    uint64_t y = month > 2 ? year : year - 1, m = month > 2 ? month - 3 : month + 9;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* In seconds since 1970; 0: there is no RTC, or what it says is no time. */
static uint64_t rtc_seconds(void)
{
    uint8_t fields[RTC_FIELDS];
    if (!rtc_read(fields))
        return 0;
    rtc_decode(fields, rtc_register(RTC_STATUS_B));
    if (fields[RTC_SECOND] > 59 || fields[RTC_MINUTE] > 59 || fields[RTC_HOUR] > 23 ||
        fields[RTC_DAY] < 1 || fields[RTC_DAY] > 31 || fields[RTC_MONTH] < 1 ||
        fields[RTC_MONTH] > 12 || fields[RTC_YEAR] > 99)
        return 0;
    uint64_t days = days_of(2000u + fields[RTC_YEAR], fields[RTC_MONTH], fields[RTC_DAY]);
    return ((days * 24 + fields[RTC_HOUR]) * 60 + fields[RTC_MINUTE]) * 60 + fields[RTC_SECOND];
}

/* ---- what others call */

void clock_init(void)
{
    if (!keep.tsc_hz) {
        uint64_t base = rdtsc(), hz = tsc_hz();
        keep.tsc_base = base;
        keep.tsc_hz = hz;
        clock_scale = (SECOND_NS << 32) / keep.tsc_hz;
        keep_seal();
        uint64_t wall_ns = xen_leaf() ? xen_wall_clock() : rtc_seconds() * SECOND_NS;
        if (!wall_ns)
            log_error("clock: no RTC, so it is 1970");
        keep.wall_base_ns = wall_ns ? wall_ns - clock_now() : 0;
        keep_seal();
    }
    clock_scale = (SECOND_NS << 32) / keep.tsc_hz;
}

uint64_t clock_now(void)
{
    uint64_t ticks = rdtsc() - keep.tsc_base;
    uint64_t now = (uint64_t)((unsigned __int128)ticks * clock_scale >> 32);
    if (now > clock_last && ticks >> 63 == 0)
        clock_last = now;
    return clock_last;
}

uint64_t clock_wall(void)
{
    return keep.wall_base_ns + clock_now();
}

/* ---- waiting */

static uint32_t quiet; /* ticks in a row that nothing else has come between */

void clock_tick(void)
{
    if (quiet < QUIET_TICKS)
        quiet++;
}

void clock_stir(void) { quiet = 0; }

/* Interrupts are let in behind the instruction after "sti", that is in "hlt": one that has been
 * waiting since the caller looked for work ends the sleep at once. */
static void sleep(void)
{
    if (pv_is_on)
        pv_wait();
    else
        __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* Setting the timer costs more than a tick, so a busy program never gets to T4. */
void clock_wait(uint64_t until)
{
    uint64_t now = clock_now();
    if (quiet < QUIET_TICKS || until <= now) {
        sleep();
        return;
    }
    apic_tick_once(until - now < NAP_NS ? until - now : NAP_NS); /* T4 */
    sleep();
    apic_tick_always();
}

/* Before the clock is there: nothing. */
void clock_delay(uint64_t ns)
{
    for (uint64_t start = clock_now(); clock_scale && clock_now() - start < ns;)
        __asm__ volatile("pause");
}
