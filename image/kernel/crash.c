/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a life: say why, in the region's crash slot; then start again, or give up loudly.
 *
 * The slot is the file /dev/crash. The program writes there what it knows (app/lastwords.py); at
 * the end the kernel adds its own account below. The first reason that was noted is the one that
 * counts: what follows a fault is its consequence.
 *   C1. A life that dies before it has served counts as a failed start. After COLD_AFTER of them in
 *       a row the next start is cold; after GIVE_UP_AFTER the machine ends.
 *   C2. Failed starts, and lives that die as soon as they serve, make the next start wait longer;
 *       every QUICK_FREE such lives in a row one start is cold (slot.h). */

#include "cpu.h"
#include "device.h"
#include "linux.h"
#include "slot.h"
#include "trap.h"

#define COLD_AFTER 3u
#define GIVE_UP_AFTER 10u
#define EXIT_PORT 0xf4        /* QEMU's isa-debug-exit */

static struct slot slot;
static char account[1024]; /* of the first reason; ends with a newline */
static const char *verdict; /* its last line */
static bool has_served, has_opened, is_ready, is_ending;
static bool is_torn, has_repeated; /* the slot, by a fault in the middle of its last store */
static uint64_t served_since;

static void slot_store(void)
{
    size_t size = slot_seal(&slot, keep.restarts, clock_wall() / 1000);
    is_torn = is_ending;
    region_write(CRASH_SLOT_OFFSET, &slot, size);
    is_torn = false;
}

void crash_init(void)
{
    is_ready = true;
    if (options.error[0])
        machine_off(options.error);
}

/* What the last life has left, if it is whole. */
static void slot_load(void)
{
    const struct slot *stored = region_at(CRASH_SLOT_OFFSET);
    memset(&slot, 0, sizeof(slot));
    if (slot_is_whole(stored))
        memcpy(&slot, stored, sizeof(slot));
}

/* ---- /dev/crash */

static int64_t crash_open(struct file *file)
{
    (void)file;
    if (!has_opened)
        slot_load();
    has_opened = true;
    return 0;
}

static uint64_t crash_size(void) { return slot.size; }

static int64_t crash_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file;
    return (int64_t)slot_read(&slot, to, size, offset);
}

static int64_t crash_write(struct file *file, const void *from, uint64_t size, uint64_t offset)
{
    (void)file;
    if (!slot_write(&slot, from, size, offset))
        return -ENOSPC;
    slot_store();
    return (int64_t)size;
}

static int64_t crash_truncate(uint64_t size)
{
    if (size > slot.size)
        return -EINVAL;
    slot.size = (uint32_t)size;
    slot_store();
    return 0;
}

const struct device crash_device = {
    .path = "/dev/crash", .mode = S_IFCHR | 0600, .open = crash_open, .read = crash_read,
    .write = crash_write, .truncate = crash_truncate, .size = crash_size,
};

/* ---- reasons */

static void note_list(const struct frame *frame, const char *text, __builtin_va_list list)
{
    if (account[0])
        return;
    int length = 0;
    verdict = account;
    if (frame)
        length = format(account, sizeof(account),
            "rax %016lx rbx %016lx rcx %016lx rdx %016lx\n"
            "rsi %016lx rdi %016lx rbp %016lx rsp %016lx\n"
            "r8  %016lx r9  %016lx r10 %016lx r11 %016lx\n"
            "r12 %016lx r13 %016lx r14 %016lx r15 %016lx\n"
            "rip %016lx cs %04lx rflags %08lx cr2 %016lx trap %lu error %lx\n",
            frame->rax, frame->rbx, frame->rcx, frame->rdx, frame->rsi, frame->rdi, frame->rbp,
            frame->rsp, frame->r8, frame->r9, frame->r10, frame->r11, frame->r12, frame->r13,
            frame->r14, frame->r15, frame->rip, frame->cs, frame->rflags, read_cr2(),
            frame->vector, frame->error);
    size_t at = (size_t)length;
    verdict = account + at;
    at += (size_t)format(account + at, sizeof(account) - at, "kernel: ");
    at += (size_t)vformat(account + at, sizeof(account) - at, text, list);
    if (at < sizeof(account) && frame)
        at += (size_t)format(account + at, sizeof(account) - at, " at rip 0x%lx", frame->rip);
    if (at < sizeof(account))
        format(account + at, sizeof(account) - at, " in restart %lu\n", keep.restarts);
}

void crash_note(const struct frame *frame, const char *text, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, text);
    note_list(frame, text, list);
    __builtin_va_end(list);
}

void crash_has_served(void)
{
    if (!has_served)
        served_since = clock_now();
    has_served = true;
}

bool crash_is_serving(void) { return has_served; }

bool crash_wants_cold_start(void)
{
    bool is_unlucky = keep.quick_deaths && keep.quick_deaths % QUICK_FREE == 0;
    return keep.failed_starts >= COLD_AFTER || is_unlucky;
}

/* The kernel's account below what the program has said. A program that has not read yet what the
 * life before has left must still find it: then the account is one line only. */
static void say_why(void)
{
    log_error("life %lu ends at %lu ms:", keep.restarts, clock_now() / 1000000);
    console_write(account, strlen(account));
    if (!has_opened)
        slot_load();
    slot_add(&slot, has_opened ? account : verdict);
    slot_store();
}

void crash_end(const struct frame *frame, const char *text, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, text);
    note_list(frame, text, list);
    __builtin_va_end(list);
    if (!is_ready && !keep.restarts) {
        console_write(account, strlen(account));
        machine_off("the kernel cannot start");
    }
    if (!is_ending) { /* else this very function has failed: go on without it */
        is_ending = true;
        say_why();
        keep_check(); /* before it is sealed again */
    } else if (is_torn && !has_repeated) {
        has_repeated = true;
        slot_store();
    }
    bool is_quick = has_served && clock_now() - served_since < QUICK_NS;
    keep.restarts++;
    keep.failed_starts = has_served ? 0 : keep.failed_starts + 1;
    keep.quick_deaths = is_quick ? keep.quick_deaths + 1 : 0;
    keep_seal();
    if (keep.failed_starts >= GIVE_UP_AFTER)
        machine_off("too many starts in a row have failed");
    clock_delay(start_delay_ns(keep.failed_starts, keep.quick_deaths));
    crash_restart();
}

void panic_at(const char *file, uint32_t line, const char *text, ...)
{
    char what[256];
    __builtin_va_list list;
    __builtin_va_start(list, text);
    vformat(what, sizeof(what), text, list);
    __builtin_va_end(list);
    crash_end(NULL, "panic at %s:%u: %s", file, line, what);
}

static NORETURN void end(const char *why, bool is_failure)
{
    if (options.console == CONSOLE_UNSAID) /* too early to know where it goes */
        console_init();
    log_error("the end: %s", why);
    xen_shutdown(is_failure);
    outb(EXIT_PORT, 1);
    /* No such port: a triple fault resets the machine, or crashes the domain. */
    struct { uint16_t limit; uint64_t base; } __attribute__((packed)) none = {0, 0};
    __asm__ volatile("lidt %0; int3" : : "m"(none));
    for (;;)
        __asm__ volatile("cli; hlt");
}

void machine_off(const char *why)
{
    end(why, true);
}

void machine_done(const char *why)
{
    end(why, false);
}
