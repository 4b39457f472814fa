/* SPDX-License-Identifier: Apache-2.0 */
/* Crashes of the kernel's own, on demand: /dev/drill, with drill=on. For tests and drills. */

#include "cpu.h"
#include "device.h"
#include "linux.h"

static void double_fault(void)
{
    /* the page fault of the push has no stack either */
    __asm__ volatile("xor %%esp, %%esp; push %%rax" : : : "memory");
}

static void machine_check(void)
{
    __asm__ volatile("int $18");
}

static void page_fault(void)
{
    *(volatile uint64_t *)(DIRECT_BASE - PAGE_SIZE) = 1;
}

static void code_write(void)
{
    *(volatile uint8_t *)(KERNEL_BASE + KERNEL_PA) = 0xcc;
}

static void initrd_write(void)
{
    *(volatile uint8_t *)direct(keep.initrd.pa) = 0xcc;
}

static void region_write_wild(void)
{
    *(volatile uint8_t *)direct(options.region_pa) = 0xcc;
}

static void snapshot_write(void)
{
    *(volatile uint8_t *)direct(keep.snapshot_pa) = 0xcc;
}

static void power_off(void)
{
    machine_done("a drill");
}

static int overflow(int depth)
{
    volatile char room[1024];
    room[0] = (char)depth;
    return depth < 0 ? 0 : overflow(depth + 1) + room[0]; /* the stack ends long before 2^31 */
}

static void stack_overflow(void)
{
    overflow(0);
}

static void kernel_panic(void)
{
    panic("a drill");
}

static const struct { const char *line; void (*run)(void); } drills[] = {
    {"double-fault\n", double_fault}, {"machine-check\n", machine_check},
    {"kernel-page-fault\n", page_fault}, {"kernel-stack-overflow\n", stack_overflow},
    {"kernel-panic\n", kernel_panic}, {"kernel-code-write\n", code_write},
    {"initrd-write\n", initrd_write}, {"region-write\n", region_write_wild},
    {"snapshot-write\n", snapshot_write}, {"power-off\n", power_off},
};

/* A line each time; position: the drill's number. */
static int64_t drill_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)offset;
    if (file->position == COUNT(drills))
        return 0;
    const char *line = drills[file->position].line;
    if (size < strlen(line))
        return -EINVAL;
    memcpy(to, line, strlen(line));
    file->position++;
    return (int64_t)strlen(line);
}

static bool drill_exists(void) { return options.drill; }

static int64_t drill_write(struct file *file, const void *from, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    for (uint32_t index = 0; index < COUNT(drills); index++)
        if (strlen(drills[index].line) == size + 1 && memcmp(drills[index].line, from, size) == 0) {
            drills[index].run();
            panic("a drill did nothing: %s", drills[index].line);
        }
    return -EINVAL;
}

const struct device drill_device = {
    .path = "/dev/drill", .mode = S_IFCHR | 0600, .exists = drill_exists,
    .read = drill_read, .write = drill_write,
};
