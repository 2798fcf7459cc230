/* kvm_runner.c - see kvm_runner.h. The CPU's state: 64-bit, ring 3, no descriptor tables, so that
 * any fault shuts the VM down. */
#include "kvm_runner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

#define DOORBELL UINT64_C(0x3f000000) /* no memory slot: a store there leaves the VM */

struct runner {
    const struct kvm_case *c;
    struct kvm_result *ret;
    struct hv_channel channel;
    size_t body_pos;
    bool exit_due, exited, failed;
    int kvm, vm, cpu;
    uint8_t *mem, *image;
    size_t image_len, run_size;
    struct kvm_run *run;
};

/* --- what the guest wants --------------------------------------------------------------------- */

static void on_input_wanted(void *arg, size_t room)
{
    struct runner *r = arg;
    size_t n = r->c->body_len - r->body_pos;
    n = n < room ? n : room;
    if (r->c->piece > 0 && n > r->c->piece) {
        n = r->c->piece;
    }
    const uint8_t *from = r->c->body ? (const uint8_t *)r->c->body + r->body_pos : NULL;
    r->body_pos += n;
    hv_channel_input(&r->channel, from, n, r->body_pos == r->c->body_len);
}

static void on_head(void *arg, const struct hv_head *head)
{
    struct runner *r = arg;
    r->ret->status = head->status;
    for (size_t i = 0; i < head->field_count; i++) {
        r->failed |= un_buf_printf(&r->ret->fields, "%s: %s\n", head->fields[i].name,
                                   head->fields[i].value) < 0;
    }
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct runner *r = arg;
    r->failed |= un_buf_append(&r->ret->output, data, len) < 0;
    if (r->c->stop_at > 0 && r->ret->output.len >= r->c->stop_at) {
        r->ret->stopped = true;
        return;
    }
    hv_channel_output_done(&r->channel);
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct runner *r = arg;
    r->failed |= un_buf_append(&r->ret->log, data, len) < 0;
}

static void on_exit_event(void *arg, const struct hv_exit *why)
{
    struct runner *r = arg;
    r->ret->why = *why;
    r->exited = true;
}

static const struct hv_vm_events events = {.on_input_wanted = on_input_wanted,
                                           .on_head = on_head,
                                           .on_output = on_output,
                                           .on_log = on_log,
                                           .on_exit = on_exit_event};

static void exit_due(void *arg)
{
    struct runner *r = arg;
    r->exit_due = true;
}

static int put_request(struct runner *r, struct un_error *err)
{
    const char *head = r->c->head ? r->c->head : "POST / \r\n";
    size_t room = hv_body_room(strlen(head));
    size_t first = r->c->body_len < room ? r->c->body_len : room;
    if (r->c->piece > 0) {
        first = 0;
    }
    struct hv_run_spec spec = {
        .request_head = head,
        .request_head_len = strlen(head),
        .invocation_id = "01J0000000000000000000TEST",
        .deadline_us = 10000000,
        .content_length = r->c->length_unknown ? -1 : (int64_t)r->c->body_len,
        .body = r->c->body,
        .body_len = first,
        .body_eof = first == r->c->body_len,
    };
    r->body_pos = first;
    return hv_channel_put_request(&r->channel, &spec, err);
}

static void next_wanted(void *arg)
{
    struct runner *r = arg;
    r->failed |= put_request(r, NULL) < 0;
}

/* --- the VM ----------------------------------------------------------------------------------- */

static int set_cpu(struct runner *r, const struct hv_layout *l)
{
    struct kvm_sregs s;
    if (ioctl(r->cpu, KVM_GET_SREGS, &s) < 0) {
        return -errno;
    }
    s.cr3 = l->cr3;
    s.cr4 = 0x620;      /* PAE, OSFXSR, OSXMMEXCPT */
    s.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
    s.efer = 0xd01;     /* NXE, LMA, LME, SCE */
    s.cs = (struct kvm_segment){
        .limit = ~0u, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1};
    s.ss = s.ds = s.es = s.fs = s.gs = (struct kvm_segment){
        .limit = ~0u, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1};
    s.tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
    s.ldt = (struct kvm_segment){.unusable = 1};
    s.gdt.limit = s.idt.limit = 0;
    struct kvm_regs g = {.rip = l->rip, .rsp = l->rsp, .rdi = l->rdi, .rflags = 0x202};
    if (ioctl(r->cpu, KVM_SET_SREGS, &s) < 0 || ioctl(r->cpu, KVM_SET_REGS, &g) < 0) {
        return -errno;
    }
    return 0;
}

static int make_vm(struct runner *r, struct un_error *err)
{
    r->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    r->vm = r->kvm < 0 ? -1 : ioctl(r->kvm, KVM_CREATE_VM, 0);
    struct kvm_userspace_memory_region slot = {.memory_size = r->c->mem_bytes,
                                               .userspace_addr = (uintptr_t)r->mem};
    if (r->vm < 0 || ioctl(r->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0) {
        return un_error_errno(err, -errno, "KVM virtual machine");
    }
    r->cpu = ioctl(r->vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(r->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (r->cpu < 0 || size < 0) {
        return un_error_errno(err, -errno, "KVM virtual CPU");
    }
    void *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, r->cpu, 0);
    if (run == MAP_FAILED) {
        return un_error_errno(err, -errno, "map the virtual CPU");
    }
    r->run = run;
    r->run_size = (size_t)size;
    return 0;
}

static void fault_exit(struct runner *r)
{
    struct hv_exit why = {.kind = HV_EXIT_FAULT, .fault_vector = ~0u};
    struct kvm_regs g;
    struct kvm_sregs s;
    if (ioctl(r->cpu, KVM_GET_REGS, &g) == 0 && ioctl(r->cpu, KVM_GET_SREGS, &s) == 0) {
        why.fault_rip = g.rip;
        why.fault_addr = s.cr2;
    }
    hv_channel_end(&r->channel, &why);
}

static void lost_exit(struct runner *r, const char *detail)
{
    struct hv_exit why = {.kind = HV_EXIT_LOST, .fault_vector = ~0u};
    snprintf(why.detail, sizeof(why.detail), "%s", detail);
    hv_channel_end(&r->channel, &why);
}

static void run_once(struct runner *r)
{
    if (ioctl(r->cpu, KVM_RUN, 0) < 0) {
        r->ret->stopped = errno == EINTR;
        lost_exit(r, strerror(errno));
        return;
    }
    if (r->run->exit_reason == KVM_EXIT_MMIO && r->run->mmio.is_write &&
        r->run->mmio.phys_addr == DOORBELL && r->run->mmio.len == 4) {
        hv_channel_ring(&r->channel);
        if (r->ret->stopped) {
            lost_exit(r, "stopped");
        }
    } else if (r->run->exit_reason == KVM_EXIT_SHUTDOWN) {
        fault_exit(r);
    } else {
        char text[64];
        snprintf(text, sizeof(text), "KVM exit reason %u", r->run->exit_reason);
        lost_exit(r, text);
    }
}

static void ignore_signal(int sig)
{
    (void)sig;
}

/* Runs until the end; the alarm's signal interrupts KVM_RUN. */
static void run_all(struct runner *r)
{
    struct sigaction sa = {.sa_handler = ignore_signal}, old;
    sigaction(SIGALRM, &sa, &old);
    unsigned ms = r->c->stop_ms ? r->c->stop_ms : 10000;
    timer_t timer;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    /* Repeated, for the first may come just before KVM_RUN is entered. */
    struct itimerspec when = {.it_value = {ms / 1000, ms % 1000 * 1000000L},
                              .it_interval = {0, 10000000L}};
    if (timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0) {
        lost_exit(r, "no timer");
        return;
    }
    timer_settime(timer, 0, &when, NULL);
    while (!r->exit_due) {
        run_once(r);
    }
    timer_delete(timer);
    sigaction(SIGALRM, &old, NULL);
    hv_channel_exit(&r->channel);
}

static int read_image(struct runner *r, struct un_error *err)
{
    un_autoclose int fd = open(r->c->image, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return un_error_errno(err, -errno, "%s", r->c->image);
    }
    r->image_len = (size_t)st.st_size;
    r->image = malloc(r->image_len);
    if (!r->image || read(fd, r->image, r->image_len) != st.st_size) {
        return un_error_set(err, -EIO, "%s: cannot read", r->c->image);
    }
    return 0;
}

static int set_up(struct runner *r, struct un_error *err)
{
    void *mem = mmap(NULL, r->c->mem_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED) {
        return un_error_errno(err, -errno, "guest memory");
    }
    r->mem = mem;
    int rc = read_image(r, err);
    if (rc == 0) {
        rc = make_vm(r, err);
    }
    if (rc < 0) {
        return rc;
    }
    int khz = ioctl(r->cpu, KVM_GET_TSC_KHZ, 0);
    struct hv_layout_spec spec = {.mem = r->mem,
                                  .mem_bytes = r->c->mem_bytes,
                                  .doorbell = HV_DOORBELL_MEMORY,
                                  .doorbell_addr = DOORBELL,
                                  .boot_flags = r->c->ask ? 0 : UNID_BOOT_REQUEST_READY,
                                  .tsc_hz = khz > 0 ? (uint64_t)khz * 1000 : 0};
    struct hv_run_spec run = {
        .image = r->image, .image_len = r->image_len, .argv = r->c->argv, .envp = r->c->envp};
    rc = hv_layout_build(&spec, &run, &r->ret->layout, err);
    if (rc < 0) {
        return rc;
    }
    hv_channel_init(&r->channel, r->mem + UNID_BOOT_ADDR, &events, r);
    r->channel.exit_due = exit_due;
    r->channel.next_wanted = next_wanted;
    r->channel.driver_arg = r;
    rc = r->c->ask ? 0 : put_request(r, err);
    return rc < 0 ? rc : set_cpu(r, &r->ret->layout);
}

bool kvm_runner_usable(void)
{
    un_autoclose int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "SKIPPED: guests are not run: /dev/kvm: %s\n", strerror(errno));
        return false;
    }
    return true;
}

int kvm_runner_run(const struct kvm_case *c, struct kvm_result *ret, struct un_error *err)
{
    struct runner r = {.c = c, .ret = ret, .kvm = -1, .vm = -1, .cpu = -1};
    *ret = (struct kvm_result){0};
    int rc = set_up(&r, err);
    if (rc == 0) {
        run_all(&r);
        ret->calls = r.channel.calls;
        rc = r.failed || !r.exited ? un_error_set(err, -EIO, "the test's own bookkeeping failed")
                                   : 0;
    }
    if (r.run) {
        munmap(r.run, r.run_size);
    }
    int fds[] = {r.cpu, r.vm, r.kvm};
    for (size_t i = 0; i < UN_ARRAY_SIZE(fds); i++) {
        un_closep(&fds[i]);
    }
    if (r.mem) {
        munmap(r.mem, c->mem_bytes);
    }
    free(r.image);
    return rc;
}

void kvm_result_done(struct kvm_result *r)
{
    un_buf_done(&r->fields);
    un_buf_done(&r->output);
    un_buf_done(&r->log);
}
