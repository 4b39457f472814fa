/* SPDX-License-Identifier: Apache-2.0 */
/* page.c against a plain table: what is free at the start, and random allocation.
 * `page_test SEED`. */

#include "machine.h"

#define ROUNDS 20000
#define PAGES (PHYSICAL_MAX / PAGE_SIZE)
#define KERNEL_SIZE (5 * PAGE_SIZE + 1)
#define SNAPSHOT_PA 0x300000
#define TOP_PA 0xfffff000

struct options options;
struct keep keep;

/* kernel.lds says where the kernel is; all that page.c takes of it is the size. */
__asm__(".bss\n.globl kernel_start, kernel_end\nkernel_start: .skip 5 * 4096 + 1\nkernel_end:\n"
        ".previous");

static bool is_free[PAGES];
static uint64_t given[PAGES], given_count, free_count, total_count;

void snapshot_reserve(void) { page_reserve(SNAPSHOT_PA, PAGE_SIZE); }

static void add_ram(uint64_t pa, uint64_t size)
{
    keep.ram[keep.ram_count++] = (struct range){pa, size};
    for (uint64_t page = 0; page < PAGES; page++)
        if (page * PAGE_SIZE >= pa && (page + 1) * PAGE_SIZE <= pa + size)
            is_free[page] = true;
}

static void reserve(uint64_t pa, uint64_t size)
{
    for (uint64_t page = 0; page < PAGES; page++)
        if ((page + 1) * PAGE_SIZE > pa && page * PAGE_SIZE < pa + size)
            is_free[page] = false;
}

static uint64_t count_free(void)
{
    uint64_t count = 0;
    for (uint64_t page = 0; page < PAGES; page++)
        count += is_free[page];
    return count;
}

static void set_up(void)
{
    add_ram(0, 0x9fc00);
    add_ram(0x100000, 0x600000);
    add_ram(0x400000, 0x400000); /* overlaps */
    add_ram(0x900800, 0x2000);   /* a single whole page */
    add_ram(0xa00800, 0x800);    /* none */
    add_ram(TOP_PA, PAGE_SIZE);
    total_count = count_free();
    keep.initrd = (struct range){0x500010, 0x10ff0};
    options.region_pa = 0x600000;
    options.region_size = 0x100000;
    reserve(0, 0x100000);
    reserve(KERNEL_PA, KERNEL_SIZE);
    reserve(keep.initrd.pa, keep.initrd.size);
    reserve(options.region_pa, options.region_size);
    reserve(SNAPSHOT_PA, PAGE_SIZE);
    free_count = count_free();
    page_init();
}

/* Dirty afterwards: the next who gets the page must not see it. */
static void check_alloc(void)
{
    uint64_t pa = page_alloc();
    CHECK((pa != 0) == (free_count > 0));
    if (pa == 0)
        return;
    CHECK(pa % PAGE_SIZE == 0 && pa < PHYSICAL_MAX && is_free[pa / PAGE_SIZE], "0x%lx", pa);
    const uint8_t *bytes = direct(pa);
    for (size_t index = 0; index < PAGE_SIZE; index++)
        CHECK(bytes[index] == 0);
    memset(direct(pa), 0xcc, PAGE_SIZE);
    is_free[pa / PAGE_SIZE] = false;
    given[given_count++] = pa;
    free_count--;
}

static void check_free(void)
{
    if (given_count == 0)
        return;
    uint64_t index = random_below(given_count), pa = given[index];
    page_free(pa);
    given[index] = given[--given_count];
    is_free[pa / PAGE_SIZE] = true;
    free_count++;
}

static void check_counts(void)
{
    CHECK(page_free_count() == free_count, "%lu, not %lu", page_free_count(), free_count);
    CHECK(page_total_count() == total_count, "%lu, not %lu", page_total_count(), total_count);
}

static void check_ram(void)
{
    CHECK(page_is_ram(0x100000, 0x600000) && !page_is_ram(0x100000, 0x600001));
    CHECK(page_is_ram(0x9f000, 0xc00) && !page_is_ram(0x9f000, PAGE_SIZE));
    CHECK(!page_is_ram(0xff000, 2 * PAGE_SIZE));
    CHECK(page_is_ram(TOP_PA, PAGE_SIZE) && !page_is_ram(TOP_PA, PAGE_SIZE + 1));
    CHECK(!page_is_ram(TOP_PA + 1, UINT64_MAX) && !page_is_ram(UINT64_MAX, 2));
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    random_state = strtoull(argv[1], NULL, 0);
    CHECK(machine_map(DIRECT_BASE, PHYSICAL_MAX));
    set_up();
    check_counts();
    check_ram();
    while (free_count > 0)
        check_alloc();
    check_alloc(); /* there is none */
    for (int round = 0; round < ROUNDS; round++) {
        bool is_growing = round / 2000 % 2;
        if (random_below(10) < (is_growing ? 6 : 4))
            check_alloc();
        else
            check_free();
        check_counts();
    }
    while (given_count > 0)
        check_free();
    check_counts();
    uint64_t pa = page_alloc();
    CHECK(pa != 0);
    CHECK(EXIT_OF(page_free(pa)) == 0);
    CHECK(EXIT_OF(page_free(pa); page_free(pa)) == EXIT_PANIC);
    CHECK(EXIT_OF(page_free(pa + 1)) == EXIT_PANIC);
    CHECK(EXIT_OF(page_free(PHYSICAL_MAX)) == EXIT_PANIC);
    return 0;
}
