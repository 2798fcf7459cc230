/* machine.c - see machine.h. */
#include "hypervisor/kvm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Control bits: Intel SDM vol. 3, sections 2.2.1, 2.5; AMD APM vol. 2, section 3.1. */
#define CR0_GUEST  UINT64_C(0x80050033) /* PG AM WP NE ET MP PE */
#define CR4_GUEST  UINT64_C(0x620)      /* OSXMMEXCPT OSFXSR PAE */
#define CR4_FSGS   UINT64_C(0x10000)    /* FSGSBASE, where the CPU has it */
#define CR4_PGE    UINT64_C(0x80)       /* flush_tlb */
#define EFER_GUEST UINT64_C(0xd00)      /* NXE LMA LME; no SCE: SYSCALL is an invalid opcode */
#define RFLAGS_SET UINT64_C(0x202)      /* IF and the bit that is always one */
/* What a ring-3 program can change of RFLAGS: CF PF AF ZF SF TF DF OF AC ID. */
#define RFLAGS_GUEST UINT64_C(0x240dd5)

/* CR2 before the guest runs, so that a page fault shows: an address that no program of ours
 * uses. */
#define CR2_UNTOUCHED UINT64_C(0xffff8badc0de0000)

/* Where SYSCALL goes (MSR LSTAR). With EFER.SCE off it goes nowhere, but a KVM that runs guests in
 * the host's own ring 3 (PVM) goes there all the same, without a change of privilege: so it is an
 * address which such a KVM lets no guest map (see UNID_DIRECT_MAP), and which is a fault elsewhere. */
#define MSR_LSTAR      0xc0000082u
#define SYSCALL_TARGET UINT64_C(0xffff8badc0de1000)

#define PAGE      UINT64_C(4096)
#define PTE_USER  UINT64_C(7)               /* present, writable, user */
#define ADDR_MASK UINT64_C(0xffffffffff000) /* of a page table entry */

uint64_t machine_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int fail(struct machine *m, const char *step)
{
    m->step = step;
    return errno ? -errno : -EIO;
}

/* Time since *from, which becomes now. */
static uint32_t lap(uint64_t *from)
{
    uint64_t now = machine_now_ns(), took = now - *from;
    *from = now;
    return took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

static void *map_at(void *at, uint64_t len, int flags, int fd, uint64_t offset)
{
    void *p =
        mmap(at, len, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_NORESERVE | flags, fd, (off_t)offset);
    return p == MAP_FAILED ? NULL : p;
}

/* Guest memory begins on a boundary of 2 MiB, so that the host can map it by entries of 2 MiB where the guest does. What
 * the guest writes is to cost a page at a time all the same, whatever the host does for others. */
static bool reserve(struct machine *m)
{
    const size_t large = UNID_PIECE_SIZE;
    uint8_t *p = mmap(NULL, m->mem_max + large, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    size_t before = -(uintptr_t)p % large;
    if (before > 0) {
        munmap(p, before);
    }
    munmap(p + before + m->mem_max, large - before);
    m->mem = p + before;
    (void)madvise(m->mem, m->mem_max, MADV_NOHUGEPAGE); /* an error says that it has none */
    return true;
}

int machine_create(struct machine *m, int kvm, uint64_t mem_max, int channel_fd,
                   uint32_t phase_ns[VMM_PHASES])
{
    *m = (struct machine){.vm = -1, .vcpu = -1, .mem_max = mem_max};
    uint64_t t = machine_now_ns();
    if ((m->vm = ioctl(kvm, KVM_CREATE_VM, 0)) < 0) {
        return fail(m, "KVM_CREATE_VM");
    }
    phase_ns[VMM_PHASE_CREATE] = lap(&t);
    if (!reserve(m)) {
        return fail(m, "reserve guest memory");
    }
    if (channel_fd >= 0 &&
        !map_at(m->mem + UNID_BOOT_ADDR, VMM_CHANNEL_SIZE, MAP_SHARED, channel_fd, 0)) {
        return fail(m, "map the channel");
    }
    struct kvm_userspace_memory_region slot = {.memory_size = mem_max,
                                               .userspace_addr = (uintptr_t)m->mem};
    if (ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0) {
        return fail(m, "KVM_SET_USER_MEMORY_REGION");
    }
    phase_ns[VMM_PHASE_SLOT] = lap(&t);
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    m->run_size = size > 0 ? (size_t)size : 0;
    if ((m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0)) < 0) {
        return fail(m, "KVM_CREATE_VCPU");
    }
    m->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
    if (m->run == MAP_FAILED) {
        return fail(m, "map kvm_run");
    }
    if (ioctl(m->vcpu, KVM_GET_SREGS, &m->base) < 0) {
        return fail(m, "KVM_GET_SREGS");
    }
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } msrs = {.head = {.nmsrs = 1}, .entry = {.index = MSR_LSTAR, .data = SYSCALL_TARGET}};
    if (ioctl(m->vcpu, KVM_SET_MSRS, &msrs) != 1) {
        return fail(m, "KVM_SET_MSRS");
    }
    phase_ns[VMM_PHASE_VCPU] = lap(&t);
    return 0;
}

/* --- registers -------------------------------------------------------------------------------- */

/* The special registers of every guest. Of a saved state only the data segments are taken, which a
 * program can change. */
static struct kvm_sregs guest_sregs(const struct machine *m, uint64_t cr3,
                                    const struct kvm_sregs *saved)
{
    struct kvm_sregs s = m->base;
    struct kvm_segment data = {
        .limit = ~0u, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1};
    s.cs = (struct kvm_segment){
        .limit = ~0u, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1};
    s.ss = s.ds = s.es = s.fs = s.gs = data;
    s.tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
    s.ldt = (struct kvm_segment){.unusable = 1};
    s.gdt = s.idt = (struct kvm_dtable){0};
    s.cr0 = CR0_GUEST;
    s.cr2 = CR2_UNTOUCHED;
    s.cr3 = cr3;
    s.cr4 = CR4_GUEST | (m->fsgsbase ? CR4_FSGS : 0);
    s.efer = EFER_GUEST;
    memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
    if (saved) {
        s.ds = saved->ds;
        s.es = saved->es;
        s.fs = saved->fs;
        s.gs = saved->gs;
        s.ds.dpl = s.es.dpl = s.fs.dpl = s.gs.dpl = 3;
    }
    return s;
}

static int load_registers(struct machine *m, const struct kvm_sregs *sregs,
                          const struct kvm_regs *regs)
{
    if (ioctl(m->vcpu, KVM_SET_SREGS, sregs) < 0) {
        return fail(m, "KVM_SET_SREGS");
    }
    return ioctl(m->vcpu, KVM_SET_REGS, regs) < 0 ? fail(m, "KVM_SET_REGS") : 0;
}

/* api.rst, KVM_RUN: an MMIO exit is completed by the next KVM_RUN; immediate_exit makes that return
 * before any guest code runs. A store of more than eight bytes has more than one piece. */
static int complete(struct machine *m)
{
    enum { PIECES_MAX = 8 };
    for (int i = 0; m->pending && i < PIECES_MAX; i++) {
        m->run->immediate_exit = 1;
        int rc = ioctl(m->vcpu, KVM_RUN, 0);
        m->run->immediate_exit = 0;
        if (rc < 0 && errno == EINTR) {
            m->pending = false;
        } else if (rc < 0 || m->run->exit_reason != KVM_EXIT_MMIO) {
            break;
        }
    }
    if (m->pending) {
        errno = EIO;
        return fail(m, "complete an exit");
    }
    return 0;
}

/* --- warm ------------------------------------------------------------------------------------- */

enum { WARM_PAGES = 7 }; /* page tables of the code and of the doorbell, and the code */

static void write_warm_program(uint8_t *mem)
{
    static const uint8_t code[] = {
        0x48, 0xba, 0x00, 0xf0, 0xff, 0xff, 0x0f, 0x00, 0x00, 0x00, /* movabs $DOORBELL, %rdx */
        0x85, 0xdb,                                                 /* test %ebx, %ebx */
        0x74, 0x05,                                                 /* jz 1f */
        0xf3, 0x48, 0x0f, 0xae, 0xd0,                               /* wrfsbase %rax */
        0x89, 0x02,                                                 /* 1: mov %eax, (%rdx) */
        0xeb, 0xfe                                                  /* jmp . */
    };
    uint64_t *table[WARM_PAGES];
    for (unsigned i = 0; i < WARM_PAGES; i++) {
        table[i] = (uint64_t *)(void *)(mem + PAGE * (i + 1));
    }
    /* Pages 1 to 6: PML4, PDPT, then PD and PT of the code, PD and PT of the doorbell. Page 7:
     * code. */
    table[0][0] = (2 * PAGE) | PTE_USER;
    table[1][0] = (3 * PAGE) | PTE_USER;
    table[1][VMM_DOORBELL_ADDR >> 30] = (5 * PAGE) | PTE_USER;
    table[2][0] = (4 * PAGE) | PTE_USER;
    table[3][7] = (7 * PAGE) | PTE_USER;
    table[4][(VMM_DOORBELL_ADDR >> 21) & 511] = (6 * PAGE) | PTE_USER;
    table[5][(VMM_DOORBELL_ADDR >> 12) & 511] = VMM_DOORBELL_ADDR | PTE_USER;
    memcpy(table[6], code, sizeof(code));
}

int machine_warm(struct machine *m)
{
    if (!map_at(m->mem, UNID_BOOT_ADDR, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
        return fail(m, "map the first program");
    }
    write_warm_program(m->mem);
    struct kvm_regs regs = {.rip = 7 * PAGE, .rbx = m->fsgsbase};
    int rc = machine_run_own(m, PAGE, &regs, "run in ring 3");
    if (rc == 0 && madvise(m->mem, UNID_BOOT_ADDR, MADV_DONTNEED) < 0) {
        return fail(m, "drop the first program");
    }
    return rc;
}

int machine_run_own(struct machine *m, uint64_t cr3, const struct kvm_regs *regs, const char *step)
{
    struct kvm_sregs sregs = guest_sregs(m, cr3, NULL);
    struct kvm_regs begin = *regs;
    uint64_t exits = m->exits;
    begin.rflags = RFLAGS_SET;
    int rc = load_registers(m, &sregs, &begin);
    if (rc < 0) {
        return rc;
    }
    struct vmm_report report = {0};
    machine_run(m, &report);
    if (report.kind != VMM_REPORT_RING) {
        errno = report.kind == VMM_REPORT_ERROR ? -report.error : EOPNOTSUPP;
        return fail(m, step);
    }
    m->exits = exits;
    return complete(m);
}

/* --- bind, run, save, reset ------------------------------------------------------------------- */

/* [from, to) of the guest's memory is the file's. Each mapping costs some microseconds here, so nothing is
 * mapped twice, and what is zero is not mapped at all. */
static bool map_file(struct machine *m, const struct vmm_order *o, int fd, uint64_t from,
                     uint64_t to)
{
    int flags = m->shared ? MAP_SHARED : MAP_PRIVATE;
    return from == to || map_at(m->mem + from, to - from, flags, fd, o->mem_at + from);
}

static int map_memory(struct machine *m, const struct vmm_order *o, int fd)
{
    uint64_t zero = o->zero_bytes ? o->zero_at : o->mem_bytes, zero_end = zero + o->zero_bytes;
    uint64_t low = m->has_state && !(o->flags & VMM_BIND_LOW) ? UNID_BOOT_ADDR : 0;
    if (!map_file(m, o, fd, low, UNID_BOOT_ADDR) || !map_file(m, o, fd, UNID_CHANNEL_END, zero) ||
        !map_file(m, o, fd, zero_end, o->mem_bytes)) {
        return fail(m, "map guest memory");
    }
    if (o->zero_bytes == 0) {
        return 0;
    }
    if (mprotect(m->mem + zero, o->zero_bytes, PROT_READ | PROT_WRITE) < 0) {
        return fail(m, "allow zeros");
    }
    m->zero_at = zero;
    m->zero_bytes = o->zero_bytes;
    return 0;
}

static int read_start(struct machine *m, int fd, uint64_t at)
{
    errno = 0;
    if (pread(fd, &m->start, sizeof(m->start), (off_t)at) != sizeof(m->start)) {
        return fail(m, "read the saved state");
    }
    m->cr3 = m->start.sregs.cr3 & ADDR_MASK;
    if (m->cr3 < UNID_CHANNEL_END || m->cr3 >= m->mem_bytes) {
        errno = EINVAL;
        return fail(m, "saved CR3");
    }
    return 0;
}

static int load_start(struct machine *m)
{
    const struct vmm_state *st = &m->start;
    struct kvm_sregs sregs = guest_sregs(m, m->cr3, &st->sregs);
    struct kvm_regs regs = st->regs;
    regs.rflags = (regs.rflags & RFLAGS_GUEST) | RFLAGS_SET;
    if (ioctl(m->vcpu, KVM_SET_XSAVE, &st->xsave) < 0) {
        return fail(m, "KVM_SET_XSAVE");
    }
    return load_registers(m, &sregs, &regs);
}

/* What earlier runs wrote is copied now, in one go: one by one, by a fault of the guest each, it takes five
 * times as long. That a page cannot be had here (an older kernel, no memory) shows when it is written. */
static void copy_ahead(const struct machine *m)
{
    for (size_t i = 0; i < m->range_count; i++) {
        (void)madvise(m->mem + (size_t)m->ranges[i].page * 4096, (size_t)m->ranges[i].count * 4096,
                      MADV_POPULATE_WRITE);
    }
}

/* Without the log nothing is learned, and nothing else is lost. */
static void start_learning(struct machine *m)
{
    struct kvm_userspace_memory_region slot = {.flags = KVM_MEM_LOG_DIRTY_PAGES,
                                               .memory_size = m->mem_max,
                                               .userspace_addr = (uintptr_t)m->mem};
    m->learning = ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0;
}

size_t machine_written(struct machine *m, uint8_t bitmap[VMM_WRITTEN_BYTES])
{
    /* KVM writes the whole slot's, in units of 64 pages. */
    static uint64_t log[VMM_WRITTEN_BYTES / 8];
    struct kvm_dirty_log get = {.dirty_bitmap = log};
    size_t len = m->mem_bytes / 4096 / 8;
    if (!m->learning || m->mem_max > VMM_LEARN_MAX || ioctl(m->vm, KVM_GET_DIRTY_LOG, &get) < 0) {
        return 0;
    }
    for (size_t i = 0; i < len; i++) {
        bitmap[i] |= ((const uint8_t *)log)[i];
    }
    return len;
}

static void take_ranges(struct machine *m, const struct vmm_ahead *ahead)
{
    memcpy(m->ranges, ahead->ranges, ahead->range_count * sizeof(*ahead->ranges));
    m->range_count = ahead->range_count;
}

int machine_bind(struct machine *m, const struct vmm_order *o, const struct vmm_ahead *ahead,
                 int fd)
{
    if (m->mem_bytes > 0) {
        errno = EALREADY;
        return fail(m, "bind");
    }
    m->shared = o->flags & VMM_BIND_SHARED;
    m->has_state = o->flags & VMM_BIND_STATE;
    int rc = map_memory(m, o, fd);
    if (rc < 0) {
        return rc;
    }
    m->mem_bytes = o->mem_bytes;
    take_ranges(m, ahead);
    copy_ahead(m);
    if (!m->has_state) {
        m->cr3 = o->cr3;
        struct kvm_sregs sregs = guest_sregs(m, o->cr3, NULL);
        struct kvm_regs regs = {.rip = o->rip, .rsp = o->rsp, .rdi = o->rdi, .rflags = RFLAGS_SET};
        return load_registers(m, &sregs, &regs);
    }
    rc = read_start(m, fd, o->state_at);
    if (rc == 0 && o->flags & VMM_BIND_LEARN) {
        start_learning(m);
        machine_watch(m);
    } else if (rc == 0 && o->flags & VMM_BIND_STAND) {
        rc = machine_touch(m, ahead->touches, ahead->touch_count);
    }
    return rc < 0 ? rc : load_start(m);
}

/* The vector of a fault that was no page fault, by the instruction; ~0u when that does not say. */
static uint32_t guess_vector(const uint8_t *code, size_t len)
{
    enum { DIVIDE = 0, BREAKPOINT = 3, INVALID_OPCODE = 6, PROTECTION = 13 };
    if (len > 0 && (code[0] & 0xf0) == 0x40) { /* REX */
        code++;
        len--;
    }
    if (len < 2) {
        return len == 1 && code[0] == 0xcc ? BREAKPOINT : ~0u;
    }
    switch (code[0]) {
    case 0x0f: /* UD2, SYSCALL, SYSENTER */
        return code[1] == 0x0b || code[1] == 0x05 ? INVALID_OPCODE
               : code[1] == 0x34                  ? PROTECTION
                                                  : ~0u;
    case 0xcc:
        return BREAKPOINT;
    case 0xf6:
    case 0xf7:
        return (code[1] >> 3 & 7) >= 6 ? DIVIDE : ~0u; /* DIV, IDIV */
    case 0xcd:                                         /* INT, CLI, STI, HLT, IN, OUT */
    case 0xfa:
    case 0xfb:
    case 0xf4:
    case 0xe4 ... 0xe7:
    case 0xec ... 0xef:
        return PROTECTION;
    default:
        return ~0u;
    }
}

/* A triple fault. On AMD's SVM, KVM resets the vCPU before it tells (svm.c, shutdown_interception):
 * then the code segment is the reset vector's, and nothing is known. */
static void report_fault(struct machine *m, struct vmm_report *ret)
{
    enum { PAGE_FAULT = 14 };
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    ret->kind = VMM_REPORT_FAULT;
    ret->vector = ~0u;
    if (ioctl(m->vcpu, KVM_GET_REGS, &regs) < 0 || ioctl(m->vcpu, KVM_GET_SREGS, &sregs) < 0 ||
        sregs.cs.dpl != 3) {
        return;
    }
    ret->rip = regs.rip;
    if (regs.rip == SYSCALL_TARGET && sregs.cr2 == SYSCALL_TARGET) {
        ret->rip = regs.rcx - 2; /* SYSCALL is two bytes, and keeps the address behind it in rcx */
    } else if (sregs.cr2 != CR2_UNTOUCHED) {
        ret->vector = PAGE_FAULT;
        ret->addr = sregs.cr2;
        return;
    }
    size_t len = hv_fault_code(m->mem, m->mem_bytes, m->cr3, ret->rip, ret->code);
    ret->code_len = (uint8_t)len;
    ret->vector = guess_vector(ret->code, len);
}

/* What cannot be had here shows when it is touched. */
static void fill_piece(const struct machine *m, uint64_t piece)
{
    if (vmm_fill_valid(m->zero_at, m->zero_bytes, piece)) {
        (void)madvise(m->mem + piece, UNID_PIECE_SIZE, MADV_POPULATE_WRITE);
    }
}

/* A change of CR4.PGE flushes the guest's TLB (Intel SDM vol. 3, 4.10.4.1; AMD APM vol. 2, 5.5.2), and KVM does it for
 * one that is set from outside. It changes nothing else: no page of the guest's is global but by its own tables. */
static bool flush_tlb(const struct machine *m)
{
    struct kvm_sregs sregs;
    if (ioctl(m->vcpu, KVM_GET_SREGS, &sregs) < 0) {
        return false;
    }
    sregs.cr4 ^= CR4_PGE;
    return ioctl(m->vcpu, KVM_SET_SREGS, &sregs) == 0;
}

/* Does what the exit asks for, when it is something about memory: the guest only has to go on. Not when it cannot be
 * done. */
static bool serve_memory(const struct machine *m)
{
    uint64_t value;
    if (m->run->exit_reason != KVM_EXIT_MMIO || !m->run->mmio.is_write ||
        m->run->mmio.len != sizeof(value)) {
        return false;
    }
    memcpy(&value, m->run->mmio.data, sizeof(value));
    switch (m->run->mmio.phys_addr) {
    case VMM_DOORBELL_ADDR + UNID_FILL_OFFSET:
        fill_piece(m, value);
        return true;
    case VMM_DOORBELL_ADDR + UNID_FLUSH_OFFSET:
        return flush_tlb(m);
    default:
        return false;
    }
}

static void report_mmio(struct machine *m, struct vmm_report *ret)
{
    uint64_t at = m->run->mmio.phys_addr;
    m->pending = true;
    if (m->run->mmio.is_write && at >= VMM_DOORBELL_ADDR &&
        at - VMM_DOORBELL_ADDR < VMM_DOORBELL_SIZE) {
        ret->kind = VMM_REPORT_RING;
        return;
    }
    struct kvm_regs regs = {0};
    ioctl(m->vcpu, KVM_GET_REGS, &regs);
    ret->kind = VMM_REPORT_FAULT;
    ret->vector = ~0u;
    ret->rip = regs.rip;
    ret->addr = at;
}

void machine_run(struct machine *m, struct vmm_report *ret)
{
    int rc;
    do {
        rc = ioctl(m->vcpu, KVM_RUN, 0);
    } while (rc < 0 ? errno == EINTR : serve_memory(m));
    m->pending = false;
    ret->exits = ++m->exits;
    if (rc < 0 && errno == EFAULT) { /* in the slot, but behind the memory that is bound */
        ret->error = -EFAULT;
        report_fault(m, ret);
        return;
    }
    if (rc < 0) {
        ret->kind = VMM_REPORT_ERROR;
        ret->error = fail(m, "KVM_RUN");
        return;
    }
    ret->exit_reason = m->run->exit_reason;
    switch (m->run->exit_reason) {
    case KVM_EXIT_MMIO:
        report_mmio(m, ret);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        errno = EIO;
        ret->kind = VMM_REPORT_ERROR;
        ret->error = fail(m, "enter the guest");
        break;
    default: /* SHUTDOWN; INTERNAL_ERROR: an instruction on the doorbell that KVM cannot emulate */
        report_fault(m, ret);
        break;
    }
}

int machine_save(struct machine *m, struct vmm_state *ret)
{
    int rc = complete(m);
    if (rc < 0) {
        return rc;
    }
    memset(ret, 0, sizeof(*ret));
    if (ioctl(m->vcpu, KVM_GET_REGS, &ret->regs) < 0) {
        return fail(m, "KVM_GET_REGS");
    }
    if (ioctl(m->vcpu, KVM_GET_SREGS, &ret->sregs) < 0) {
        return fail(m, "KVM_GET_SREGS");
    }
    return ioctl(m->vcpu, KVM_GET_XSAVE, &ret->xsave) < 0 ? fail(m, "KVM_GET_XSAVE") : 0;
}

/* Exceptions, interrupts and shadows that may be pending: none. */
static int clear_events(struct machine *m)
{
    struct kvm_vcpu_events none = {.flags = KVM_VCPUEVENT_VALID_NMI_PENDING |
                                            KVM_VCPUEVENT_VALID_SHADOW};
    struct kvm_debugregs debug = {.dr6 = 0xffff0ff0, .dr7 = 0x400}; /* as after a reset */
    if (ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &none) < 0) {
        return fail(m, "KVM_SET_VCPU_EVENTS");
    }
    return ioctl(m->vcpu, KVM_SET_DEBUGREGS, &debug) < 0 ? fail(m, "KVM_SET_DEBUGREGS") : 0;
}

int machine_reset(struct machine *m, const struct vmm_ahead *ahead)
{
    if (m->mem_bytes == 0 || m->shared || !m->has_state ||
        !vmm_ranges_valid(ahead->ranges, ahead->range_count, m->mem_bytes)) {
        errno = EINVAL;
        return fail(m, "reset");
    }
    int rc = complete(m);
    if (rc < 0) {
        return rc;
    }
    if (madvise(m->mem, UNID_BOOT_ADDR, MADV_DONTNEED) < 0 ||
        madvise(m->mem + UNID_CHANNEL_END, m->mem_bytes - UNID_CHANNEL_END, MADV_DONTNEED) < 0) {
        return fail(m, "drop written memory");
    }
    m->watching = false; /* the tables are those of the snapshot again */
    m->split_count = 0;
    if (ahead->range_count > 0) {
        take_ranges(m, ahead);
    }
    copy_ahead(m);
    rc = clear_events(m);
    rc = rc < 0 ? rc : machine_touch(m, ahead->touches, ahead->touch_count);
    return rc < 0 ? rc : load_start(m);
}
