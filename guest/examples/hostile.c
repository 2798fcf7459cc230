/* hostile.c - a machine that does what it must not: malformed calls, wild lengths, rings without end,
 * writes over the pages it shares with the host, privileged instructions, all of its memory. What it
 * does follows from the request's target, "/SEED", so that a run can be repeated. No harm must come of
 * it but its own failure.
 */
#include <stdlib.h>
#include <string.h>
#include <unid/unid.h>

#include "unid/abi.h"

static unsigned long long state;

/* xorshift64* (Vigna 2016). */
static unsigned long long any(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dull;
}

/* Mostly a value at an edge, where mistakes live. */
static unsigned edge(void)
{
    static const unsigned edges[] = {
        0,       1,       2,       4095,    4096,       16384,      16385,      0xffff,    0x10000,
        0x10001, 0x3ffff, 0x40000, 0x40001, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    unsigned long long r = any();
    return r & 7 ? edges[(r >> 8) % (sizeof(edges) / sizeof(edges[0]))] : (unsigned)(r >> 32);
}

static struct unid_call *call(void)
{
    return (struct unid_call *)UNID_CALL_ADDR;
}

static volatile unsigned *doorbell(void)
{
    static unsigned long long addr;
    if (!addr) {
        addr = ((const struct unid_boot *)UNID_BOOT_ADDR)->doorbell_addr;
    }
    return (volatile unsigned *)addr;
}

static void wild_call(void)
{
    struct unid_call *c = call();
    c->op = (unsigned)any() % 15;
    c->net_handle = (unsigned)any() % 80;
    c->net_len = any() & 1 ? (unsigned)any() : (unsigned)any() % 0x11000;
    c->wait_ns = any() & 1 ? any() : any() % 5000000;
    c->response_len = edge();
    c->head_len = edge();
    c->log_len = edge();
    c->status = (int)edge();
    c->seq += any() % 8 ? 1 : edge();
    *doorbell() = 1;
}

/* A call that is answered, so that the run goes on. */
static void good_call(void)
{
    struct unid_call *c = call();
    static const unsigned ops[] = {UNID_OP_WRITE,    UNID_OP_WRITE,    UNID_OP_LOG,
                                   UNID_OP_READ,     UNID_OP_WAIT,     UNID_OP_NET_OPEN,
                                   UNID_OP_NET_RECV, UNID_OP_NET_CLOSE};
    c->op = ops[any() % 8];
    c->net_handle = (unsigned)any() % 80;
    c->net_len = (unsigned)any() % (unsigned)(UNID_NET_SIZE + 1);
    c->wait_ns = any() % 100000;
    c->head_len = 0;
    c->response_len = (unsigned)any() % (unsigned)(UNID_RESPONSE_SIZE + 1);
    c->log_len = any() & 3 ? 0 : (unsigned)any() % (unsigned)(UNID_LOG_SIZE + 1);
    unsigned seq = ++c->seq;
    *doorbell() = 1;
    for (int i = 0; i < 1000000 && *(volatile unsigned *)&c->ack != seq; i++) {
        __asm__ volatile("pause");
    }
}

static void scribble(void)
{
    unsigned char *p = (unsigned char *)UNID_BOOT_ADDR;
    for (unsigned n = (unsigned)any() % 4096; n > 0; n--) {
        p[any() % (UNID_CHANNEL_END - UNID_BOOT_ADDR)] = (unsigned char)any();
    }
}

static void touch_memory(void)
{
    const struct unid_boot *b = (const struct unid_boot *)UNID_BOOT_ADDR;
    for (unsigned long long at = b->heap_start; at < b->heap_end; at += 4096) {
        *(volatile unsigned long long *)at = any();
    }
}

static void odd_doorbell(void)
{
    volatile unsigned *d = doorbell();
    switch (any() % 6) {
    case 0:
        state += *d; /* a read */
        break;
    case 1:
        __asm__ volatile("movdqu %%xmm0, (%0)" : : "r"(d) : "memory");
        break;
    case 2:
        __asm__ volatile("movq %%rax, 4093(%0)"
                         :
                         : "r"(d)
                         : "memory"); /* half of it behind the page */
        break;
    case 3:
        __asm__ volatile("lock incl (%0)" : : "r"(d) : "memory");
        break;
    case 4: {
        unsigned long long to = (unsigned long long)d, count = 300;
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(1) : "memory");
    } break;
    default:
        ((void (*)(void))(unsigned long long)d)(); /* runs there */
        break;
    }
}

static void instruction(void)
{
    switch (any() % 16) {
    case 0: {
        unsigned a = (unsigned)any(), c = 0;
        __asm__ volatile("cpuid" : "+a"(a), "+c"(c) : : "rbx", "rdx");
    } break;
    case 1:
        __asm__ volatile("syscall" : : : "rcx", "r11", "memory");
        break;
    case 2:
        __asm__ volatile("int $0x80" : : : "memory");
        break;
    case 3:
        __asm__ volatile("hlt");
        break;
    case 4:
        __asm__ volatile("outb %al, $0x80");
        break;
    case 5:
        __asm__ volatile("vmmcall" : : : "memory");
        break;
    case 6:
        __asm__ volatile("vmcall" : : : "memory");
        break;
    case 7:
        __asm__ volatile("sysenter" : : : "memory");
        break;
    case 8:
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop" : : : "memory", "cc"); /* TF */
        break;
    case 9:
        __asm__ volatile("movl %0, %%ds" : : "r"((unsigned)any() & 0xffff));
        break;
    case 10:
        __asm__ volatile("wrfsbase %0" : : "r"(any()));
        break;
    case 11:
        __asm__ volatile("rdmsr" : : "c"((unsigned)any()) : "rax", "rdx");
        break;
    case 12:
        __asm__ volatile("movq %0, %%cr3" : : "r"(any()) : "memory");
        break;
    case 13:
        __asm__ volatile("lretq" : : : "memory");
        break;
    case 14:
        __asm__ volatile("rdtsc; rdtscp" : : : "rax", "rcx", "rdx");
        break;
    default:
        __asm__ volatile("xorl %%esp, %%esp; pushq %%rax" : : : "memory");
        break;
    }
}

static void wild_access(void)
{
    static const unsigned long long bases[] = {0,
                                               0x1000,
                                               UNID_BOOT_ADDR - 8,
                                               UNID_CHANNEL_END,
                                               UNID_IMAGE_MIN,
                                               0x1000000 - 8,
                                               0xffffff000ull - 8,
                                               0x1000000000ull,
                                               0x7ffffffffff8ull,
                                               0x800000000000ull,
                                               0xffffffff81000000ull};
    unsigned long long at = bases[any() % (sizeof(bases) / sizeof(bases[0]))] + (any() & 0xfff8);
    if (any() & 1) {
        *(volatile unsigned long long *)at = any();
    } else {
        state += *(volatile unsigned long long *)at;
    }
}

static void ring_for_ever(void)
{
    for (;;) {
        *doorbell() = 1;
        good_call();
    }
}

int main(void)
{
    unid_next();
    state = strtoul(unid_target() + 1, NULL, 10) * 2 + 0x9e3779b97f4a7c15ull;
    doorbell();
    for (int i = 0; i < 200; i++) {
        switch (any() % 24) {
        case 0:
            wild_call();
            break;
        case 1:
        case 2:
            scribble();
            break;
        case 3:
            touch_memory();
            break;
        case 4:
            odd_doorbell();
            break;
        case 5:
            instruction();
            break;
        case 6:
            wild_access();
            break;
        case 7:
            if (any() % 8 == 0) {
                ring_for_ever();
            }
            break;
        case 8:
            *doorbell() = 2; /* without a call */
            break;
        default:
            good_call();
            break;
        }
    }
    return 0;
}
