/* snapshot_build.c - how a snapshot of the kvm driver is made.
 *
 *     prepare --> in memory? --------------------------------------> cb(0)
 *                    | no                                              ^
 *                    v            fails                                |
 *                 LOADING (worker) -----> STARTING --> PLACING --> RUNNING --> WRITING (worker)
 *                                         a shell      (worker)    to its      the file, then
 *                                                      its memory  first NEXT  read back
 *
 * (With the driver's first VM, STARTING comes before LOADING: the host's clock rate is not known.)
 *
 * A build is one struct build; whoever wants the same key meanwhile waits for it. Its VM is freed
 * before the waiters hear of the end, which is always from an event of the loop.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/limits.h"
#include "common/log.h"
#include "hypervisor/kvm/snapshot_impl.h"

struct waiter {
    struct waiter *next;
    hv_prepare_cb *cb;
    void *arg;
};

enum build_state {
    BUILD_LOADING,
    BUILD_STARTING,
    BUILD_PLACING,
    BUILD_RUNNING,
    BUILD_WRITING,
    BUILD_ENDED
};

struct build {
    struct un_list node; /* of snapshots.builds */
    struct snapshots *all;
    enum build_state state;
    char key[HV_SNAPSHOT_KEY_MAX + 1];
    struct hv_run_spec spec; /* argv, envp and, when owned, the image are copies */
    char **argv, **envp;
    uint8_t *own_image;
    struct waiter *waiters;
    struct kvm_vm *vm;
    bool loaded; /* the file was looked for */
    struct un_timer timer;
    struct un_post begin_post;
    struct un_buf log;
    struct unid_report report; /* of its VM */
    struct un_job job;
    struct snapshot_file file; /* of the job */
    struct kvm_placement placement;
    struct snapshot_source source;
    uint8_t *state_copy;
    struct un_error err; /* how it failed; code 0 when it did not */
};

static void strings_free(char **strings)
{
    for (char **s = strings; s && *s; s++) {
        free(*s);
    }
    free(strings);
}

static char **strings_copy(const char *const *from)
{
    size_t count = 0;
    while (from && from[count]) {
        count++;
    }
    char **copy = calloc(count + 1, sizeof(*copy));
    for (size_t i = 0; copy && i < count; i++) {
        if (!(copy[i] = strdup(from[i]))) {
            strings_free(copy);
            return NULL;
        }
    }
    return copy;
}

static void build_free(struct build *b)
{
    if (!b) {
        return;
    }
    if (un_list_linked(&b->node)) {
        un_list_remove(&b->node);
    }
    un_timer_cancel(&b->timer);
    un_loop_unpost(b->all->drv->loop, &b->begin_post);
    strings_free(b->argv);
    strings_free(b->envp);
    free(b->own_image);
    free(b->state_copy);
    un_buf_done(&b->log);
    snapshot_file_release(&b->file);
    un_closep(&b->placement.fd);
    free(b);
}

/* The end of a build whose VM is gone. */
static void build_finish(struct build *b)
{
    struct waiter *w = b->waiters;
    b->waiters = NULL;
    un_list_remove(&b->node);
    snapshot_note_result(b->all, b->key, b->err.code < 0);
    while (w) {
        struct waiter *next = w->next;
        w->cb(w->arg, b->err.code, b->err.code ? &b->err : NULL, b->log.data, b->log.len,
              &b->report);
        free(w);
        w = next;
    }
    build_free(b);
}

static void build_end(struct build *b)
{
    b->state = BUILD_ENDED;
    un_timer_cancel(&b->timer);
    if (b->vm) {
        struct hv_usage usage;
        kvm_vm_usage((struct hv_vm *)(void *)b->vm, &usage);
        b->report = usage.report;
        kvm_vm_free((struct hv_vm *)(void *)b->vm); /* on_gone goes on */
    } else {
        build_finish(b);
    }
}

static void __attribute__((format(printf, 3, 4)))
build_fail(struct build *b, int code, const char *fmt, ...)
{
    char text[UN_ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (b->err.code == 0) {
        un_error_set(&b->err, code, "%s", text);
    }
    build_end(b);
}

/* --- load and write: workers ------------------------------------------------------------------ */

static struct build *build_of(struct un_job *job)
{
    return un_container_of(job, struct build, job);
}

static int load_run(struct un_job *job, struct un_error *err)
{
    struct build *b = build_of(job);
    struct kvm_driver *d = b->all->drv;
    int rc = snapshot_file_read(d->snapshot_dir, b->key, &b->source.cpu, &b->file, err);
    if (rc == 0 && b->file.mem_bytes != b->spec.mem_bytes) {
        snapshot_file_release(&b->file);
        return un_error_set(err, -EBADMSG, "of another size of memory");
    }
    return rc;
}

static int write_run(struct un_job *job, struct un_error *err)
{
    struct build *b = build_of(job);
    struct kvm_driver *d = b->all->drv;
    int rc = snapshot_file_write(d->snapshot_dir, b->key, &b->source, err);
    if (rc < 0) {
        return rc;
    }
    rc = load_run(job, err); /* opened read-only, and what can be read is what counts */
    snapshot_file_trim(d->snapshot_dir, LIMIT_SNAPSHOT_CACHE_BYTES);
    return rc;
}

static void write_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct build *b = build_of(job);
    if (rc == 0 && (rc = snapshot_keep(b->all, b->key, &b->file)) < 0) {
        un_error_set(&b->err, rc, "out of memory");
    } else if (rc < 0) {
        un_error_copy(&b->err, err);
    }
    build_end(b);
}

/* --- the VM of a build ------------------------------------------------------------------------ */

static void on_ready(void *arg, int rc, const struct un_error *err);
static void load_done(struct un_job *job, int rc, const struct un_error *err);

static void on_saved(void *arg, const uint8_t *state)
{
    struct build *b = arg;
    if (b->state != BUILD_RUNNING) {
        return;
    }
    b->state = BUILD_WRITING;
    un_timer_cancel(&b->timer);
    b->state_copy = malloc(sizeof(struct vmm_state));
    if (!b->state_copy) {
        build_fail(b, -ENOMEM, "out of memory");
        return;
    }
    memcpy(b->state_copy, state, sizeof(struct vmm_state));
    /* The monitor waits, and the VM is kept until the job is done; so nobody writes there. */
    b->source = (struct snapshot_source){.ram_fd = b->vm->ram_fd,
                                         .mem_bytes = b->spec.mem_bytes,
                                         .channel = b->vm->link->base,
                                         .state = b->state_copy,
                                         .cpu = b->source.cpu};
    b->job = (struct un_job){.run = write_run, .done = write_done};
    un_workers_submit(b->all->drv->workers, &b->job);
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct build *b = arg;
    if (b->log.len + len > LIMIT_LOG_BYTES) { /* its end tells why the program failed */
        un_buf_consume(&b->log, b->log.len < len ? b->log.len : b->log.len / 2);
    }
    size_t room = LIMIT_LOG_BYTES - b->log.len;
    (void)un_buf_append(&b->log, data, len < room ? len : room);
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct build *b = arg;
    if (b->state != BUILD_RUNNING) {
        return; /* LOADING, PLACING, WRITING: the job goes on, and what comes of it counts */
    }
    int code = why->kind == HV_EXIT_LOST ? -EIO : -EPROTO;
    if (why->kind == HV_EXIT_DONE) {
        build_fail(b, code, "the program ended with status %d before it asked for a request",
                   why->status);
    } else if (why->kind == HV_EXIT_FAULT && !why->detail[0]) {
        build_fail(b, code,
                   "the program faulted at %#" PRIx64 ", address %#" PRIx64
                   ", before it asked for a request",
                   why->fault_rip, why->fault_addr);
    } else {
        build_fail(b, code, "before the program asked for a request: %s: %s",
                   hv_exit_name(why->kind), why->detail);
    }
}

static void on_gone(void *arg)
{
    struct build *b = arg;
    b->vm = NULL;
    build_finish(b);
}

static void ignore(void *arg)
{
}

static void no_input(void *arg, size_t room)
{
}

static void no_head(void *arg, const struct hv_head *head)
{
}

static void no_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct build *b = arg; /* not before NEXT: the channel forbids it; DONE may bring some */
    kvm_vm_output_done((struct hv_vm *)(void *)b->vm);
}

static const struct hv_vm_events build_events = {
    .on_ready = on_ready,
    .on_started = ignore,
    .on_input_wanted = no_input,
    .on_head = no_head,
    .on_output = no_output,
    .on_log = on_log,
    .on_exit = on_exit_,
    .on_gone = on_gone,
};

static int place_run(struct un_job *job, struct un_error *err)
{
    struct build *b = build_of(job);
    return kvm_vm_place(b->vm, &b->spec, &b->placement, err);
}

static void place_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct build *b = build_of(job);
    struct un_error why = UN_ERROR_INIT;
    b->state = BUILD_RUNNING;
    un_error_copy(&why, err);
    rc = rc < 0 ? rc : kvm_vm_build(b->vm, &b->spec, &b->placement, on_saved, &why);
    if (rc < 0) {
        un_error_copy(&b->err, &why);
        build_end(b);
    } else if (un_timer_arm_in(&b->timer, b->spec.deadline_us) < 0) {
        build_fail(b, -ENOMEM, "out of memory");
    }
}

static void run_program(struct build *b)
{
    struct un_error why = UN_ERROR_INIT;
    if (kvm_vm_place_prepare(b->vm, &b->spec, &b->placement, &why) < 0) {
        un_error_copy(&b->err, &why);
        build_end(b);
        return;
    }
    b->state = BUILD_PLACING;
    b->job = (struct un_job){.run = place_run, .done = place_done};
    un_workers_submit(b->all->drv->workers, &b->job);
}

static void load(struct build *b)
{
    b->state = BUILD_LOADING;
    b->loaded = true;
    b->source.cpu = (struct snapshot_cpu){.tsc_khz = b->all->drv->hello.tsc_khz,
                                          .boot_flags = b->all->drv->hello.boot_flags};
    b->job = (struct un_job){.run = load_run, .done = load_done};
    un_workers_submit(b->all->drv->workers, &b->job);
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    struct build *b = arg;
    if (rc < 0) {
        un_error_copy(&b->err, err);
        build_end(b);
    } else if (b->loaded) {
        run_program(b);
    } else {
        load(b);
    }
}

static void on_timer(void *arg)
{
    struct build *b = arg;
    build_fail(b, -ETIMEDOUT, "the program did not ask for a request in %" PRIu64 " ms",
               b->spec.deadline_us / 1000);
}

static void start_vm(struct build *b)
{
    struct un_error err = UN_ERROR_INIT;
    const uint64_t unit = UINT64_C(2) << 20;
    uint64_t mem = (b->spec.mem_bytes + unit - 1) / unit * unit;
    struct hv_vm_spec spec = {
        .mem_bytes = mem < 2 * unit ? 2 * unit : mem, .events = &build_events, .arg = b};
    struct hv_vm *vm;
    b->state = BUILD_STARTING;
    if (kvm_vm_new((struct hv_driver *)(void *)b->all->drv, &spec, &vm, &err) < 0) {
        un_error_copy(&b->err, &err);
        build_end(b);
        return;
    }
    b->vm = (struct kvm_vm *)(void *)vm;
}

static void load_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct build *b = build_of(job);
    if (rc == 0) {
        if (snapshot_keep(b->all, b->key, &b->file) < 0) {
            un_error_set(&b->err, -ENOMEM, "out of memory");
        }
        build_end(b);
        return;
    }
    if (rc != -ENOENT) {
        un_log(UN_LOG_DEBUG, "snapshot is made again", "reason", err->text);
    }
    if (b->vm) {
        run_program(b);
    } else {
        start_vm(b);
    }
}

/* --- start ------------------------------------------------------------------------------------ */

static void on_begin(void *arg)
{
    struct build *b = arg;
    struct kvm_driver *d = b->all->drv;
    struct un_error err = UN_ERROR_INIT;
    if (snapshot_known(b->all, b->key)) {
        build_end(b);
        return;
    }
    if (b->err.code < 0 || kvm_driver_workers(d, &err) < 0) {
        if (b->err.code == 0) {
            un_error_copy(&b->err, &err);
        }
        build_end(b);
        return;
    }
    if (d->hello_known) {
        load(b);
    } else { /* it says the rate of the time stamp counter, which must be the snapshot's */
        start_vm(b);
    }
}

static struct build *build_new(struct snapshots *all, const struct hv_run_spec *spec,
                               bool copy_image)
{
    struct build *b = calloc(1, sizeof(*b));
    if (!b) {
        return NULL;
    }
    b->all = all;
    b->file.fd = b->placement.fd = -1;
    b->spec = (struct hv_run_spec){.image = spec->image,
                                   .image_len = spec->image_len,
                                   .mem_bytes = spec->mem_bytes,
                                   .interface = spec->interface,
                                   .ask_first = spec->ask_first,
                                   .deadline_us = spec->deadline_us
                                                      ? spec->deadline_us
                                                      : LIMIT_SNAPSHOT_BUILD_MS * UINT64_C(1000)};
    snprintf(b->key, sizeof(b->key), "%s", spec->snapshot_key);
    un_timer_init(&b->timer, all->drv->loop, on_timer, b);
    b->begin_post = (struct un_post){.fn = on_begin, .arg = b};
    b->argv = strings_copy(spec->argv);
    b->envp = strings_copy(spec->envp);
    if (copy_image && (b->own_image = malloc(spec->image_len + 1))) {
        memcpy(b->own_image, spec->image, spec->image_len);
        b->spec.image = b->own_image;
    }
    if (!b->argv || !b->envp || (copy_image && !b->own_image)) {
        build_free(b);
        return NULL;
    }
    b->spec.argv = (const char *const *)b->argv;
    b->spec.envp = (const char *const *)b->envp;
    un_list_push(&all->builds, &b->node);
    un_loop_post(all->drv->loop, &b->begin_post);
    return b;
}

static struct build *find_build(struct snapshots *all, const char *key)
{
    un_list_for_each (it, &all->builds) {
        struct build *b = un_list_entry(it, struct build, node);
        if (strcmp(b->key, key) == 0) {
            return b;
        }
    }
    return NULL;
}

/* An answer that needs no build, or for which there is no memory: out of the function's own
 * time. */
struct refusal {
    struct un_post post;
    hv_prepare_cb *cb;
    void *arg;
    struct un_error err;
};

static void refuse_due(void *arg)
{
    struct refusal *r = arg;
    r->cb(r->arg, r->err.code, &r->err, NULL, 0, NULL);
    free(r);
}

static void refuse(struct snapshots *all, hv_prepare_cb *cb, void *arg, int code, const char *text)
{
    struct refusal *r = calloc(1, sizeof(*r));
    if (!r) {
        struct un_error err = {.code = -ENOMEM, .text = "out of memory"};
        cb(arg, -ENOMEM, &err, NULL, 0, NULL);
        return;
    }
    *r = (struct refusal){.post = {.fn = refuse_due, .arg = r}, .cb = cb, .arg = arg};
    un_error_set(&r->err, code, "%s", text);
    un_loop_post(all->drv->loop, &r->post);
}

void snapshot_prepare(struct hv_driver *drv, const struct hv_run_spec *spec, hv_prepare_cb *cb,
                      void *arg)
{
    struct snapshots *all = ((struct kvm_driver *)(void *)drv)->snapshots;
    if (!spec->snapshot_key || !snapshot_key_valid(spec->snapshot_key)) {
        refuse(all, cb, arg, -EINVAL, "malformed snapshot key");
        return;
    }
    struct waiter *w = calloc(1, sizeof(*w));
    struct build *b = find_build(all, spec->snapshot_key);
    b = !w || b ? b : build_new(all, spec, false);
    if (!w || !b) {
        free(w);
        refuse(all, cb, arg, -ENOMEM, "out of memory");
        return;
    }
    *w = (struct waiter){.next = b->waiters, .cb = cb, .arg = arg};
    b->waiters = w;
}

void snapshot_prepare_later(struct snapshots *all, const struct hv_run_spec *spec)
{
    if (!snapshot_failed_lately(all, spec->snapshot_key) && !find_build(all, spec->snapshot_key)) {
        (void)build_new(all, spec, true); /* without memory there is just no snapshot */
    }
}

void snapshots_cancel(struct snapshots *all)
{
    un_list_for_each_safe (it, &all->builds) {
        struct build *b = un_list_entry(it, struct build, node);
        if (b->state != BUILD_ENDED) {
            build_fail(b, -ECANCELED, "unid is stopping");
        }
    }
}

void snapshot_builds_free(struct snapshots *all)
{
    un_list_for_each_safe (it, &all->builds) {
        build_free(un_list_entry(it, struct build, node));
    }
}
