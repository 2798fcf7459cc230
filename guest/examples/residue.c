/* residue.c - leaves a mark in every register, in the FPU, in the flags, and all over its memory, and
 * says first whether it finds one: "clean", or what it found. Whoever puts a machine back to its
 * snapshot between requests must make it say "clean" for ever.
 *
 *     residue [avx]       avx: the upper halves of the vector registers as well
 *
 * It speaks to the host itself (unid/abi.h), as the marks must still be there when the machine ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unid/unid.h>

#include "unid/abi.h"

#define MARK 0x6d61726b6d61726bull /* "krammark" */

enum { GPRS = 16, STEP = 37 * 4096 + 8 };

/* What residue_next left: rax rbx rcx rdx rsi rdi rbp r8..r15, rflags;
 * DS and ES as they are then and were before. */
unsigned long long residue_regs[GPRS], residue_fs, residue_gs, residue_segments[4];
unsigned char residue_fx_before[512] __attribute__((aligned(16)));
unsigned char residue_fx_after[512] __attribute__((aligned(16)));
unsigned char residue_ymm_after[16 * 32];
unsigned residue_mxcsr = 0x9fc0; /* flush to zero, denormals are zero */
unsigned residue_mark_mxcsr = 0x7f80;
unsigned residue_avx;
static unsigned long long in_data[64] = {1}, in_bss[64];

/* Fills the registers with known values, rings for NEXT (its seq in esi, the doorbell in rdi), and
 * stores what is in them when the host has answered. */
void residue_next(unsigned long long doorbell, unsigned long long seq);
/* Fills everything with MARK and rings. Does not return. */
void residue_end(unsigned long long doorbell) __attribute__((noreturn));

__asm__(".text\n"
        "residue_next:\n"
        "  pushq %rbx\n  pushq %rbp\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  pushq $0\n  popfq\n"
        "  movq %rdi, %rdx\n  movq %rsi, %rax\n"
        "  fninit\n  fldpi\n  fldl2e\n"
        "  ldmxcsr residue_mxcsr(%rip)\n"
        "  pcmpeqd %xmm0, %xmm0\n  pxor %xmm1, %xmm1\n  movdqa %xmm0, %xmm2\n"
        "  pslld $3, %xmm2\n  movdqa %xmm2, %xmm15\n  psrlq $7, %xmm15\n"
        "  movq $0x101, %rbx\n  movq $0x202, %rcx\n  movq $0x303, %rsi\n  movq $0x404, %rdi\n"
        "  movq $0x505, %rbp\n  movq $0x808, %r8\n  movq $0x909, %r9\n  movq $0xa0a, %r10\n"
        "  movq $0xb0b, %r11\n  movq $0xc0c, %r12\n  movq $0xd0d, %r13\n  movq $0xe0e, %r14\n"
        "  movq $0xf0f, %r15\n"
        "  fxsave64 residue_fx_before(%rip)\n"
        "  movw %ds, residue_segments+16(%rip)\n  movw %es, residue_segments+24(%rip)\n"
        "  movl %eax, (%rdx)\n"
        "1: cmpl %eax, 0x101040\n" /* call.ack */
        "  jne 1b\n"
        "  fxsave64 residue_fx_after(%rip)\n"
        "  movq %rax, residue_regs(%rip)\n  movq %rbx, residue_regs+8(%rip)\n"
        "  movq %rcx, residue_regs+16(%rip)\n  movq %rdx, residue_regs+24(%rip)\n"
        "  movq %rsi, residue_regs+32(%rip)\n  movq %rdi, residue_regs+40(%rip)\n"
        "  movq %rbp, residue_regs+48(%rip)\n  movq %r8, residue_regs+56(%rip)\n"
        "  movq %r9, residue_regs+64(%rip)\n  movq %r10, residue_regs+72(%rip)\n"
        "  movq %r11, residue_regs+80(%rip)\n  movq %r12, residue_regs+88(%rip)\n"
        "  movq %r13, residue_regs+96(%rip)\n  movq %r14, residue_regs+104(%rip)\n"
        "  movq %r15, residue_regs+112(%rip)\n"
        "  pushfq\n  popq residue_regs+120(%rip)\n"
        "  rdfsbase %rax\n  movq %rax, residue_fs(%rip)\n"
        "  rdgsbase %rax\n  movq %rax, residue_gs(%rip)\n"
        "  movl %ds, %eax\n  movq %rax, residue_segments(%rip)\n"
        "  movl %es, %eax\n  movq %rax, residue_segments+8(%rip)\n"
        "  cmpl $0, residue_avx(%rip)\n  je 2f\n"
        "  vmovdqu %ymm0, residue_ymm_after(%rip)\n"
        "  vmovdqu %ymm1, residue_ymm_after+32(%rip)\n"
        "  vmovdqu %ymm7, residue_ymm_after+64(%rip)\n"
        "  vmovdqu %ymm15, residue_ymm_after+96(%rip)\n"
        "2: fninit\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbp\n  popq %rbx\n"
        "  ret\n"
        "residue_end:\n"
        "  movabsq $0x6d61726b6d61726b, %rax\n  movq %rdi, %rdx\n"
        "  xorl %ecx, %ecx\n  movl %ecx, %ds\n  movl %ecx, %es\n  movl %ecx, %fs\n"
        "  movl %ecx, %gs\n"
        "  movabsq $0x6d61726b6000, %rcx\n  wrfsbase %rcx\n  wrgsbase %rcx\n"
        "  movq %rax, %rbx\n  movq %rax, %rcx\n  movq %rax, %rsi\n  movq %rax, %rdi\n"
        "  movq %rax, %rbp\n  movq %rax, %r8\n  movq %rax, %r9\n  movq %rax, %r10\n"
        "  movq %rax, %r11\n  movq %rax, %r12\n  movq %rax, %r13\n  movq %rax, %r14\n"
        "  movq %rax, %r15\n"
        "  fld1\n  fldln2\n  fldlg2\n  ldmxcsr residue_mark_mxcsr(%rip)\n"
        "  movq %rax, %xmm0\n  punpcklqdq %xmm0, %xmm0\n"
        "  movdqa %xmm0, %xmm1\n  movdqa %xmm0, %xmm2\n  movdqa %xmm0, %xmm3\n"
        "  movdqa %xmm0, %xmm4\n  movdqa %xmm0, %xmm5\n  movdqa %xmm0, %xmm6\n"
        "  movdqa %xmm0, %xmm7\n  movdqa %xmm0, %xmm8\n  movdqa %xmm0, %xmm9\n"
        "  movdqa %xmm0, %xmm10\n  movdqa %xmm0, %xmm11\n  movdqa %xmm0, %xmm12\n"
        "  movdqa %xmm0, %xmm13\n  movdqa %xmm0, %xmm14\n  movdqa %xmm0, %xmm15\n"
        "  cmpl $0, residue_avx(%rip)\n  je 3f\n"
        "  vinsertf128 $1, %xmm0, %ymm0, %ymm0\n  vmovdqa %ymm0, %ymm1\n"
        "  vmovdqa %ymm0, %ymm7\n  vmovdqa %ymm0, %ymm15\n"
        "3: pushq $0x240cd5\n  popfq\n" /* ID AC OF DF SF ZF AF PF CF */
        "  movl %eax, (%rdx)\n"
        "4: pause\n  jmp 4b\n");

static char found[2048];

static void note(const char *what, unsigned long long value)
{
    size_t n = strlen(found);
    if (n < sizeof(found) - 64) {
        snprintf(found + n, sizeof(found) - n, "%s is %llx\n", what, value);
    }
}

static void check_registers(unsigned long long doorbell, unsigned long long seq)
{
    const unsigned long long want[GPRS - 1] = {seq,   0x101, 0x202, doorbell, 0x303,
                                               0x404, 0x505, 0x808, 0x909,    0xa0a,
                                               0xb0b, 0xc0c, 0xd0d, 0xe0e,    0xf0f};
    for (int i = 0; i < GPRS - 1; i++) {
        if (residue_regs[i] != want[i]) {
            note("a general register", residue_regs[i]);
        }
    }
    if (residue_regs[15] & 0x240c00) { /* ID AC OF DF */
        note("rflags", residue_regs[15]);
    }
    if (memcmp(residue_fx_before, residue_fx_after, 416) != 0) {
        note("the FPU state", 0);
    }
    if (residue_fs != 0 || residue_gs != 0) {
        note("FS or GS base", residue_fs | residue_gs);
    }
    if (residue_segments[0] != residue_segments[2] || residue_segments[1] != residue_segments[3]) {
        note("DS or ES", residue_segments[0] << 16 | residue_segments[1]);
    }
    for (int i = 0; residue_avx && i < 4; i++) {
        unsigned long long high[2];
        memcpy(high, residue_ymm_after + i * 32 + 16, sizeof(high));
        if (high[0] || high[1]) {
            note("an upper half", high[0]);
        }
    }
}

/* Looks for anything in [from, to), `step` bytes apart, and leaves a mark there. */
static void check_memory(const char *what, unsigned long long from, unsigned long long to,
                         unsigned long long step)
{
    for (unsigned long long at = from; at + 8 <= to; at += step) {
        volatile unsigned long long *p = (volatile unsigned long long *)at;
        if (*p != 0) {
            note(what, *p);
        }
        *p = MARK;
    }
}

int main(int argc, char **argv)
{
    const struct unid_boot *boot = (const struct unid_boot *)UNID_BOOT_ADDR;
    struct unid_call *call = (struct unid_call *)UNID_CALL_ADDR;
    unsigned long long doorbell = boot->doorbell_addr, stack = (unsigned long long)&boot;
    if (boot->doorbell_kind != UNID_DOORBELL_MEMORY) {
        unid_puts("needs a doorbell in memory\n");
        return 1;
    }
    residue_avx = argc > 1 && strcmp(argv[1], "avx") == 0;
    if (!(boot->flags & UNID_BOOT_REQUEST_READY)) {
        unsigned seq = call->seq + 1;
        call->op = UNID_OP_NEXT;
        call->seq = seq;
        residue_next(doorbell, seq);
        check_registers(doorbell, seq);
    }
    if (in_data[0] != 1 || in_bss[0] != 0) {
        note("static data", in_data[0]);
    }
    in_data[0] = in_bss[0] = MARK;
    unsigned long long heap = boot->heap_start + 0x10000;
    check_memory("the heap", heap, boot->heap_end, STEP);
    check_memory("the stack", stack - 0x20000, stack - 0x2000, 4096);
    check_memory("the boot page", UNID_BOOT_ADDR + 512, UNID_CALL_ADDR, 512);
    check_memory("the call page", UNID_CALL_ADDR + 512, UNID_STRINGS_ADDR, 512);
    check_memory("the strings", UNID_STRINGS_ADDR + 0x1000, UNID_LOG_ADDR, 4096);
    check_memory("the log window", UNID_LOG_ADDR, UNID_REQUEST_ADDR, 4096);
    check_memory("the request window", UNID_REQUEST_ADDR + 0x1000, UNID_RESPONSE_ADDR, 4096);
    check_memory("the response window", UNID_RESPONSE_ADDR, UNID_CHANNEL_END, 4096);
    const char *text = found[0] ? found : "clean\n";
    memcpy((void *)UNID_RESPONSE_ADDR, text, strlen(text));
    call->response_len = (uint32_t)strlen(text);
    call->head_len = 0;
    call->log_len = 0;
    call->status = 0;
    call->op = UNID_OP_DONE;
    call->seq = call->seq + 1;
    residue_end(doorbell);
}
