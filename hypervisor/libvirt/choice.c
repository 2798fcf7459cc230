/* choice.c - see choice.h. */
#include "hypervisor/libvirt/choice.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libvirt/libvirt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/json.h"
#include "hypervisor/layout.h"
#include "hypervisor/libvirt/bind.h"
#include "hypervisor/libvirt/rom.h"
#include "hypervisor/probe_guest.h"

enum { KVM_LEAST_MS = 300, KVM_TIMES = 5, FILE_MAX = 16384 };

#define MEASURE_MEM (UINT64_C(8) << 20)
#define TYPICAL_OPS UINT64_C(2000000) /* iterations of the loop that weigh as much as a request */
#define RUNS        2                 /* the better of so many counts */

uint64_t lv_figures_cost(const struct lv_figures *f)
{
    if (!f->measured || f->ops_per_ms == 0) {
        return UINT64_MAX;
    }
    return f->start_us + TYPICAL_OPS * 1000 / f->ops_per_ms;
}

static int prepare(struct lv_shell *s, struct un_error *err)
{
    const char *const none[] = {"measure", NULL};
    struct hv_run_spec run = {.image = hv_probe_guest,
                              .image_len = hv_probe_guest_size,
                              .mem_bytes = s->mem_bytes,
                              .argv = none,
                              .envp = none + 1};
    struct hv_layout_spec spec = {.mem = s->mem,
                                  .mem_bytes = s->mem_bytes,
                                  .doorbell = HV_DOORBELL_PORT,
                                  .doorbell_port = LV_DOORBELL_PORT};
    struct hv_layout layout;
    int rc = hv_layout_build(&spec, &run, &layout, err);
    return rc < 0 ? rc : lv_bind(s->mem, s->mem_bytes, &layout, err);
}

/* Waits for one ring. */
static int wait_ring(struct lv_shell *s, uint64_t until_us, struct un_error *err)
{
    uint64_t now = un_clock_mono_us();
    struct pollfd p = {.fd = s->sock, .events = POLLIN};
    int left = until_us > now ? (int)((until_us - now) / 1000) : 0;
    char byte;
    struct hv_exit fault;
    if (poll(&p, 1, left) <= 0) {
        return un_error_set(err, -ETIMEDOUT,
                            "too slow: the measuring guest did not finish in time");
    }
    if (recv(s->sock, &byte, 1, 0) != 1) {
        return un_error_set(err, -EIO, "QEMU ended while it was measured");
    }
    if (lv_fault_read(s->mem, 0, &fault) && byte == 'F') {
        return un_error_set(err, -EIO, "the measuring guest failed: %s", fault.detail);
    }
    return 0;
}

static int run_once(struct lv_host *h, const char *accelerator, unsigned limit_ms,
                    struct lv_figures *ret, struct un_error *err)
{
    struct lv_shell s;
    uint64_t t0 = un_clock_mono_us();
    int rc = lv_shell_create(h, accelerator, MEASURE_MEM, &s, err);
    if (rc < 0) {
        return rc;
    }
    uint64_t t1 = un_clock_mono_us(), until = t1 + limit_ms * UINT64_C(1000);
    rc = prepare(&s, err);
    rc = rc < 0 ? rc : lv_shell_resume(&s, err);
    rc = rc < 0 ? rc : wait_ring(&s, until, err);
    uint64_t t2 = un_clock_mono_us();
    rc = rc < 0 ? rc : wait_ring(&s, until, err);
    uint64_t t3 = un_clock_mono_us();
    lv_shell_destroy(&s);
    if (rc < 0) {
        return rc;
    }
    *ret = (struct lv_figures){.measured = true,
                               .shell_us = t1 - t0,
                               .start_us = t2 - t1,
                               .ops_per_ms = HV_PROBE_LOOPS * UINT64_C(1000) / (t3 - t2 + 1)};
    return 0;
}

int lv_measure(struct lv_host *h, const char *accelerator, unsigned limit_ms,
               struct lv_figures *ret, struct un_error *err)
{
    struct lv_figures best = {0};
    for (int i = 0; i < RUNS; i++) {
        struct lv_figures f;
        int rc = run_once(h, accelerator, limit_ms, &f, err);
        if (rc < 0) {
            return un_error_context(err, "%s", accelerator);
        }
        if (lv_figures_cost(&f) < lv_figures_cost(&best)) {
            best = f;
        }
    }
    *ret = best;
    return 0;
}

/* What a measurement depends on, as one line. */
static void fingerprint(struct lv_host *h, char *out, size_t size)
{
    struct utsname u = {0};
    struct stat st = {0};
    unsigned long libvirt = 0;
    char line[256], cpu[128] = "";
    uname(&u);
    stat(h->emulator, &st);
    virGetVersion(&libvirt, NULL, NULL);
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "model name : %127[^\n]", cpu) == 1) {
            break;
        }
    }
    if (f) {
        fclose(f);
    }
    snprintf(out, size, "%s; %s %s; %s %lld %lld; libvirt %lu; kvm %s", cpu, u.release, u.machine,
             h->emulator, (long long)st.st_size, (long long)st.st_mtime, libvirt,
             access("/dev/kvm", R_OK | W_OK) == 0 ? "yes" : "no");
}

static json_t *figures_json(const struct lv_figures *f)
{
    return json_pack("{s:b, s:I, s:I, s:I, s:s}", "measured", (int)f->measured, "shell_us",
                     (json_int_t)f->shell_us, "start_us", (json_int_t)f->start_us, "ops_per_ms",
                     (json_int_t)f->ops_per_ms, "why_not", f->why_not);
}

static void figures_parse(const json_t *obj, struct lv_figures *ret)
{
    int64_t shell = 0, start = 0, ops = 0;
    const char *why = "";
    if (un_json_get_bool(obj, "measured", &ret->measured, NULL) < 0 ||
        un_json_get_int(obj, "shell_us", 0, INT64_MAX, &shell, NULL) < 0 ||
        un_json_get_int(obj, "start_us", 0, INT64_MAX, &start, NULL) < 0 ||
        un_json_get_int(obj, "ops_per_ms", 0, INT64_MAX, &ops, NULL) < 0 ||
        un_json_get_str(obj, "why_not", &why, NULL) < 0) {
        *ret = (struct lv_figures){0};
        return;
    }
    ret->shell_us = (uint64_t)shell;
    ret->start_us = (uint64_t)start;
    ret->ops_per_ms = (uint64_t)ops;
    snprintf(ret->why_not, sizeof(ret->why_not), "%s", why);
}

static void choice_path(struct lv_host *h, char *out, size_t size)
{
    snprintf(out, size, "%s/accelerator.json", h->place->state);
}

static void choice_store(struct lv_host *h, const struct lv_choice *c)
{
    char path[LV_PATH_SIZE + 32], mark[1024];
    choice_path(h, path, sizeof(path));
    fingerprint(h, mark, sizeof(mark));
    un_autojson json_t *doc =
        json_pack("{s:s, s:s, s:o, s:o}", "fingerprint", mark, "accelerator", c->accelerator, "tcg",
                  figures_json(&c->tcg), "kvm", figures_json(&c->kvm));
    if (doc) {
        json_dump_file(doc, path, JSON_INDENT(2)); /* a loss costs one more measurement */
    }
}

bool lv_choice_load(struct lv_host *h, struct lv_choice *ret)
{
    char path[LV_PATH_SIZE + 32], mark[1024], text[FILE_MAX];
    choice_path(h, path, sizeof(path));
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    un_autojson json_t *doc = NULL;
    if (n <= 0 || un_json_parse(text, (size_t)n, &doc, NULL) < 0) {
        return false;
    }
    const char *was = "", *accelerator = "";
    fingerprint(h, mark, sizeof(mark));
    if (un_json_get_str(doc, "fingerprint", &was, NULL) < 0 || strcmp(was, mark) != 0 ||
        un_json_get_str(doc, "accelerator", &accelerator, NULL) < 0 ||
        (strcmp(accelerator, "tcg") != 0 && strcmp(accelerator, "kvm") != 0)) {
        return false;
    }
    struct lv_choice c = {0};
    snprintf(c.accelerator, sizeof(c.accelerator), "%s", accelerator);
    figures_parse(json_object_get(doc, "tcg"), &c.tcg);
    figures_parse(json_object_get(doc, "kvm"), &c.kvm);
    *ret = c;
    return true;
}

static unsigned kvm_limit_ms(const struct lv_figures *tcg)
{
    uint64_t took_ms = tcg->start_us / 1000 + HV_PROBE_LOOPS / (tcg->ops_per_ms + 1);
    uint64_t limit_ms = KVM_LEAST_MS + KVM_TIMES * took_ms;
    return limit_ms < LV_MEASURE_LIMIT_MS ? (unsigned)limit_ms : LV_MEASURE_LIMIT_MS;
}

int lv_choice_measure(struct lv_host *h, struct lv_choice *ret, struct un_error *err)
{
    struct lv_choice c = {.accelerator = "tcg"};
    struct un_error why = UN_ERROR_INIT;
    int rc = lv_measure(h, "tcg", LV_MEASURE_LIMIT_MS, &c.tcg, err);
    if (rc < 0) {
        return rc;
    }
    if (access("/dev/kvm", F_OK) < 0) {
        snprintf(c.kvm.why_not, sizeof(c.kvm.why_not), "there is no /dev/kvm");
    } else if (access("/dev/kvm", R_OK | W_OK) < 0) {
        snprintf(c.kvm.why_not, sizeof(c.kvm.why_not),
                 "/dev/kvm is not accessible: unictl doctor tells how to mend that");
    } else if (lv_measure(h, "kvm", kvm_limit_ms(&c.tcg), &c.kvm, &why) < 0) {
        snprintf(c.kvm.why_not, sizeof(c.kvm.why_not), "%.120s", why.text);
    }
    if (lv_figures_cost(&c.kvm) < lv_figures_cost(&c.tcg)) {
        snprintf(c.accelerator, sizeof(c.accelerator), "kvm");
    }
    choice_store(h, &c);
    *ret = c;
    return 0;
}
