/* rom.S - the 64 KiB ROM of a shell: from the reset vector to ring 3 (see rom.h).
 *
 * Reset (real mode) -> protected mode -> long mode with the host's page tables -> iretq to the guest.
 * A CPU exception of the guest ends in its stub, which writes the mailbox, rings the doorbell and
 * halts for ever: interrupts stay off from beginning to end. All references are differences to
 * `rombase`, so the object needs no relocation and works at any address.
 *
 * Only instructions that every KVM can emulate: nested ones do so for the whole of ring 0.
 *
 * Sources: Intel SDM vol. 3A, sections 6.14 (64-bit IDT), 8.7 (64-bit TSS), 10.8.5 (IA-32e mode), and
 * vol. 1, section 19.5.2 (I/O permission bitmap).
 */
#include "hypervisor/libvirt/rom.h"
#include "unid/abi.h"

#define SEL_CODE32 0x08
#define SEL_DATA   0x10
#define SEL_CODE64 0x18
#define SEL_TSS    0x20
#define SEL_UDATA  0x33
#define SEL_UCODE  0x3b

#define GDT_ADDR LV_TABLES_ADDR
#define IDT_ADDR (LV_TABLES_ADDR + 0x100)
#define TSS_ADDR (LV_TABLES_ADDR + 0x400)
#define TSS_SIZE 0x68
#define IO_BYTES 0x81 /* bits up to the doorbell's byte, and the byte of ones that must follow */

#define CR4_PAE_SSE  0x620      /* PAE, OSFXSR, OSXMMEXCPT */
#define CR4_FSGSBASE 0x10000    /* where the CPU has it, which the boot block is then told */
#define CPUID_EXTRA  7          /* leaf, whose ebx says so in bit 0 */
#define BOOT_FLAGS   (UNID_BOOT_ADDR + 16)
#define CR0_LONG     0x80010033 /* PG, WP, NE, ET, MP, PE; no AM: ring 3 could set EFLAGS.AC */
#define EFER_LME_NXE 0x900      /* no SCE: `syscall` is an invalid opcode */
#define MSR_EFER     0xc0000080

        .section .rodata.lv_rom, "a", @progbits
        .balign 16
        .globl lv_rom
        .type lv_rom, @object
        .size lv_rom, LV_ROM_SIZE
lv_rom:
rombase:

        .code16
start16:
        cli
        cld
        lgdtl   %cs:(gdtr - rombase)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $SEL_CODE32, $(start32 - rombase + LV_ROM_BASE)

        .code32
start32:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $LV_STACK_TOP, %esp
        movl    $CR4_PAE_SSE, %esi
        xorl    %eax, %eax
        cpuid
        cmpl    $CPUID_EXTRA, %eax
        jb      1f
        movl    $CPUID_EXTRA, %eax
        xorl    %ecx, %ecx
        cpuid
        testb   $1, %bl
        jz      1f
        orl     $CR4_FSGSBASE, %esi
        orl     $UNID_BOOT_FSGSBASE, BOOT_FLAGS
1:      movl    %esi, %cr4
        movl    LV_MAILBOX_CR3, %eax
        movl    %eax, %cr3
        movl    $MSR_EFER, %ecx
        movl    $EFER_LME_NXE, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $CR0_LONG, %eax
        movl    %eax, %cr0
        ljmpl   $SEL_CODE64, $(start64 - rombase + LV_ROM_BASE)

        .code64
start64:
        lidt    (idtr - rombase + LV_ROM_BASE)
        movl    $SEL_TSS, %eax
        ltr     %ax
        xorl    %eax, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        fninit                  /* MXCSR is 0x1f80 since reset (SDM vol. 3A, table 10-1) */
        pushq   $SEL_UDATA
        pushq   LV_MAILBOX_RSP
        pushq   $2              /* RFLAGS: interrupts off, I/O privilege level 0 */
        pushq   $SEL_UCODE
        pushq   LV_MAILBOX_RIP
        movq    LV_MAILBOX_RDI, %rdi
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        xorl    %esi, %esi
        xorl    %ebp, %ebp
        xorl    %r8d, %r8d
        xorl    %r9d, %r9d
        xorl    %r10d, %r10d
        xorl    %r11d, %r11d
        xorl    %r12d, %r12d
        xorl    %r13d, %r13d
        xorl    %r14d, %r14d
        xorl    %r15d, %r15d
        iretq

/* One stub a vector; those for which the CPU pushes no error code push a zero. */
        .macro stub vector
stub\vector:
        .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17) || (\vector == 21)
        .elseif (\vector == 29) || (\vector == 30)
        .else
        pushq   $0
        .endif
        pushq   $\vector
        jmp     fault
        .endm
        .altmacro
        .set    v, 0
        .rept   32
        stub    %v
        .set    v, v + 1
        .endr

/* Stack: vector, error code, rip, cs, rflags, rsp, ss. */
fault:
        popq    %rax
        movl    %eax, LV_FAULT_VECTOR
        popq    %rax
        movq    %rax, %rcx
        movq    %rcx, LV_FAULT_ERROR
        movq    (%rsp), %rcx
        movq    %rcx, LV_FAULT_RIP
        movq    24(%rsp), %rcx
        movq    %rcx, LV_FAULT_RSP
        movq    %cr2, %rcx
        movq    %rcx, LV_FAULT_ADDR
        movl    $1, LV_FAULT_SEEN
        movl    $LV_DOORBELL_PORT, %edx
        movb    $'F', %al
        outb    %al, %dx
halt:
        hlt
        jmp     halt

        .balign 8
gdtr:   .word   0x3f
        .long   GDT_ADDR
        .balign 8
idtr:   .word   32 * 16 - 1
        .quad   IDT_ADDR

/* The template. Accessed bits are set from the start. */
        .org    LV_TABLES_OFFSET
        .quad   0
        .quad   0x00cf9b000000ffff      /* SEL_CODE32 */
        .quad   0x00cf93000000ffff      /* SEL_DATA */
        .quad   0x00af9b000000ffff      /* SEL_CODE64 */
        .word   TSS_SIZE + IO_BYTES - 1, TSS_ADDR       /* SEL_TSS */
        .byte   0, 0x89, 0, 0
        .quad   0
        .quad   0x00cff3000000ffff      /* SEL_UDATA */
        .quad   0x00affb000000ffff      /* SEL_UCODE */

        .macro gate vector
        .word   stub\vector - rombase   /* the ROM's base has no low 16 bits */
        .word   SEL_CODE64
        .byte   0
        .if \vector == 3
        .byte   0xee                    /* int3 may be raised by ring 3, to be told as what it is */
        .else
        .byte   0x8e
        .endif
        .word   LV_ROM_BASE >> 16
        .long   0
        .long   0
        .endm
        .org    LV_TABLES_OFFSET + 0x100
        .set    v, 0
        .rept   32
        gate    %v
        .set    v, v + 1
        .endr

        .org    LV_TABLES_OFFSET + 0x400
        .long   0
        .quad   LV_STACK_TOP            /* RSP0 */
        .fill   22, 4, 0
        .word   0
        .word   TSS_SIZE                /* where the I/O bitmap begins */
        .fill   LV_DOORBELL_PORT / 8, 1, 0xff
        .byte   ~(1 << (LV_DOORBELL_PORT % 8)) & 0xff
        .byte   0xff

        .org    0xfff0
        .code16
reset:  .byte   0xe9                    /* jmp start16 */
        .word   start16 - (reset + 3)
        .org    LV_ROM_SIZE - 1
        .byte   0

        .section .note.GNU-stack, "", @progbits
