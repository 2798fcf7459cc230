/* libos_registers.S - all registers, flags and the red zone survive a system call, by the library OS's
 * short way and by its long one. Ends with 0 when they do, else with 5. Only in the library OS, where the
 * process is number 1. */
    .globl _start
_start:
    movq $0x1111, %rbx
    movq $0x2222, %rbp
    movq $0x3333, %r12
    movq $0x4444, %r13
    movq $0x5555, %r14
    movq $0x6666, %r15
    movq $0x77, %rdi
    movq $0x88, %rsi
    movq $0x99, %rdx
    movq $0xaa, %r8
    movq $0xbb, %r9
    movq $0xcc, %r10
    movq $0x1234567, -24(%rsp)
    movq $0x89abcde, -128(%rsp)
    pcmpeqd %xmm3, %xmm3
    std
    stc
    pushfq
    popq %r11
    movq %r11, -16(%rsp)
    movl $39, %eax /* getpid: the short way, but for DF */
    syscall
    pushfq
    popq %rcx
    cld
    cmpq %rcx, -16(%rsp)
    jne 9f
    cmpq $1, %rax
    jne 9f
    movq $0x7fffffff, %rax
    addl $1, %eax /* OF SF AF */
    pushfq
    popq %r11
    movq %r11, -16(%rsp)
    movl $39, %eax
    syscall
    pushfq
    popq %rcx
    cmpq %rcx, -16(%rsp)
    jne 9f
    movq $0x7fffffff, %rax
    addl $1, %eax
    pushfq
    popq %r11
    movq %r11, -16(%rsp)
    movl $121, %eax
    syscall /* getpgid(0x77): -ESRCH, the long way */
    pushfq
    popq %rcx
    cmpq %rcx, -16(%rsp)
    jne 9f
    cmpq $-3, %rax
    jne 9f
    cmpq $0x1111, %rbx
    jne 9f
    cmpq $0x2222, %rbp
    jne 9f
    cmpq $0x3333, %r12
    jne 9f
    cmpq $0x4444, %r13
    jne 9f
    cmpq $0x5555, %r14
    jne 9f
    cmpq $0x6666, %r15
    jne 9f
    cmpq $0x77, %rdi
    jne 9f
    cmpq $0x88, %rsi
    jne 9f
    cmpq $0x99, %rdx
    jne 9f
    cmpq $0xaa, %r8
    jne 9f
    cmpq $0xbb, %r9
    jne 9f
    cmpq $0xcc, %r10
    jne 9f
    cmpq $0x1234567, -24(%rsp)
    jne 9f
    cmpq $0x89abcde, -128(%rsp)
    jne 9f
    pcmpeqd %xmm4, %xmm4
    pcmpeqd %xmm3, %xmm4
    pmovmskb %xmm4, %eax
    cmpl $0xffff, %eax
    jne 9f
    xorl %edi, %edi
    movl $231, %eax
    syscall
9:
    movl $5, %edi
    movl $231, %eax
    syscall
    .section .note.GNU-stack, "", @progbits
