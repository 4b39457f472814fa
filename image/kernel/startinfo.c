/* SPDX-License-Identifier: Apache-2.0 */
/* What a PVH loader says: memory, the initrd, the command line. Read once, at power-on, from the
 * structure of Xen's public header arch-x86/hvm/start_info.h; a restart finds it in `keep`.
 *
 * It comes from whoever started us, who could do anything anyway; bounds are checked all the same,
 * since a mistake here would be hard to find. Runs on the boot page tables: no fault is caught. */

#include "kernel.h"

#include <xen/arch-x86/hvm/start_info.h>

#define RAM XEN_HVM_MEMMAP_TYPE_RAM

void startinfo_add_ram(uint64_t pa, uint64_t size)
{
    if (pa >= PHYSICAL_MAX || keep.ram_count == RAM_RANGES_MAX)
        return;
    uint64_t most = PHYSICAL_MAX - pa;
    keep.ram[keep.ram_count++] = (struct range){pa, size < most ? size : most};
}

static void startinfo_ram(const struct hvm_start_info *info)
{
    const struct hvm_memmap_table_entry *entries = direct(info->memmap_paddr);
    for (uint32_t index = 0; info->version >= 1 && index < info->memmap_entries; index++)
        if (entries[index].type == RAM)
            startinfo_add_ram(entries[index].addr, entries[index].size);
}

void startinfo_read(uint64_t info_pa)
{
    memset(&keep, 0, sizeof(keep));
    const struct hvm_start_info *info = direct(info_pa);
    if (info_pa >= PHYSICAL_MAX || info->magic != XEN_HVM_START_MAGIC_VALUE)
        machine_off("no PVH start info: use a PVH loader");
    startinfo_ram(info);
    if (info->nr_modules > 0) {
        const struct hvm_modlist_entry *module = direct(info->modlist_paddr);
        keep.initrd = (struct range){module->paddr, module->size};
    }
    if (info->cmdline_paddr) {
        const char *line = direct(info->cmdline_paddr);
        size_t size = strnlen(line, sizeof(keep.command_line));
        if (size == sizeof(keep.command_line))
            machine_off("the command line is too long");
        memcpy(keep.command_line, line, size);
    }
    keep_seal();
}
