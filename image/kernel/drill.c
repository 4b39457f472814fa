/* SPDX-License-Identifier: Apache-2.0 */
/* Crashes of the kernel's own, on demand: /dev/drill, with drill=on. For tests and drills. */

#include "cpu.h"
#include "device.h"
#include "linux.h"

#define LIST_SIZE 512

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

static const struct { const char *name; void (*run)(void); } drills[] = {
    {"double-fault", double_fault}, {"machine-check", machine_check},
    {"kernel-page-fault", page_fault}, {"kernel-stack-overflow", stack_overflow},
    {"kernel-panic", kernel_panic}, {"kernel-code-write", code_write},
    {"initrd-write", initrd_write}, {"region-write", region_write_wild},
    {"snapshot-write", snapshot_write}, {"power-off", power_off},
};

static uint64_t drill_list(char *to, size_t size)
{
    uint64_t at = 0;
    for (uint32_t index = 0; index < COUNT(drills); index++)
        at += (uint64_t)format(to + at, size - at, "%s\n", drills[index].name);
    return at;
}

static uint64_t drill_size(void)
{
    char list[LIST_SIZE];
    return drill_list(list, sizeof(list));
}

static int64_t drill_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file;
    char list[LIST_SIZE];
    uint64_t end = drill_list(list, sizeof(list));
    uint64_t count = offset >= end ? 0 : size < end - offset ? size : end - offset;
    memcpy(to, list + offset, count);
    return (int64_t)count;
}

static bool drill_exists(void) { return options.drill; }

static int64_t drill_write(struct file *file, const void *from, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    for (uint32_t index = 0; index < COUNT(drills); index++)
        if (strlen(drills[index].name) == size && memcmp(drills[index].name, from, size) == 0) {
            drills[index].run();
            panic("the drill %s did nothing", drills[index].name);
        }
    return -EINVAL;
}

const struct device drill_device = {
    .path = "/dev/drill", .mode = S_IFCHR | 0600, .exists = drill_exists, .size = drill_size,
    .read = drill_read, .write = drill_write,
};
