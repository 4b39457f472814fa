/* SPDX-License-Identifier: Apache-2.0 */
/* How the kernel begins: at power-on from a PVH loader (QEMU, Xen), at a restart from crash.c.
 *
 * Power-on: 32-bit protected mode, paging off, %ebx = physical address of hvm_start_info
 * (Xen's arch-x86/hvm/start_info.h). Restart: 64-bit, our own page tables, anything else unknown.
 * Both use the boot page tables that power-on has filled: all of the first 4 GiB, writable and
 * executable, at 0, at DIRECT_BASE and (1 GiB) at KERNEL_BASE. paging.c replaces them at once.
 * Then .bss is cleared, and kernel_main() called, which never returns. */

#include "layout.h"

#define PA(symbol) ((symbol) - KERNEL_BASE)
#define CR0_PE 0x1
#define CR0_MP 0x2
#define CR0_EM_TS 0xc
#define CR0_NE 0x20
#define CR0_WP 0x10000
#define CR0_PG 0x80000000
#define CR4_PAE_OSFXSR_OSXMMEXCPT 0x620
#define MSR_EFER 0xc0000080
#define EFER_SCE_LME_NXE 0x901
#define BOOT_TABLES 7                    /* pages: PML4, two PDPTs, four PDs */

        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18                   /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long PA(power_on)

        .section .text.boot, "ax"
        .code32
        .globl power_on
power_on:
        cld
        cli
        mov     $PA(kernel_stack_top), %esp
        call    build_boot_tables
        mov     $CR4_PAE_OSFXSR_OSXMMEXCPT, %eax
        mov     %eax, %cr4
        mov     $PA(boot_tables), %eax
        mov     %eax, %cr3
        mov     $MSR_EFER, %ecx
        rdmsr
        or      $EFER_SCE_LME_NXE, %eax
        wrmsr
        mov     %cr0, %eax
        and     $~CR0_EM_TS, %eax
        or      $(CR0_PG | CR0_WP | CR0_NE | CR0_MP | CR0_PE), %eax
        mov     %eax, %cr0
        lgdt    PA(boot_gdt_pointer)
        ljmp    $SELECTOR_KERNEL_CODE, $PA(long_mode)

build_boot_tables:
        mov     $PA(boot_tables), %edi
        xor     %eax, %eax
        mov     $(BOOT_TABLES * PAGE_SIZE / 4), %ecx
        rep stosl
        mov     $PA(boot_tables), %edi
        lea     (0x1000 + 3)(%edi), %eax
        mov     %eax, (%edi)                     /* PML4[0]: 0 */
        mov     %eax, (272 * 8)(%edi)            /* PML4[272]: DIRECT_BASE */
        add     $0x1000, %eax
        mov     %eax, (511 * 8)(%edi)            /* PML4[511]: the second PDPT */
        lea     (0x3000 + 3)(%edi), %eax
        mov     %eax, (0x2000 + 510 * 8)(%edi)   /* its [510]: KERNEL_BASE, the first GiB */
        xor     %ecx, %ecx
1:      mov     %eax, 0x1000(%edi, %ecx, 8)      /* the first PDPT: four PDs */
        add     $0x1000, %eax
        inc     %ecx
        cmp     $4, %ecx
        jb      1b
        add     $0x3000, %edi
        mov     $0x83, %eax                      /* 2 MiB, writable, present */
        mov     $2048, %ecx
2:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        loop    2b
        ret

        .code64
long_mode:
        mov     %ebx, %ebx
        mov     $long_mode_high, %rax
        jmp     *%rax

/* The common way: 64-bit, boot page tables, interrupts off. */
        .section .text, "ax"
long_mode_high:
        lgdt    boot_gdt_pointer_high
        mov     $SELECTOR_KERNEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        mov     %rbx, %rdi               /* 0 at a restart */
        .globl  begin_again              /* pventry.S goes on here, too */
begin_again:
        mov     $kernel_stack_top, %rsp
        cld
        mov     %rdi, %rdx
        xor     %eax, %eax
        mov     $bss_start, %rdi
        mov     $bss_end, %rcx
        sub     %rdi, %rcx
        shr     $3, %rcx
        rep stosq
        xor     %ebp, %ebp
        mov     %rdx, %rdi
        call    kernel_main
        ud2

/* crash_restart(): leave all that the last life has set up. The boot tables are still what
 * power_on has made of them: paging.c maps them read-only. */
        .globl crash_restart
crash_restart:
        cmpl    $0, pv_is_on
        jne     pv_restart
        cli
        mov     $PA(boot_tables), %rax
        mov     %rax, %cr3
        xor     %ebx, %ebx
        jmp     long_mode_high

        .section .rodata, "a"
        .align 8
boot_gdt:
        .quad   0
        .quad   0x00af9b000000ffff       /* SELECTOR_KERNEL_CODE */
        .quad   0x00cf93000000ffff       /* SELECTOR_KERNEL_DATA */
boot_gdt_end:
boot_gdt_pointer:
        .word   boot_gdt_end - boot_gdt - 1
        .quad   PA(boot_gdt)
boot_gdt_pointer_high:
        .word   boot_gdt_end - boot_gdt - 1
        .quad   boot_gdt

        .section .boot_tables, "aw", @nobits /* read-only once paging.c is up */
        .align  PAGE_SIZE
boot_tables:
        .skip   BOOT_TABLES * PAGE_SIZE

        .section .stacks, "aw", @nobits
        .align PAGE_SIZE
        .skip   PAGE_SIZE                /* a page that paging.c does not map, below each stack */
        .skip   KERNEL_STACK_SIZE        /* of system calls and traps, too: K1 */
        .globl kernel_stack_top
kernel_stack_top:
        .skip   PAGE_SIZE
        .skip   KERNEL_STACK_SIZE
        .globl fault_stack_top
fault_stack_top:
        .skip   PAGE_SIZE
        .skip   KERNEL_STACK_SIZE
        .globl nmi_stack_top
nmi_stack_top:
        .skip   PAGE_SIZE
        .skip   KERNEL_STACK_SIZE
        .globl machine_check_stack_top
machine_check_stack_top:

        .section .note.GNU-stack, "", @progbits
