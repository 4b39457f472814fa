/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupt controllers: the local APIC with its 10 ms tick, the I/O APIC, and the two old
 * PICs, which are masked.
 *
 *   I1. apic_init() leaves one source of interrupts, the tick, and the NMI. A device is let in by
 *       apic_route().
 *   I2. It works on controllers in any state: after a restart an interrupt may be in service, or a
 *       device's line up.
 * Knows nothing of what a vector does (trap.c, watchdog.c). The xAPIC interface only: a loader
 * that has switched to x2APIC is refused.
 * Sources: Intel SDM volume 3, chapter 11; Intel 82093AA and 8259A data sheets. */

#include "cpu.h"
#include "kernel.h"
#include "pv.h"

#define TICK_HZ 100
#define MEASURE_NS 5000000
#define MEASURE_ERROR_NS 20000
#define MEASURE_TRIES 100

#define MSR_APIC_BASE 0x1b
#define APIC_BASE_ENABLED (1u << 11)
#define APIC_BASE_X2APIC (1u << 10)
#define APIC_BASE_ADDRESS 0xfffff000u

/* registers of the local APIC, in bytes */
#define APIC_ID 0x20
#define APIC_PRIORITY 0x80
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_IN_SERVICE 0x100 /* 8 words, 0x10 apart */
#define APIC_TIMER 0x320
#define APIC_LINT0 0x350
#define APIC_LINT1 0x360
#define APIC_ERROR 0x370
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0
#define SPURIOUS_ENABLE 0x100
#define LINT_NMI 0x400
#define ENTRY_MASKED 0x10000 /* here and in the I/O APIC */
#define TIMER_PERIODIC 0x20000
#define DIVIDE_BY_16 0x3

#define IOAPIC_PA 0xfec00000
#define IOAPIC_INDEX 0x00
#define IOAPIC_DATA 0x10
#define IOAPIC_VERSION 1
#define IOAPIC_ENTRY 0x10  /* two words each */
#define ENTRY_LEVEL 0x8000 /* and active high, fixed, physical destination: 0 */
#define IOAPIC_PINS_MAX 240

#define PIC1_MASK 0x21
#define PIC2_MASK 0xa1

static char *apic, *ioapic;
static uint32_t ioapic_pins; /* 0: there is none */

static uint32_t apic_read(uint32_t offset) { return *(volatile uint32_t *)(apic + offset); }

static void apic_write(uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(apic + offset) = value;
}

static uint32_t ioapic_read(uint32_t index)
{
    *(volatile uint32_t *)(ioapic + IOAPIC_INDEX) = index;
    return *(volatile uint32_t *)(ioapic + IOAPIC_DATA);
}

static void ioapic_write(uint32_t index, uint32_t value)
{
    *(volatile uint32_t *)(ioapic + IOAPIC_INDEX) = index;
    *(volatile uint32_t *)(ioapic + IOAPIC_DATA) = value;
}

static void apic_find(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    if (base & APIC_BASE_X2APIC)
        machine_off("the local APIC is in x2APIC mode");
    if (!(base & APIC_BASE_ENABLED))
        wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLED);
    apic = device_map(base & APIC_BASE_ADDRESS, PAGE_SIZE);
}

/* I2: what the last life was in the middle of. Each EOI ends one, and lowers a level in the I/O
 * APIC, so this comes before its entries are overwritten. */
static void apic_finish_all(void)
{
    for (uint32_t vector = 0; vector < 256; vector++) {
        uint32_t in_service = 0;
        for (uint32_t word = 0; word < 8; word++)
            in_service |= apic_read(APIC_IN_SERVICE + word * 0x10);
        if (!in_service)
            return;
        apic_write(APIC_EOI, 0);
    }
}

static void ioapic_init(void)
{
    ioapic = device_map(IOAPIC_PA, PAGE_SIZE);
    uint32_t version = ioapic_read(IOAPIC_VERSION);
    ioapic_pins = (version >> 16 & 0xff) + 1;
    if (version == UINT32_MAX || ioapic_pins > IOAPIC_PINS_MAX)
        ioapic_pins = 0;
    for (uint32_t pin = 0; pin < ioapic_pins; pin++) {
        ioapic_write(IOAPIC_ENTRY + 2 * pin, ENTRY_MASKED);
        ioapic_write(IOAPIC_ENTRY + 2 * pin + 1, 0);
    }
}

/* The counter, and the time at that very moment: not around a pause of the whole machine. */
static uint32_t apic_timer_at(uint64_t *now)
{
    uint32_t count = 0;
    for (uint32_t tries = 0; tries < MEASURE_TRIES; tries++) {
        uint64_t before = clock_now();
        count = apic_read(APIC_TIMER_CURRENT);
        *now = clock_now();
        if (*now - before < MEASURE_ERROR_NS)
            break;
    }
    return count;
}

/* The timer's frequency behind its divider, from the TSC's. */
static uint64_t apic_measure(void)
{
    apic_write(APIC_TIMER, ENTRY_MASKED);
    apic_write(APIC_TIMER_INITIAL, UINT32_MAX);
    clock_delay(MEASURE_NS / 8); /* what runs for the first time is slow under TCG */
    uint64_t start, end;
    uint32_t first = apic_timer_at(&start);
    clock_delay(MEASURE_NS);
    uint32_t last = apic_timer_at(&end);
    return (uint64_t)(first - last) * 1000000000 / (end - start);
}

static void apic_tick_init(void)
{
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_16);
    if (!keep.apic_hz) {
        keep.apic_hz = apic_measure();
        keep_seal();
        log_debug("apic: timer at %lu kHz", keep.apic_hz / 1000);
    }
    if (keep.apic_hz < TICK_HZ || keep.apic_hz / TICK_HZ > UINT32_MAX)
        machine_off("the local APIC's timer does not count");
    apic_tick_always();
}

void apic_tick_always(void)
{
    if (pv_is_on) {
        pv_tick_at(PV_TICK_NS);
        return;
    }
    apic_write(APIC_TIMER, TIMER_PERIODIC | VECTOR_TICK);
    apic_write(APIC_TIMER_INITIAL, (uint32_t)(keep.apic_hz / TICK_HZ));
}

void apic_tick_once(uint64_t ns)
{
    if (pv_is_on) {
        pv_tick_at(ns);
        return;
    }
    assert(ns <= 1000000000);
    uint64_t count = ns * keep.apic_hz / 1000000000 + 1;
    apic_write(APIC_TIMER, VECTOR_TICK);
    apic_write(APIC_TIMER_INITIAL, count < UINT32_MAX ? (uint32_t)count : UINT32_MAX);
}

void apic_init(void)
{
    if (pv_is_on) {
        pv_tick_init();
        return;
    }
    outb(PIC1_MASK, 0xff);
    outb(PIC2_MASK, 0xff);
    apic_find();
    apic_write(APIC_TIMER, ENTRY_MASKED);
    apic_finish_all();
    ioapic_init();
    apic_write(APIC_SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
    apic_write(APIC_PRIORITY, 0);
    apic_write(APIC_LINT0, ENTRY_MASKED);
    apic_write(APIC_LINT1, LINT_NMI); /* from outside: the way out of a loop in the kernel */
    apic_write(APIC_ERROR, ENTRY_MASKED);
    apic_tick_init();
}

/* Level-triggered, active high: a virtio-mmio device keeps its line up until its interrupt status
 * is acknowledged, so that none is lost between the device and us. */
void apic_route(uint32_t irq, uint32_t vector)
{
    assert(vector >= VECTOR_DEVICE && vector < VECTOR_TICK);
    if (irq >= ioapic_pins) {
        log_error("apic: no pin %u; its device is looked at with each tick only", irq);
        return;
    }
    ioapic_write(IOAPIC_ENTRY + 2 * irq + 1, apic_read(APIC_ID)); /* the id: bits 31..24 of both */
    ioapic_write(IOAPIC_ENTRY + 2 * irq, ENTRY_LEVEL | vector);
}

void apic_end_of_interrupt(void)
{
    apic_write(APIC_EOI, 0);
}
