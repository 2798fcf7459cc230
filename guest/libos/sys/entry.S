/* entry.S - where system calls come in (unid/rootfs.h, "Rewritten programs"), and where the library
 * OS leaves to the program.
 *
 * In: rax the number, rdi rsi rdx r10 r8 r9 arguments, rcx where to go on; everything else is the
 * program's. Out: rax; rcx and r11 are lost; flags are as they were. A struct regs (task.h) is built
 * at the end of the task's kernel stack. A few calls that read and never block take a short way.
 *
 * Flags that arithmetic changes come back by SAHF, and an addition for OF, since POPF is slow; AC, DF
 * and the others are only touched when the program had them set.
 */
#include "sys/table.h"
#include "unid/abi.h"

#define FLAGS_RARE   0x40500 /* AC, DF, TF */
#define REPORT_CALLS (UNID_CALL_ADDR + 0x400) /* struct unid_report, calls */
#define REPORT_MADE  (REPORT_CALLS + 272)     /* and made */

    .text

/* Flags of arithmetic from the saved ones at \at. Changes rax. */
.macro load_flags at
    movzbl 1+\at, %eax
    shrb $3, %al
    andb $1, %al
    movb \at, %ah
    addb $0x7f, %al /* OF, if it was set */
    sahf
.endm

    .globl syscall_entry
    .type syscall_entry, @function
syscall_entry:
    movq %rsp, program_rsp
    movq kernel_stack, %rsp
    pushq program_rsp
    pushfq
    pushq %rcx /* rip */
    pushq %rax /* nr */
    cmpq $FAST_CALLS, %rax
    jae 1f
    movq fast_calls(, %rax, 8), %r11
    testq %r11, %r11
    jz 1f
    testl $FLAGS_RARE, 16(%rsp)
    jnz 1f
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %r8
    pushq %r9
    pushq %r10
    incq REPORT_CALLS
    incl REPORT_MADE(, %rax, 4)
    call *%r11 /* ten words: aligned */
    movq %rax, %r11
    load_flags 64(%rsp)
    movq %r11, %rax
    movq (%rsp), %r10
    movq 8(%rsp), %r9
    movq 16(%rsp), %r8
    movq 24(%rsp), %rdx
    movq 32(%rsp), %rsi
    movq 40(%rsp), %rdi
    movq 56(%rsp), %rcx
    movq 72(%rsp), %rsp
    jmp *%rcx

1:  pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rax
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    testl $FLAGS_RARE, 136(%rsp)
    jnz 2f
3:  movq %rsp, %rdi
    subq $8, %rsp
    xorl %ebp, %ebp
    call syscall_dispatch
    addq $8, %rsp
    jmp leave
2:  pushq $0x202
    popfq
    jmp 3b
    .size syscall_entry, . - syscall_entry

/* rsp: a struct regs. */
leave:
    testl $FLAGS_RARE, 136(%rsp)
    jnz 4f
    load_flags 136(%rsp)
5:  popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rax
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    leaq 8(%rsp), %rsp
    popq program_rip
    leaq 8(%rsp), %rsp
    popq %rsp
    jmp *program_rip
4:  pushq 136(%rsp)
    popfq
    jmp 5b

    .globl enter_program
    .type enter_program, @function
enter_program: /* rdi: struct regs on a kernel stack */
    movq %rdi, %rsp
    jmp leave

    .globl task_begin
    .type task_begin, @function
task_begin:
    call task_begin_c
    addq $8, %rsp
    jmp leave

/* Where a dynamic program begins when its request has to be had first (exec.c): a call of the
 * library OS's own, which sends it on to its real entry. */
    .globl program_hook
    .type program_hook, @function
program_hook:
    movl $HOOK_CALL, %eax
    xorl %ecx, %ecx
    jmp syscall_entry

    .bss
    .balign 8
program_rsp: .quad 0
program_rip: .quad 0

    .section .note.GNU-stack, "", @progbits
