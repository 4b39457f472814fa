/* SPDX-License-Identifier: Apache-2.0 */
/* Traps: descriptor tables, and what becomes of each vector.
 *
 * A fault in ring 3 is the program's: its handler hears of it (signal.c). A fault in the kernel,
 * a double fault, an NMI and a machine check end the life at once. These three have stacks of
 * their own, so that they can be told of whatever the stack pointer was.
 * Source: Intel SDM volume 3, 6. */

#include "cpu.h"
#include "linux.h"
#include "pv.h"
#include "trap.h"

#define CR4_MCE (1u << 6)
#define MSR_MCG_STATUS 0x17a

enum { DIVIDE = 0, NMI = 2, BREAKPOINT = 3, INVALID_OPCODE = 6, DOUBLE_FAULT = 8,
       GENERAL_PROTECTION = 13, PAGE_FAULT = 14, X87 = 16, MACHINE_CHECK = 18, SIMD = 19 };

static const char *const names[] = {
    "divide error", "debug trap", "NMI", "breakpoint", "overflow", "bound range exceeded",
    "illegal instruction", "device not available", "double fault", "coprocessor overrun",
    "invalid TSS", "segment not present", "stack fault", "general protection fault",
    "page fault", "reserved trap", "x87 error", "alignment check", "machine check", "SIMD error",
};

struct gate {
    uint16_t low, selector;
    uint8_t stack, type;
    uint16_t middle;
    uint32_t high, reserved;
};
_Static_assert(sizeof(struct gate) == 16, "SDM 6.14.1");

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7], reserved2;
    uint16_t reserved3, io_map;
} __attribute__((packed));
_Static_assert(sizeof(struct tss) == 104, "SDM 7.7");

struct table_pointer { uint16_t limit; const void *base; } __attribute__((packed));

extern const uint64_t trap_stubs[VECTORS];
extern char kernel_stack_top[], fault_stack_top[], nmi_stack_top[], machine_check_stack_top[];

static struct gate gates[VECTORS];
static struct tss tss;
static uint64_t gdt[7];
static void (*claims[VECTORS])(void);
static bool has_machine_checks;

void trap_dispatch(struct frame *frame);

static void load_gdt(void)
{
    uint64_t base = (uint64_t)&tss;
    gdt[SELECTOR_KERNEL_CODE / 8] = 0x00af9b000000ffff;
    gdt[SELECTOR_KERNEL_DATA / 8] = 0x00cf93000000ffff;
    gdt[SELECTOR_USER_DATA / 8] = 0x00cff3000000ffff;
    gdt[SELECTOR_USER_CODE / 8] = 0x00affb000000ffff;
    gdt[SELECTOR_TSS / 8] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
                            (base >> 24 & 0xff) << 56;
    gdt[SELECTOR_TSS / 8 + 1] = base >> 32;
    struct table_pointer pointer = {sizeof(gdt) - 1, gdt};
    __asm__ volatile("lgdt %0; ltr %w1" : : "m"(pointer), "r"(SELECTOR_TSS) : "memory");
}

static void load_idt(void)
{
    for (uint32_t vector = 0; vector < VECTORS; vector++) {
        uint64_t stub = trap_stubs[vector];
        uint8_t stack = vector == DOUBLE_FAULT ? 1 : vector == NMI ? 2
                        : vector == MACHINE_CHECK ? 3 : 0;
        gates[vector] = (struct gate){(uint16_t)stub, SELECTOR_KERNEL_CODE, stack, 0x8e,
                                      (uint16_t)(stub >> 16), (uint32_t)(stub >> 32), 0};
    }
    struct table_pointer pointer = {sizeof(gates) - 1, gates};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void trap_init(void)
{
    if (pv_is_on) {
        pv_trap_init();
        return;
    }
    tss.rsp[0] = (uint64_t)kernel_stack_top;
    tss.ist[0] = (uint64_t)fault_stack_top;
    tss.ist[1] = (uint64_t)nmi_stack_top;
    tss.ist[2] = (uint64_t)machine_check_stack_top;
    tss.io_map = sizeof(tss);
    load_gdt();
    load_idt();
    uint32_t has = cpuid(1, 0).edx;
    has_machine_checks = has & 1u << 7 && has & 1u << 14;
    if (has_machine_checks) {
        write_cr4(read_cr4() | CR4_MCE);
        wrmsr(MSR_MCG_STATUS, 0);
    }
}

void trap_claim(uint32_t vector, void (*handler)(void))
{
    assert(vector >= VECTOR_DEVICE && vector < VECTOR_TICK && !claims[vector]);
    claims[vector] = handler;
}

static uint32_t signal_of(uint64_t vector)
{
    switch (vector) {
    case DIVIDE: case X87: case SIMD: return SIGFPE;
    case BREAKPOINT: return SIGTRAP;
    case INVALID_OPCODE: return SIGILL;
    default: return SIGSEGV;
    }
}

static void describe(char *to, size_t size, const struct frame *frame)
{
    const char *name = frame->vector < COUNT(names) ? names[frame->vector] : "unknown trap";
    const char *where = frame_is_user(frame) ? "" : " in the kernel";
    if (frame->vector == PAGE_FAULT)
        format(to, size, "page fault%s: %s 0x%lx", where,
               frame->error & 16 ? "execution of" : frame->error & 2 ? "write to" : "read of",
               read_cr2());
    else if (frame->error)
        format(to, size, "%s%s, error 0x%lx", name, where, frame->error);
    else
        format(to, size, "%s%s", name, where);
}

static void on_exception(struct frame *frame)
{
    char what[96];
    if (frame->vector == MACHINE_CHECK && has_machine_checks)
        wrmsr(MSR_MCG_STATUS, 0); /* else the next one would end the machine */
    describe(what, sizeof(what), frame);
    bool is_final = frame->vector == NMI || frame->vector == DOUBLE_FAULT ||
                    frame->vector == MACHINE_CHECK || !frame_is_user(frame);
    if (is_final)
        crash_end(frame, "%s", what);
    crash_note(frame, "%s", what);
    signal_fault(frame, signal_of(frame->vector));
}

static void on_tick(struct frame *frame)
{
    clock_tick();
    watchdog_tick(frame);
}

void trap_dispatch(struct frame *frame)
{
    if (frame->vector < 0x20) {
        on_exception(frame);
    } else if (frame->vector == VECTOR_TICK) {
        apic_end_of_interrupt();
        on_tick(frame);
    } else if (frame->vector == VECTOR_XEN) {
        evtchn_upcall();
        if (pv_is_on && pv_tick())
            on_tick(frame);
        else
            clock_stir();
    } else if (frame->vector != VECTOR_SPURIOUS) {
        clock_stir();
        if (claims[frame->vector])
            claims[frame->vector]();
        apic_end_of_interrupt();
    }
}
