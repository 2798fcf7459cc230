/* switch.S - from one task's kernel stack to another's, and the floating-point state.
 *
 * The state is saved with XSAVE when that is enabled (fpu_init), else with FXSAVE: fpu_mask says which parts,
 * 0 means FXSAVE. */

    .text
    .globl switch_stacks
    .type switch_stacks, @function
switch_stacks: /* rdi: where to save rsp; rsi: the other's */
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    .size switch_stacks, . - switch_stacks

    .globl fpu_save
    .type fpu_save, @function
fpu_save:
    movl fpu_mask, %eax
    testl %eax, %eax
    jz 1f
    xorl %edx, %edx
    xsave64 (%rdi)
    ret
1:  fxsave64 (%rdi)
    ret
    .size fpu_save, . - fpu_save

    .globl fpu_restore
    .type fpu_restore, @function
fpu_restore:
    movl fpu_mask, %eax
    testl %eax, %eax
    jz 1f
    xorl %edx, %edx
    xrstor64 (%rdi)
    ret
1:  fxrstor64 (%rdi)
    ret
    .size fpu_restore, . - fpu_restore

    .section .note.GNU-stack, "", @progbits
