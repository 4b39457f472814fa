/* SPDX-License-Identifier: Apache-2.0 */
/* The boot story, top to bottom. Power-on and every restart tell it. */

#include "kernel.h"

extern uint64_t start_info_pa; /* bootentry.S */

struct options options;

NORETURN void kernel_main(void);

void kernel_main(void)
{
    if (start_info_pa)               /* power-on: what the loader says goes to `keep` */
        startinfo_read(start_info_pa);
    start_info_pa = 0;
    keep_check();
    cmdline_parse(&options, keep.command_line);
    console_init();
    page_init();                     /* which memory is free */
    paging_init();                   /* page tables: code, constants and data apart (K3) */
    trap_init();                     /* faults have somewhere to go from here on */
    crash_init();                    /* an error of the command line ends here */
    region_init();                   /* the persistent memory */
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
