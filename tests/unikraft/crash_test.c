/* SPDX-License-Identifier: Apache-2.0 */
/* crash.c, snapshot.c, apart.c, region.c and context.S: a life on a stack of the made-up image
 * takes a snapshot, ruins all that it may write to, and ends; the next one finds everything as it
 * was, the region as it was left, and the reason in the crash slot. `crash_test ENDS...` prints
 * what was said; the ends are the process's exit codes. Without another end the region goes to
 * standard error.
 *
 * Cannot show: registers of a trap, and that Unikraft's memory is where its symbols say. */

#include "tardigrade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "unikraft.h"

#define IMAGE_PAGES 64
#define HEAP_PAGES 4096
#define STACK_FROM (IMAGE_PAGES / 2 * __PAGE_SIZE) /* of a life, to the end of the image */
#define CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%d: %s\n", __LINE__, #condition), exit(9)))

#define HEAP_SIZE (HEAP_PAGES * (size_t)__PAGE_SIZE)

/* This file is linked first: what lies between here and `apart` is this program's .bss, which is
 * restored as Unikraft's would be. What a life is to remember it keeps in the region. */
__attribute__((aligned(__PAGE_SIZE))) char made_up_image[IMAGE_PAGES * __PAGE_SIZE];
static char *heap;
struct ukplat_memregion_desc made_up_heap;
uint64_t made_up_now = 1000000000;
static char **ends;
static unsigned long heap_used; /* pages, from the beginning */

void *uk_palloc(struct uk_alloc *of, unsigned long pages)
{
    (void)of;
    void *found = heap + heap_used * __PAGE_SIZE;
    if (heap_used + pages > HEAP_PAGES)
        return NULL;
    heap_used += pages;
    return found;
}

void uk_pfree(struct uk_alloc *of, void *pages, unsigned long count)
{
    (void)of;
    heap_used -= count;
    CHECK(pages == heap + heap_used * __PAGE_SIZE);
}

long uk_alloc_pmaxalloc(struct uk_alloc *of)
{
    (void)of;
    return (long)(HEAP_PAGES - heap_used);
}

static bool irq_is_off;

__ssz uk_console_out(const char *text, __sz size)
{
    CHECK(irq_is_off == (keep.is_ending != 0)); /* an end is not interrupted */
    return (__ssz)fwrite(text, 1, size, stdout);
}

void __real_ukplat_terminate(enum ukplat_gstate request) { exit((int)request); }
void __wrap_ukplat_terminate(enum ukplat_gstate request);
void ukplat_lcpu_enable_irq(void) { irq_is_off = false; }
void ukplat_lcpu_disable_irq(void) { irq_is_off = true; }
void machine_before_snapshot(void) {}
static const char *tearing;

/* What the slot holds may be damaged while nobody lives. */
void machine_reset(void)
{
    char *slot = apart.region + CRASH_SLOT_OFFSET;
    if (tearing && !strcmp(tearing, "tear text"))
        slot[34] ^= 1;
    if (tearing && !strcmp(tearing, "tear size"))
        memset(slot + 12, 0xff, 4);
}

void machine_delay(uint64_t ns) { printf("delay %lu ms\n", (unsigned long)(ns / 1000000)); }

/* ---- a life */

static char *own_page(int number) { return made_up_image + number * __PAGE_SIZE; }

static void ruin_everything(void)
{
    memset(made_up_image, 0xa5, STACK_FROM);
    memset(heap + heap_used * __PAGE_SIZE, 0x5a, HEAP_SIZE - heap_used * __PAGE_SIZE);
    heap[5] = 'r';
}

static void end_by(const char *how)
{
    struct __regs regs = {.rip = 0x1234};
    if (!strncmp(how, "tear", 4))
        tearing = how;
    if (!strcmp(how, "unread"))
        crash_end(&regs, "unread");
    if (!strcmp(how, "trap"))
        crash_end(&regs, "page fault: write to 0x%lx", 0x600000000000ul);
    if (!strcmp(how, "abort"))
        __wrap_ukplat_terminate(UKPLAT_CRASH);
    if (!strcmp(how, "clean"))
        crash_end_cleanly();
    if (!strcmp(how, "damage keep"))
        keep.first_port ^= 1;
    if (!strcmp(how, "damage"))
        ((char *)keep.snapshot)[2 * __PAGE_SIZE] ^= 1;
    crash_end(NULL, "%s", how);
}

static void say_what_was_said(void)
{
    char text[CRASH_SLOT_SIZE];
    size_t size = crash_read(text, sizeof(text), 0);
    printf("slot %zu: %.*s", size, (int)size, text);
}

/* Registers that a function must keep are as they were, whatever they have become meanwhile. */
static void registers_are_kept(void)
{
    static struct context saved;
    uint64_t changed, from = (uint64_t)&saved;
    __asm__ volatile(
        "movq %%rsp, %%rbx\n subq $128, %%rsp\n andq $-16, %%rsp\n"
        "movq $12, %%r12\n movq $13, %%r13\n movq $14, %%r14\n movq $15, %%r15\n"
        "call context_save\n testl %%eax, %%eax\n jnz 1f\n"
        "xorl %%ebx, %%ebx\n xorl %%r12d, %%r12d\n xorl %%r13d, %%r13d\n"
        "xorl %%r14d, %%r14d\n xorl %%r15d, %%r15d\n"
        "call context_resume\n"
        "1: movq %%rbx, %%rsp\n"
        "subq $12, %%r12\n subq $13, %%r13\n subq $14, %%r14\n subq $15, %%r15\n"
        "orq %%r12, %%r13\n orq %%r13, %%r14\n orq %%r14, %%r15\n movq %%r15, %0\n"
        : "=a"(changed)
        : "D"(from)
        : "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
          "memory", "cc");
    CHECK(!changed);
}

static void life(void)
{
    strcpy(own_page(1), "what the image holds");
    strcpy(heap, "the heap");
    heap_used = 1;
    const char *answer = snapshot_take();
    CHECK(!strcmp(snapshot_take(), "off")); /* there is one */
    char lives;
    CHECK(region_read(0x8000, &lives, 1) == 0);
    printf("life %d: %s\n", lives, answer);
    CHECK(!strcmp(own_page(1), "what the image holds"));
    CHECK(own_page(2)[0] == 0 && own_page(31)[7] == 0);
    CHECK(!strcmp(heap, "the heap"));
    const char *how = ends[(int)lives++];
    CHECK(region_write(0x8000, &lives, 1) == 0);
    if (how && !strcmp(how, "unread"))
        end_by(how);
    say_what_was_said();
    CHECK(crash_truncate(0) == 0);
    CHECK(region_write(REGION_SIZE - 1, "xy", 2) == -ENOSPC);
    if (!how) {
        fwrite(apart.region, 1, REGION_SIZE, stderr);
        exit(0);
    }
    if (strcmp(how, "early"))
        crash_has_served();
    made_up_now += 10000000000;
    crash_write("said\n", 5, 0);
    ruin_everything();
    end_by(how);
}

int main(int argc, char **argv)
{
    (void)argc;
    ends = argv + 1;
    heap = mmap(NULL, HEAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(heap != MAP_FAILED);
    made_up_heap = (struct ukplat_memregion_desc){(uintptr_t)heap, HEAP_SIZE};
    CHECK((uintptr_t)made_up_image < (uintptr_t)&apart);
    registers_are_kept();
    crash_begin();
    context_call_on(made_up_image + sizeof(made_up_image), life);
}
