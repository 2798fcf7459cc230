/* kvm_runner.h - the smallest monitor that runs a ring-3 image: for tests of layout, channel and
 * SDK on a real CPU. No driver: one VM, one request, everything on the caller's thread. */
#ifndef UNID_TESTS_KVM_RUNNER_H
#define UNID_TESTS_KVM_RUNNER_H

#include "common/bytes.h"
#include "hypervisor/channel.h"
#include "hypervisor/layout.h"

struct kvm_case {
    const char *image; /* path */
    uint64_t mem_bytes;
    const char *const *argv, *const *envp;
    const char *head; /* request head; NULL: "POST / CRLF" */
    const void *body;
    size_t body_len;
    size_t piece;        /* bytes of the body at a time; 0: as many as fit */
    size_t stop_at;      /* output bytes after which the VM is stopped; 0: never */
    unsigned stop_ms;    /* time after which the VM is stopped; 0: 10 s */
    bool ask;            /* the request is not ready at the start: the guest must ask */
    bool length_unknown; /* content length not declared */
};

struct kvm_result {
    struct hv_layout layout;
    struct hv_exit why;
    bool stopped; /* by stop_at or stop_ms; `why` is then LOST */
    unsigned status;
    struct un_buf fields; /* "name: value LF" each */
    struct un_buf output, log;
    uint64_t calls;
};

/* Whether VMs can be made here; says on stderr why not. */
bool kvm_runner_usable(void);

/* 0, or the error of layout or of KVM. Release with kvm_result_done. */
int kvm_runner_run(const struct kvm_case *c, struct kvm_result *ret, struct un_error *err);
void kvm_result_done(struct kvm_result *r);

#endif
