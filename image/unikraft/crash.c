/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a life: say why, in the region's crash slot; then go on from the snapshot, or give up.
 *
 * The slot is the file /dev/crash. The program writes there what it knows (app/lastwords.py); at
 * the end our own account is added below.
 *   C1. A life that dies before it has served is a failed start. GIVE_UP_AFTER of them in a row end
 *       the domain: there is no colder start than the snapshot.
 *       So does damage to what is kept across lives, or to the snapshot.
 *   C2. Failed starts, and lives that die as soon as they serve, make the next start wait longer
 *       (../kernel/slot.h).
 *   C3. A fault in here, once the account is begun, is not told: the next life begins without it.
 * Change with: image/kernel/crash.c; these are its rules. */

#include "tardigrade.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <uk/alloc.h>
#include <uk/console.h>
#include <uk/plat/bootstrap.h>
#include <uk/plat/lcpu.h>
#include <uk/plat/time.h>

#include "../kernel/slot.h"

#define GIVE_UP_AFTER 10u

static struct slot slot;
static bool has_served, has_read;
static uint64_t served_since;

void __real_ukplat_terminate(enum ukplat_gstate request) NORETURN;
void __wrap_ukplat_terminate(enum ukplat_gstate request) NORETURN;

static void slot_store(void)
{
    size_t size = slot_seal(&slot, keep.restarts, ukplat_wall_clock() / 1000);
    region_write(CRASH_SLOT_OFFSET, &slot, size);
}

void crash_begin(void)
{
    region_read(CRASH_SLOT_OFFSET, &slot, sizeof(slot));
    if (!slot_is_whole(&slot))
        memset(&slot, 0, sizeof(slot));
    has_served = has_read = false;
}

void crash_has_served(void)
{
    if (!has_served)
        served_since = ukplat_monotonic_clock();
    has_served = true;
}

/* ---- what the program says of itself */

size_t crash_size(void) { return slot.size; }

size_t crash_read(void *to, size_t size, uint64_t offset)
{
    has_read = true;
    return slot_read(&slot, to, size, offset);
}

int crash_write(const void *from, size_t size, uint64_t offset)
{
    if (!slot_write(&slot, from, size, offset))
        return -ENOSPC;
    slot_store();
    return 0;
}

int crash_truncate(size_t size)
{
    if (size > slot.size)
        return -EINVAL;
    slot.size = (uint32_t)size;
    slot_store();
    return 0;
}

/* ---- the end */

static char account[1024]; /* ends with a newline */
static const char *verdict; /* its last line */

static void note(const struct __regs *regs, const char *text, va_list list)
{
    size_t at = 0, size = sizeof(account) - 1; /* room for a newline */
    if (regs)
        at = (size_t)snprintf(account, size,
            "rax %016lx rbx %016lx rcx %016lx rdx %016lx\n"
            "rsi %016lx rdi %016lx rbp %016lx rsp %016lx\n"
            "r8  %016lx r9  %016lx r10 %016lx r11 %016lx\n"
            "r12 %016lx r13 %016lx r14 %016lx r15 %016lx\n"
            "rip %016lx cs %04lx rflags %08lx\n",
            regs->rax, regs->rbx, regs->rcx, regs->rdx, regs->rsi, regs->rdi, regs->rbp,
            regs->rsp, regs->r8, regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14,
            regs->r15, regs->rip, regs->cs & 0xffff, regs->eflags);
    verdict = account + at;
    at += (size_t)snprintf(account + at, size - at, "kernel: ");
    at += (size_t)vsnprintf(account + at, size - at, text, list);
    if (at < size && regs)
        at += (size_t)snprintf(account + at, size - at, " at rip 0x%lx", regs->rip);
    if (at < size)
        at += (size_t)snprintf(account + at, size - at, " in restart %lu",
                               (unsigned long)keep.restarts);
    at = at < size ? at : size - 1;
    account[at] = '\n';
    account[at + 1] = '\0';
}

/* Below what the program has said. While it has not read what the life before has left, that must
 * still be found: then we say one line only. */
static void say_why(void)
{
    uk_console_out(account, strlen(account));
    slot_add(&slot, has_read ? account : verdict);
    slot_store();
}

static NORETURN void give_up(const char *why)
{
    say("the end: %s", why);
    __real_ukplat_terminate(UKPLAT_CRASH);
}

void crash_end(const struct __regs *regs, const char *text, ...)
{
    ukplat_lcpu_disable_irq();
    if (keep.is_ending > 1)
        give_up("restarting fails");
    const char *hopeless = !snapshot_exists() ? "there is no snapshot to go on from"
                           : !keep_is_whole() ? "what is kept across lives is damaged" : NULL;
    if (keep.is_ending++ == 0) {
        keep.ended_ns = ukplat_monotonic_clock();
        if (!hopeless)
            keep_seal();
        va_list list;
        va_start(list, text);
        note(regs, text, list);
        va_end(list);
        say_why();
    }
    if (hopeless)
        give_up(hopeless);
    bool is_quick = has_served && ukplat_monotonic_clock() - served_since < QUICK_NS;
    keep.restarts++;
    keep.failed_starts = has_served ? 0 : keep.failed_starts + 1;
    keep.quick_deaths = is_quick ? keep.quick_deaths + 1 : 0;
    keep_seal();
    if (keep.failed_starts >= GIVE_UP_AFTER)
        give_up("too many starts in a row have failed");
    machine_delay(start_delay_ns(keep.failed_starts, keep.quick_deaths));
    snapshot_restore();
}

void crash_end_cleanly(void)
{
    __real_ukplat_terminate(UKPLAT_HALT);
}

/* abort(), UK_CRASH(), UK_ASSERT(), exit(): all of Unikraft's and libc's ways end here. */
void __wrap_ukplat_terminate(enum ukplat_gstate request)
{
    crash_end(NULL, "Unikraft or libc has ended the machine, reason %d", (int)request);
}

void say(const char *text, ...)
{
    char line[160] = "tardigrade: ";
    size_t at = strlen(line), size = sizeof(line) - 1; /* room for a newline */
    va_list list;
    va_start(list, text);
    at += (size_t)vsnprintf(line + at, size - at, text, list);
    va_end(list);
    at = at < size ? at : size - 1;
    line[at] = '\n';
    uk_console_out(line, at + 1);
}

void panic_at(const char *file, uint32_t line, const char *text, ...)
{
    char what[128];
    va_list list;
    va_start(list, text);
    vsnprintf(what, sizeof(what), text, list);
    va_end(list);
    crash_end(NULL, "panic at %s:%u: %s", file, line, what);
}
