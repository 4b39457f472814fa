/* SPDX-License-Identifier: Apache-2.0 */
/* startinfo.c and keep.c: what a loader says arrives in `keep`, within its bounds; and a byte of it
 * that changes is noticed. */

#include <stdint.h>
#include <xen/arch-x86/hvm/start_info.h>

#include "machine.h"

#define INFO_PA 0x10000
#define MAP_PA 0x11000
#define MODULE_PA 0x13000
#define LINE_PA 0x14000

static struct hvm_start_info *info;
static struct hvm_memmap_table_entry *map;

static void say_ram(uint64_t pa, uint64_t size, uint32_t type)
{
    map[info->memmap_entries++] = (struct hvm_memmap_table_entry){pa, size, type, 0};
}

static void say_line(size_t size)
{
    memset(direct(LINE_PA), 'x', size);
    ((char *)direct(LINE_PA))[size] = 0;
}

static void set_up(void)
{
    CHECK(machine_map(DIRECT_BASE, PHYSICAL_MAX));
    info = direct(INFO_PA);
    map = direct(MAP_PA);
    *info = (struct hvm_start_info){
        .magic = XEN_HVM_START_MAGIC_VALUE, .version = 1, .nr_modules = 1,
        .modlist_paddr = MODULE_PA, .cmdline_paddr = LINE_PA, .memmap_paddr = MAP_PA,
    };
    *(struct hvm_modlist_entry *)direct(MODULE_PA) = (struct hvm_modlist_entry){0x5000, 77, 0, 0};
    say_line(COMMAND_LINE_SIZE - 1);
    say_ram(0, 0x9fc00, XEN_HVM_MEMMAP_TYPE_RAM);
    say_ram(0xf0000, 0x10000, XEN_HVM_MEMMAP_TYPE_RESERVED);
    say_ram(0xc0000000, 0x80000000, XEN_HVM_MEMMAP_TYPE_RAM); /* across 4 GiB */
    say_ram(0x80000000, UINT64_MAX, XEN_HVM_MEMMAP_TYPE_RAM);
    say_ram(PHYSICAL_MAX, 0x1000, XEN_HVM_MEMMAP_TYPE_RAM);
}

static void check_range(struct range range, uint64_t pa, uint64_t size)
{
    CHECK(range.pa == pa && range.size == size, "0x%lx, 0x%lx", range.pa, range.size);
}

static void check_damage(void)
{
    for (size_t offset = 0; offset < sizeof(keep); offset += 1 + offset % 61) {
        uint8_t *byte = (uint8_t *)&keep + offset;
        *byte ^= 0x10;
        CHECK(EXIT_OF(keep_check()) == EXIT_OFF, "offset %zu", offset);
        *byte ^= 0x10;
    }
    keep_check();
}

int main(void)
{
    set_up();
    memset(&keep, 0xa5, sizeof(keep));
    startinfo_read(INFO_PA);
    CHECK(keep.ram_count == 3);
    check_range(keep.ram[0], 0, 0x9fc00);
    check_range(keep.ram[1], 0xc0000000, 0x40000000);
    check_range(keep.ram[2], 0x80000000, 0x80000000);
    check_range(keep.initrd, 0x5000, 77);
    CHECK(strlen(keep.command_line) == COMMAND_LINE_SIZE - 1);
    CHECK(keep.restarts == 0 && keep.snapshot_pa == 0);
    check_damage();

    while (info->memmap_entries < 2 * RAM_RANGES_MAX)
        say_ram(0x100000, 0x1000, XEN_HVM_MEMMAP_TYPE_RAM);
    startinfo_read(INFO_PA);
    CHECK(keep.ram_count == RAM_RANGES_MAX);
    keep_check();

    info->nr_modules = 0;
    info->cmdline_paddr = 0;
    startinfo_read(INFO_PA);
    check_range(keep.initrd, 0, 0);
    CHECK(keep.command_line[0] == 0);

    info->cmdline_paddr = LINE_PA;
    say_line(COMMAND_LINE_SIZE);
    CHECK(EXIT_OF(startinfo_read(INFO_PA)) == EXIT_OFF);
    CHECK(EXIT_OF(startinfo_read(PHYSICAL_MAX)) == EXIT_OFF);
    info->magic++;
    CHECK(EXIT_OF(startinfo_read(INFO_PA)) == EXIT_OFF);
    return 0;
}
