/* SPDX-License-Identifier: Apache-2.0 */
/* The program: its ELF file in the initrd, and the stack it begins with.
 *
 * Segments without write permission are mapped straight from the initrd, which is why its packer
 * puts the file's data on a page; the others are copied. A restart without a snapshot begins here,
 * too. Sources: System V ABI (gABI, chapter 5; AMD64 supplement, 3.4.1). */

#include "cpu.h"
#include "linux.h"
#include "pv.h"
#include "trap.h"

#define NAME "python"
#define RANDOM_SIZE 16

enum { PT_LOAD = 1, PF_X = 1, PF_W = 2 };

struct elf {
    uint8_t identity[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, segments_offset, sections_offset;
    uint32_t flags;
    uint16_t size, segment_size, segment_count, section_size, section_count, names;
};

struct segment {
    uint32_t type, flags;
    uint64_t offset, va, pa, file_size, size, alignment;
};

PROGRAM_STATE uint64_t program_fs_base;

void program_set_fs_base(uint64_t va)
{
    program_fs_base = va;
    wrmsr(MSR_FS_BASE, va);
}

static const char *check(const struct elf *elf, uint64_t size)
{
    static const uint8_t identity[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    if (size < sizeof(*elf) || memcmp(elf->identity, identity, sizeof(identity)))
        return "it is no ELF file of 64 bits";
    if (elf->type != 2 || elf->machine != 62)
        return "it is no static program for x86-64";
    if (elf->segment_size != sizeof(struct segment) || elf->segments_offset > size ||
        (size - elf->segments_offset) / sizeof(struct segment) < elf->segment_count)
        return "its program headers lie outside";
    return NULL;
}

static const char *check_segment(const struct segment *segment, uint64_t size)
{
    if (segment->offset > size || segment->file_size > size - segment->offset)
        return "a segment lies outside";
    if (segment->va < PROGRAM_BASE || segment->va >= MMAP_BASE ||
        segment->size > MMAP_BASE - segment->va || segment->file_size > segment->size)
        return "a segment's addresses are outside of the program's";
    if (segment->va % PAGE_SIZE != segment->offset % PAGE_SIZE)
        return "a segment is not aligned";
    if (segment->flags & PF_W && segment->flags & PF_X)
        return "a segment is writable and executable";
    return NULL;
}

static int map_constant(const char *file, const struct segment *segment)
{
    uint64_t skew = segment->va % PAGE_SIZE;
    uint64_t pa = (uint64_t)file + segment->offset - skew - DIRECT_BASE;
    uint32_t flags = MAP_USER | MAP_SHARED | (segment->flags & PF_X ? MAP_EXECUTE : 0);
    if (segment->file_size != segment->size)
        return -EINVAL;
    for (uint64_t offset = 0; offset < skew + segment->size; offset += PAGE_SIZE)
        if (paging_map(segment->va - skew + offset, pa + offset, flags))
            return -ENOMEM;
    return 0;
}

static int copy_variable(const char *file, const struct segment *segment)
{
    uint64_t end = (segment->va + segment->size + PAGE_SIZE - 1) & -PAGE_SIZE;
    if (memory_add(segment->va & -PAGE_SIZE, end, MAP_WRITE))
        return -ENOMEM;
    memcpy((void *)segment->va, file + segment->offset, segment->file_size);
    if (end > memory.brk_base)
        memory.brk_base = memory.brk = end;
    return 0;
}

static uint64_t load(const char *file, uint64_t size)
{
    const struct elf *elf = (const struct elf *)file;
    const char *problem = check(elf, size);
    if (!problem && ((uint64_t)file - DIRECT_BASE) % PAGE_SIZE)
        problem = "its data does not begin on a page";
    if (problem)
        machine_off(problem);
    const struct segment *segments = (const struct segment *)(file + elf->segments_offset);
    for (uint32_t index = 0; index < elf->segment_count; index++) {
        const struct segment *segment = &segments[index];
        if (segment->type != PT_LOAD || segment->size == 0)
            continue;
        problem = check_segment(segment, size);
        if (problem)
            machine_off(problem);
        if (segment->flags & PF_W ? copy_variable(file, segment) : map_constant(file, segment))
            machine_off("not enough memory for the program");
    }
    return elf->entry;
}

/* ---- the first stack */

struct builder { uint64_t strings, words; }; /* both grow: strings down, words up */

static uint64_t add_string(struct builder *stack, const char *text)
{
    size_t size = strlen(text) + 1;
    stack->strings -= size;
    memcpy((void *)stack->strings, text, size);
    return stack->strings;
}

static void add_word(struct builder *stack, uint64_t word)
{
    assert(stack->words + 8 <= stack->strings);
    *(uint64_t *)stack->words = word;
    stack->words += 8;
}

static void add_auxiliary(struct builder *stack, const struct elf *elf, uint64_t random_va)
{
    const uint64_t pairs[][2] = {
        {AT_PHDR, PROGRAM_BASE + elf->segments_offset}, {AT_PHENT, sizeof(struct segment)},
        {AT_PHNUM, elf->segment_count}, {AT_PAGESZ, PAGE_SIZE}, {AT_ENTRY, elf->entry},
        {AT_UID, 0}, {AT_EUID, 0}, {AT_GID, 0}, {AT_EGID, 0}, {AT_SECURE, 0}, {AT_CLKTCK, 100},
        {AT_HWCAP, cpuid(1, 0).edx}, {AT_RANDOM, random_va}, {AT_NULL, 0},
    };
    for (uint32_t index = 0; index < COUNT(pairs); index++) {
        add_word(stack, pairs[index][0]);
        add_word(stack, pairs[index][1]);
    }
}

/* argc, argv, no environment, auxiliary vector; returns the stack pointer. */
static uint64_t build_stack(const struct elf *elf)
{
    if (memory_add(STACK_TOP - STACK_SIZE, STACK_TOP, MAP_WRITE))
        machine_off("not enough memory for the stack");
    uint64_t pointer = STACK_TOP - 2 * COMMAND_LINE_SIZE - 4096; /* strings need less than this */
    struct builder stack = {STACK_TOP - RANDOM_SIZE, pointer};
    random_fill((void *)stack.strings, RANDOM_SIZE);
    uint64_t random_va = stack.strings;
    add_word(&stack, options.argument_count + 1);
    add_word(&stack, add_string(&stack, NAME));
    for (uint32_t index = 0; index < options.argument_count; index++)
        add_word(&stack, add_string(&stack, options.arguments[index]));
    add_word(&stack, 0);
    add_word(&stack, 0);
    add_auxiliary(&stack, elf, random_va);
    return pointer;
}

void program_start(void)
{
    size_t size;
    const char *file = initrd_find(direct(keep.initrd.pa), keep.initrd.size, NAME, &size);
    if (keep.initrd.size == 0 || !file)
        machine_off("the initrd holds no file named " NAME);
    memory.brk_base = memory.brk = PROGRAM_BASE;
    struct frame frame = {
        .rip = load(file, size), .cs = SELECTOR_USER_CODE, .ss = SELECTOR_USER_DATA,
        .rflags = RFLAGS_USER,
    };
    if (pv_is_on) {
        frame.cs = SELECTOR_PV_CODE;
        frame.ss = SELECTOR_PV_DATA;
    }
    frame.rsp = build_stack((const struct elf *)file);
    log_info("start %lu: from the ELF file, at %lu ms", keep.restarts, clock_now() / 1000000);
    cpu_reset_fpu();
    trap_return(&frame);
}
