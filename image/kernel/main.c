/* SPDX-License-Identifier: Apache-2.0 */
/* The boot story, top to bottom. Power-on and every restart tell it. */

#include "kernel.h"
#include "pv.h"

struct options options;

NORETURN void kernel_main(uint64_t start_info_pa);

/* start_info_pa: at power-on what the loader says; 0 at a restart. */
void kernel_main(uint64_t start_info_pa)
{
    xen_find();
    if (start_info_pa && pv_is_on) {
        pv_read_start_info(start_info_pa); /* into `keep` */
    } else if (start_info_pa) {
        startinfo_read(start_info_pa);
        xen_read_memory();           /* what init-xenstore-domain does not say */
    }
    keep_check();
    trap_init();                     /* faults have somewhere to go from here on */
    cmdline_parse(&options, keep.command_line);
    console_init();
    page_init();                     /* which memory is free */
    grant_init();                    /* the last life's are unmapped, out of its page tables */
    paging_init();                   /* page tables: code, constants and data apart (K3) */
    crash_init();                    /* an error of the command line ends here */
    region_init();                   /* the persistent memory */
    xen_init();
    evtchn_init();                   /* the last life's ports are closed */
    random_init();
    clock_init();
    apic_init();                     /* the tick: watchdog and waiting */
    virtio_init();                   /* the byte channel */
    syscall_init();
    file_init();                     /* descriptors 0, 1, 2 */
    watchdog_start();
    snapshot_restore();              /* comes back only if there is none */
    program_start();                 /* Python from its ELF file */
}
