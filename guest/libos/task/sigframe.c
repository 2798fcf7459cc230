/* sigframe.c - a handler begins, and returns: the frame of x86-64 Linux on the program's stack (System
 * V ABI; arch/x86 uapi headers asm/sigcontext.h, asm/ucontext.h).
 *
 *     high  | red zone of the interrupted code                  (not on an alternate stack)
 *           | floating-point state, 64-byte aligned
 *           | struct frame: return address = restorer, ucontext, siginfo
 *      rsp  +
 */
#include <asm/sigcontext.h>
#include <asm/unistd.h>
#include <linux/signal.h>

#include "mm.h"
#include "sys_core.h"
#include "task/signal_internal.h"

#define RED_ZONE  128
#define FLAG_DF   0x400ull
#define FLAGS_SET 0x240dd5ull /* CF PF AF ZF SF TF DF OF AC ID: what a program can change */

#define UC_FP_XSTATE         1
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4

struct context { /* struct ucontext */
    uint64_t flags, link;
    struct signal_stack stack;
    struct sigcontext_64 mc;
    uint64_t mask;
};

struct frame {
    uint64_t restorer;
    struct context uc;
    struct signal_info info;
};

static bool on_alt_stack(const struct signal_stack *s, uint64_t sp)
{
    return !(s->flags & SS_DISABLE) && sp > s->sp && sp - s->sp <= s->size;
}

static void save_registers(struct sigcontext_64 *mc, const struct regs *r)
{
    mc->r8 = r->r8;
    mc->r9 = r->r9;
    mc->r10 = r->r10;
    mc->r11 = r->r11;
    mc->r12 = r->r12;
    mc->r13 = r->r13;
    mc->r14 = r->r14;
    mc->r15 = r->r15;
    mc->di = r->rdi;
    mc->si = r->rsi;
    mc->bp = r->rbp;
    mc->bx = r->rbx;
    mc->dx = r->rdx;
    mc->ax = r->rax;
    mc->cx = r->rcx;
    mc->sp = r->rsp;
    mc->ip = r->rip;
    mc->flags = r->rflags;
    mc->cs = 0x33;
    mc->ss = 0x2b;
}

static void load_registers(struct regs *r, const struct sigcontext_64 *mc)
{
    r->r8 = mc->r8;
    r->r9 = mc->r9;
    r->r10 = mc->r10;
    r->r11 = mc->r11;
    r->r12 = mc->r12;
    r->r13 = mc->r13;
    r->r14 = mc->r14;
    r->r15 = mc->r15;
    r->rdi = mc->di;
    r->rsi = mc->si;
    r->rbp = mc->bp;
    r->rbx = mc->bx;
    r->rdx = mc->dx;
    r->rax = mc->ax;
    r->rcx = mc->cx;
    r->rsp = mc->sp;
    r->rip = mc->ip;
    r->rflags = (mc->flags & FLAGS_SET) | 0x202;
}

/* Whether a handler with SA_RESTART lets the call begin again (signal(7)). */
static bool restarts(uint64_t nr)
{
    switch (nr) {
    case __NR_read:
    case __NR_readv:
    case __NR_write:
    case __NR_writev:
    case __NR_ioctl:
    case __NR_open:
    case __NR_openat:
    case __NR_wait4:
    case __NR_waitid:
    case __NR_accept:
    case __NR_accept4:
    case __NR_connect:
    case __NR_recvfrom:
    case __NR_recvmsg:
    case __NR_recvmmsg:
    case __NR_sendto:
    case __NR_sendmsg:
    case __NR_sendmmsg:
    case __NR_flock:
    case __NR_fcntl:
    case __NR_futex:
    case __NR_getrandom:
        return true;
    default:
        return false;
    }
}

/* The floating-point state, as XSAVE puts it, with the kernel's marks around. */
static void save_fpu(char *area)
{
    memset(area + 512, 0, 64); /* XSAVE wants a clear header */
    fpu_save(area);
    struct _fpx_sw_bytes *sw = (void *)(area + 464);
    memset(sw, 0, sizeof(*sw));
    if (fpu_mask) {
        sw->magic1 = FP_XSTATE_MAGIC1;
        sw->extended_size = fpu_size + FP_XSTATE_MAGIC2_SIZE;
        sw->xfeatures = fpu_mask;
        sw->xstate_size = fpu_size;
        *(uint32_t *)(area + fpu_size) = FP_XSTATE_MAGIC2;
    }
}

static void begin_handler(struct regs *r, int signal, const struct signal_info *info)
{
    const struct action *a = &actions[signal];
    const struct signal_stack *alt = &current->alt_stack;
    bool to_alt = a->flags & SA_ONSTACK && !(alt->flags & SS_DISABLE) && !on_alt_stack(alt, r->rsp);
    uint64_t top = to_alt ? alt->sp + alt->size : r->rsp - RED_ZONE;
    uint64_t fpu = (top - fpu_size - 64 - FP_XSTATE_MAGIC2_SIZE) & ~63ull;
    uint64_t at = ((fpu - sizeof(struct frame)) & ~15ull) - 8;
    struct frame *f = (void *)at;
    if (!(a->flags & SA_RESTORER) || !user_writable(f, top - at)) {
        klog("no room on its stack for the handler of signal %d", signal);
        process_killed(SIGSEGV);
    }
    uint64_t mask = current->mask_is_for_call ? current->mask_after : current->mask;
    current->mask_is_for_call = false;
    memset(f, 0, sizeof(*f));
    save_fpu((char *)fpu);
    f->restorer = a->restorer;
    f->info = *info;
    f->uc.flags = (fpu_mask ? UC_FP_XSTATE : 0) | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    f->uc.stack = *alt;
    f->uc.mask = mask;
    save_registers(&f->uc.mc, r);
    f->uc.mc.oldmask = mask;
    f->uc.mc.fpstate = fpu;
    r->rdi = (uint64_t)signal;
    r->rsi = (uint64_t)&f->info;
    r->rdx = (uint64_t)&f->uc;
    r->rax = 0;
    r->rsp = at;
    r->rip = a->handler;
    r->rflags &= ~FLAG_DF;
    signal_set_mask(current->mask | a->mask | (a->flags & SA_NODEFER ? 0 : SIG_BIT(signal)));
}

/* The call that was interrupted begins again when the handler returns: at the library OS's entry, with
 * what it was called with. */
static void restart_call(struct regs *r)
{
    r->rcx = r->rip;
    r->rax = r->nr;
    r->rip = (uint64_t)syscall_entry;
}

void signal_deliver(struct regs *r)
{
    for (;;) {
        struct signal_info info;
        int signal = signal_take(~current->mask, &info);
        if (!signal) {
            break;
        }
        struct action *a = &actions[signal];
        if (a->handler == (uint64_t)SIG_IGN) {
            continue;
        }
        if (a->handler == (uint64_t)SIG_DFL) {
            switch (signal) {
            case SIGCHLD:
            case SIGURG:
            case SIGWINCH:
            case SIGCONT:
                continue;
            case SIGTSTP:
            case SIGTTIN:
            case SIGTTOU:
            case SIGSTOP:
                klog("signal %d does not stop the program: nobody could continue it", signal);
                continue;
            default:
                process_killed(signal);
            }
        }
        if ((int64_t)r->rax == -EINTR && a->flags & SA_RESTART && restarts(r->nr)) {
            restart_call(r);
        }
        r->nr = ~0ull; /* a second handler interrupts the first, not the call */
        begin_handler(r, signal, &info);
        if (a->flags & SA_RESETHAND) {
            a->handler = (uint64_t)SIG_DFL;
        }
    }
    if (current->mask_is_for_call) {
        current->mask_is_for_call = false;
        signal_set_mask(current->mask_after);
    }
}

int64_t sys_rt_sigreturn(void)
{
    struct regs *r = task_regs();
    const struct frame *f = (const void *)(r->rsp - 8); /* the handler's return popped `restorer` */
    if (!user_readable(f, sizeof(*f))) {
        process_killed(SIGSEGV);
    }
    const char *fpu = (const char *)f->uc.mc.fpstate;
    if (fpu) {
        if ((uint64_t)fpu & 63 || !user_readable(fpu, fpu_size)) {
            process_killed(SIGSEGV);
        }
        fpu_restore(fpu);
    }
    signal_set_mask(f->uc.mask);
    load_registers(r, &f->uc.mc);
    r->nr = ~0ull;
    return (int64_t)r->rax;
}
