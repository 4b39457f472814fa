/* SPDX-License-Identifier: Apache-2.0 */
/* The map of virtual memory, and every bound. Read by C, assembly and the linker script.
 *
 *   0x0000000000400000   the program: its ELF segments, then brk
 *   0x0000700000000000   its mmap areas, upwards
 *   0x00007ffff0000000   its stack, downwards; below it a gap that nothing can be mapped in
 *   0xffff880000000000   DIRECT: all memory, never executable; writable but for code, initrd,
 *                        snapshot and region
 *   0xffffc90000000000   devices, uncached
 *   0xffffd00000000000   the region again, writable: region.c alone knows it
 *   0xffffd80000000000   shared_info, on Xen
 *   0xffffffff80000000   the kernel, at physical 2 MiB */

#ifndef LAYOUT_H
#define LAYOUT_H

#define PAGE_SIZE 0x1000

#define FIRMWARE_SIZE 0x100000 /* the first MiB is not used */
#define NOTE_PA 0x1000         /* but, in a domain, for where the snapshot is: carried.c */
#define KERNEL_PA 0x200000
#define KERNEL_BASE 0xffffffff80000000 /* virtual address of physical 0 there */
#define DIRECT_BASE 0xffff880000000000
#define DEVICE_BASE 0xffffc90000000000
#define REGION_WINDOW 0xffffd00000000000
#define SHARED_INFO_VA 0xffffd80000000000
#define MACHINE_TO_PHYSICAL_VA 0xffff800000000000 /* Xen's, in a PV domain */
#define PHYSICAL_MAX 0x100000000 /* memory above 4 GiB is not used */

#define GRANT_SLOTS 4096
#define XEN_WINDOW_PA 0xe0000000 /* no memory: shared_info, then a page for each slot */
#define XEN_WINDOW_SIZE ((GRANT_SLOTS + 1) * PAGE_SIZE)

#define USER_END 0x0000800000000000
#define MMAP_BASE 0x0000700000000000
#define MMAP_END 0x0000780000000000
#define STACK_TOP 0x00007ffff0000000
#define STACK_SIZE 0x100000
#define PROGRAM_BASE 0x400000

#define KERNEL_STACK_SIZE 0x4000

#define COMMAND_LINE_SIZE 2048
#define AREAS_MAX 1024
#define SIGNALS 65

#define REGION_DEFAULT_PA 0x1000000
#define REGION_DEFAULT_SIZE 0x1000000
#define REGION_SIZE_MIN 0x100000
#define CRASH_SLOT_OFFSET 0x3000 /* persist/layout.py */
#define CRASH_SLOT_SIZE 0x1000

#define SELECTOR_KERNEL_CODE 0x08
#define SELECTOR_KERNEL_DATA 0x10
#define SELECTOR_USER_DATA 0x1b
#define SELECTOR_USER_CODE 0x23
#define SELECTOR_TSS 0x28
#define SELECTOR_PV_CODE 0xe033 /* Xen's, flat, for a PV kernel and its program */
#define SELECTOR_PV_DATA 0xe02b

#define EXCEPTIONS 20
#define ERROR_CODES 0x227d00 /* a bit per vector that comes with one: SDM volume 3, table 6-1 */
#define VECTOR_DEVICE 0x20 /* and up: I/O APIC */
#define VECTOR_TICK 0x38 /* above all devices: the watchdog must come through */
#define VECTOR_XEN 0x3e /* event channels; comes without the local APIC */
#define VECTOR_SPURIOUS 0x3f
#define VECTORS 0x40
#define VECTOR_SYSCALL 0x100 /* no vector: marks the frame of a system call */

#endif
