/* api_below.c - see api_below.h. */
#include "tests/unit/api_below.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "scheduler/egress/dial.h"
#include "scheduler/record/metrics.h"
#include "scheduler/record/news.h"
#include "scheduler/record/replay.h"

struct below below;

struct sched_call {
    int unused;
};
static struct sched_call the_call;
struct image_upload {
    struct un_post post;
};
static struct image_upload the_upload;
struct image_reader {
    struct un_post post;
    const struct image_read_events *events;
    void *arg;
    unsigned step;
};
static struct image_reader the_reader;
struct log_follower {
    int unused;
};
static struct log_follower the_follower;

static struct image_info the_image = {
    .digest = BELOW_DIGEST, .kind = IMAGE_SDK, .size_bytes = 11, .created_us = 1000000};
static char *const no_args[] = {(char *)"--x", NULL}, *const some_env[] = {(char *)"A=b=c", NULL};
static struct function_version versions[3];

void below_open(struct un_loop *loop)
{
    memset(&below, 0, sizeof(below));
    below.loop = loop;
    below.body_room = 1;
    below.live = 3;
    for (unsigned i = 0; i < 3; i++) {
        versions[i] =
            (struct function_version){.name = "hello", .version = 3 - i, .kind = IMAGE_SDK};
        versions[i].config.args = (char **)no_args;
        versions[i].config.env = (char **)some_env;
        memcpy(versions[i].config.image, BELOW_DIGEST, IMAGE_DIGEST_SIZE);
    }
}

void below_close(void)
{
    un_buf_done(&below.body);
    un_buf_done(&below.pushed);
}

/* --- answering later -------------------------------------------------------------------------- */

struct later {
    struct un_post post;
    void (*go)(struct later *l);
    void (*cb)(void);
    void *arg;
    int rc;
    struct un_error err;
    unsigned number;
};

static void later_run(void *arg)
{
    struct later *l = arg;
    l->go(l);
    free(l);
}

static struct later *later(void (*go)(struct later *l), void (*cb)(void), void *arg, int rc)
{
    struct later *l = calloc(1, sizeof(*l));
    l->go = go;
    l->cb = cb;
    l->arg = arg;
    l->rc = rc;
    un_error_set(&l->err, rc, rc == -ENOENT ? "no such thing" : "it went wrong");
    l->post.fn = later_run;
    l->post.arg = l;
    un_loop_post(below.loop, &l->post);
    return l;
}
#define CB(l, type) ((type)(l)->cb)

static void go_done(struct later *l)
{
    CB(l, function_done_cb)(l->arg, l->rc, &l->err);
}

/* --- images ----------------------------------------------------------------------------------- */

const char *image_kind_name(enum image_kind kind)
{
    return kind == IMAGE_SDK ? "sdk" : kind == IMAGE_LINUX_ROOTFS ? "linux-rootfs" : "disk";
}

bool image_digest_valid(const char *s)
{
    return strlen(s) == 71 && strncmp(s, "sha256:", 7) == 0 &&
           strspn(s + 7, "0123456789abcdef") == 64;
}

static void go_info(struct later *l)
{
    struct image_info info = the_image;
    info.kind = below.kind;
    CB(l, image_info_cb)(l->arg, l->rc, &info, &l->err);
}

void image_get(struct imagestore *is, const char *ref, image_info_cb cb, void *arg)
{
    bool known = strcmp(ref, BELOW_DIGEST) == 0 || strcmp(ref, "my/tag:1") == 0;
    (void)is;
    later(go_info, (void (*)(void))cb, arg, known ? 0 : -ENOENT);
}

static void go_images(struct later *l)
{
    CB(l, image_list_cb)(l->arg, 0, &the_image, 1, NULL);
}

static const char report[] = "{\"problems\": [\"no libx.so\"]}";
static struct image_mapping mapping = {.data = (const uint8_t *)"x",
                                       .size = 1,
                                       .digest = BELOW_DIGEST,
                                       .kind = IMAGE_LINUX_ROOTFS,
                                       .report = report,
                                       .report_size = sizeof(report) - 1};

static void go_open(struct later *l)
{
    below.mappings += l->rc == 0;
    CB(l, image_open_cb)(l->arg, l->rc, l->rc == 0 ? &mapping : NULL, &l->err);
}

/* --- volumes ------------------------------------------------------------------------------------ */

static const struct volume_info the_volume = {
    .name = "data", .format = "raw", .size_bytes = 1 << 20, .used_by = "hello"};

static void go_volume(struct later *l)
{
    CB(l, volume_info_cb)(l->arg, l->rc, &the_volume, l->number, &l->err);
}

void volume_create(struct imagestore *is, const struct volume_spec *spec, volume_info_cb cb,
                   void *arg)
{
    (void)is;
    later(go_volume, (void (*)(void))cb, arg, strcmp(spec->name, "full") == 0 ? -ENOSPC : 0)
        ->number = strcmp(spec->name, "data") != 0;
}

void volume_get(struct imagestore *is, const char *name, volume_info_cb cb, void *arg)
{
    (void)is;
    later(go_volume, (void (*)(void))cb, arg, strcmp(name, "data") == 0 ? 0 : -ENOENT);
}

static void go_volumes(struct later *l)
{
    CB(l, volume_list_cb)(l->arg, 0, &the_volume, 1, &l->err);
}

void volume_list(struct imagestore *is, volume_list_cb cb, void *arg)
{
    (void)is;
    later(go_volumes, (void (*)(void))cb, arg, 0);
}

void volume_remove(struct imagestore *is, const char *name, image_done_cb cb, void *arg)
{
    (void)is;
    later(go_done, (void (*)(void))cb, arg,
          strcmp(name, "data") == 0  ? -EBUSY
          : strcmp(name, "old") == 0 ? 0
                                     : -ENOENT);
}

void image_open(struct imagestore *is, const char *digest, image_open_cb cb, void *arg)
{
    (void)is;
    (void)digest;
    later(go_open, (void (*)(void))cb, arg, below.open_rc);
}

void image_unref(struct image_mapping *m)
{
    (void)m;
    below.mappings--;
}

const char *image_failure_report(struct imagestore *is, const char *digest)
{
    (void)is;
    return below.open_rc && strcmp(digest, BELOW_DIGEST) == 0 ? report : NULL;
}

int function_settle_image(struct function_config *c, const struct image_mapping *image,
                          struct un_error *err)
{
    (void)c;
    (void)image;
    return below.settle_rc ? un_error_set(err, below.settle_rc, "memory_mib: too little") : 0;
}

void image_list(struct imagestore *is, image_list_cb cb, void *arg)
{
    (void)is;
    later(go_images, (void (*)(void))cb, arg, 0);
}

void image_remove(struct imagestore *is, const char *digest, image_done_cb cb, void *arg)
{
    (void)is;
    later(go_done, (void (*)(void))cb, arg, strcmp(digest, BELOW_DIGEST) == 0 ? -EBUSY : -ENOENT);
}

void image_tag(struct imagestore *is, const char *tag, const char *digest, image_done_cb cb,
               void *arg)
{
    (void)is;
    snprintf(below.tag, sizeof(below.tag), "%s=%s", tag, digest);
    later(go_done, (void (*)(void))cb, arg, strcmp(digest, BELOW_DIGEST) == 0 ? 0 : -ENOENT);
}

void image_untag(struct imagestore *is, const char *tag, image_done_cb cb, void *arg)
{
    (void)is;
    later(go_done, (void (*)(void))cb, arg, strcmp(tag, "my/tag:1") == 0 ? 0 : -ENOENT);
}

static void go_tags(struct later *l)
{
    static const struct image_tag_info tags[] = {{"my/tag:1", BELOW_DIGEST}, {"z", BELOW_DIGEST}};
    CB(l, image_tags_cb)(l->arg, l->rc, l->rc == 0 ? tags : NULL, l->rc == 0 ? 2 : 0, &l->err);
}

void image_tag_list(struct imagestore *is, const char *digest, image_tags_cb cb, void *arg)
{
    (void)is;
    (void)digest;
    later(go_tags, (void (*)(void))cb, arg, below.tags_rc);
}

int image_upload_start(struct imagestore *is, const struct image_upload_spec *spec,
                       struct image_upload **ret, struct un_error *err)
{
    (void)is;
    (void)err;
    below.push_events = spec->events;
    below.push_arg = spec->arg;
    snprintf(below.declared_digest, sizeof(below.declared_digest), "%s",
             spec->declared_digest ? spec->declared_digest : "");
    *ret = &the_upload;
    return 0;
}

int image_upload_data(struct image_upload *up, const void *data, size_t len)
{
    (void)up;
    un_buf_append(&below.pushed, data, len);
    return !below.push_holds;
}

static void upload_done(void *arg)
{
    struct un_error err = {.code = below.push_rc, .text = "not an image"};
    (void)arg;
    below.push_events->on_done(below.push_arg, below.push_rc, &the_image, true, &err);
}

void image_upload_finish(struct image_upload *up)
{
    up->post = (struct un_post){.fn = upload_done};
    un_loop_post(below.loop, &up->post);
}

void image_upload_abort(struct image_upload *up)
{
    (void)up;
    below.aborts++;
}

static void reader_step(void *arg)
{
    struct image_reader *r = arg;
    if (r->step++ == 0) {
        r->events->on_data(r->arg, "hello ", 6);
    } else if (r->step == 2) {
        r->events->on_data(r->arg, "world", 5);
    } else {
        r->events->on_end(r->arg, 0, NULL);
    }
}

int image_read_start(struct imagestore *is, const char *digest,
                     const struct image_read_events *events, void *arg, struct image_reader **ret,
                     struct un_error *err)
{
    (void)is;
    (void)digest;
    (void)err;
    the_reader = (struct image_reader){.events = events, .arg = arg};
    the_reader.post = (struct un_post){.fn = reader_step, .arg = &the_reader};
    un_loop_post(below.loop, &the_reader.post);
    *ret = &the_reader;
    return 0;
}

void image_read_next(struct image_reader *r)
{
    un_loop_post(below.loop, &r->post);
}

void image_read_abort(struct image_reader *r)
{
    un_loop_unpost(below.loop, &r->post);
    below.aborts++;
}

/* --- functions -------------------------------------------------------------------------------- */

const char *function_interface_name(enum function_interface i)
{
    return i == FUNCTION_FILTER ? "filter" : "sdk";
}

const char *function_driver_name(enum function_driver d)
{
    return d == FUNCTION_AUTO ? "auto" : "kvm";
}

const char *function_snapshot_name(enum function_snapshot s)
{
    return s == FUNCTION_SNAPSHOT_START ? "start" : "ready";
}

const char *function_isolation_name(enum function_isolation i)
{
    return i == FUNCTION_VM ? "vm" : "reset";
}

bool function_name_valid(const char *name)
{
    return *name && !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")];
}

bool function_alias_valid(const char *alias)
{
    return function_name_valid(alias);
}

int function_settle_interface(struct function_config *c, enum image_kind kind, struct un_error *err)
{
    c->interface = FUNCTION_SDK;
    return 0;
}

void function_config_done(struct function_config *c)
{
    (void)c;
}

int function_config_parse(const void *json, size_t len, struct function_config *ret,
                          struct un_error *err)
{
    snprintf(below.deployed, sizeof(below.deployed), "%.*s", (int)len, (const char *)json);
    memset(ret, 0, sizeof(*ret));
    return strstr(below.deployed, "bogus") ? un_error_set(err, -EINVAL, "bogus: unknown key") : 0;
}

static void go_version(struct later *l)
{
    CB(l, function_version_cb)(l->arg, l->rc, &versions[l->number], &l->err);
}

static void go_deployed(struct later *l)
{
    CB(l, function_deploy_cb)(l->arg, l->rc, &versions[0], true, &l->err);
}

void function_deploy(struct registry *r, const char *name, struct function_config *config,
                     function_deploy_cb cb, void *arg)
{
    (void)r;
    (void)name;
    (void)config;
    below.deploys++;
    later(go_deployed, (void (*)(void))cb, arg, 0);
}

void function_resolve(struct registry *r, const char *name, const char *qualifier,
                      function_version_cb cb, void *arg)
{
    uint32_t version = qualifier ? (uint32_t)atoi(qualifier) : below.live;
    bool known = strcmp(name, "hello") == 0 && version >= 1 && version <= 3;
    (void)r;
    later(go_version, (void (*)(void))cb, arg, known ? 0 : -ENOENT)->number =
        known ? 3 - version : 0;
}

static void go_versions(struct later *l)
{
    struct function_version *list[] = {&versions[0], &versions[1], &versions[2]};
    CB(l, function_list_cb)(l->arg, l->rc, list, l->number, &l->err);
}

void function_list(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                   void *arg)
{
    (void)r;
    later(go_versions, (void (*)(void))cb, arg, 0)->number = after ? 0 : limit < 1 ? limit : 1;
}

void function_versions(struct registry *r, const char *name, function_list_cb cb, void *arg)
{
    (void)r;
    later(go_versions, (void (*)(void))cb, arg, strcmp(name, "hello") ? -ENOENT : 0)->number = 3;
}

static void go_aliases(struct later *l)
{
    struct function_alias live = {.alias = "live", .version = below.live};
    CB(l, function_aliases_cb)(l->arg, l->rc, &live, 1, &l->err);
}

void function_aliases(struct registry *r, const char *name, function_aliases_cb cb, void *arg)
{
    (void)r;
    later(go_aliases, (void (*)(void))cb, arg, strcmp(name, "hello") ? -ENOENT : 0);
}

void function_remove_alias(struct registry *r, const char *name, const char *alias,
                           function_done_cb cb, void *arg)
{
    bool known = strcmp(name, "hello") == 0 && strcmp(alias, "stable") == 0;
    (void)r;
    later(go_done, (void (*)(void))cb, arg, known ? 0 : -ENOENT);
}

void function_set_alias(struct registry *r, const char *name, const char *alias, uint32_t version,
                        function_done_cb cb, void *arg)
{
    bool known = strcmp(name, "hello") == 0 && version <= 3;
    (void)r;
    if (known && strcmp(alias, "live") == 0) {
        below.live = version;
    }
    later(go_done, (void (*)(void))cb, arg, known ? 0 : -ENOENT);
}

void function_remove(struct registry *r, const char *name, function_done_cb cb, void *arg)
{
    (void)r;
    later(go_done, (void (*)(void))cb, arg, strcmp(name, "hello") ? -ENOENT : 0);
}

/* --- the scheduler ---------------------------------------------------------------------------- */

const char *hv_exit_name(enum hv_exit_kind kind)
{
    return kind == HV_EXIT_FAULT ? "fault" : "done";
}

const char *instance_state_name(enum instance_state s)
{
    return s == INSTANCE_IDLE ? "idle" : "running";
}

const char *sched_trigger_name(enum sched_trigger t)
{
    return t == SCHED_HTTP ? "http" : "invoke";
}

bool sched_outcome_known(const char *name)
{
    return strcmp(name, "ok") == 0 || strcmp(name, "failed") == 0;
}

const char *sched_outcome_name(enum sched_outcome_kind k)
{
    return k == SCHED_OK ? "ok" : k == SCHED_FAILED ? "failed" : "other";
}

unsigned sched_outcome_status(enum sched_outcome_kind k)
{
    static const unsigned statuses[] = {200, 404, 429, 429, 413, 411, 502,
                                        502, 504, 503, 503, 502, 421, 500};
    return statuses[k];
}

int sched_check_config(const struct scheduler *s, const struct function_config *config,
                       struct un_error *err)
{
    return 0;
}

json_t *machine_config_to_json(const struct machine_config *m)
{
    return json_object();
}

int sched_can_run(const struct scheduler *s, enum image_kind kind, struct un_error *err)
{
    return kind == IMAGE_SDK || kind == IMAGE_LINUX_ROOTFS
               ? 0
               : un_error_set(err, -ENOTSUP, "link it with the guest SDK");
}

int sched_call_start(struct scheduler *s, const struct sched_call_spec *spec,
                     struct sched_call **ret, struct un_error *err)
{
    size_t len = 0;
    (void)s;
    if (strcmp(spec->target, "/too-big") == 0) {
        return un_error_set(err, -E2BIG, "the request head is too large for a guest");
    }
    below.starts++;
    below.call = *ret = &the_call;
    below.events = spec->events;
    below.call_arg = spec->arg;
    below.trigger = spec->trigger;
    below.content_length = spec->content_length;
    snprintf(below.function, sizeof(below.function), "%s", spec->function);
    snprintf(below.qualifier, sizeof(below.qualifier), "%s",
             spec->qualifier ? spec->qualifier : "");
    snprintf(below.method, sizeof(below.method), "%s", spec->method);
    snprintf(below.target, sizeof(below.target), "%s", spec->target);
    snprintf(below.id, sizeof(below.id), "%s", spec->id);
    below.fields[0] = '\0';
    for (size_t i = 0; i < spec->field_count; i++) {
        len += (size_t)snprintf(below.fields + len, sizeof(below.fields) - len, "%s: %s\n",
                                spec->fields[i].name, spec->fields[i].value);
    }
    un_buf_reset(&below.body);
    below.body_eof = false;
    return 0;
}

int sched_call_body(struct sched_call *c, const void *data, size_t len, bool eof)
{
    (void)c;
    un_buf_append(&below.body, data, len);
    below.body_eof = eof;
    return below.body_room;
}

void sched_call_data_done(struct sched_call *c)
{
    (void)c;
    below.data_dones++;
}

void sched_call_cancel(struct sched_call *c)
{
    (void)c;
    below.cancels++;
    below.call = NULL;
}

void below_respond(unsigned status, const char *field, const char *data, bool last)
{
    static const struct sched_phases phases = {.queue_us = 12, .bind_us = 1000, .start_us = 500};
    struct hv_field f = {.name = "X-Guest", .value = field};
    struct hv_field length = {.name = "Content-Length", .value = field};
    struct sched_response r = {
        .head = {.status = status, .field_count = field ? 1 : 0, .fields = &f},
        .phases = &phases,
        .data = data,
        .len = strlen(data),
        .last = last};
    if (field && *field >= '0' && *field <= '9') {
        r.head.fields = &length;
    }
    below.events->on_response(below.call_arg, &r);
}

void below_data(const char *data, size_t len, bool last)
{
    below.events->on_data(below.call_arg, data, len, last);
}

void below_end(const struct sched_outcome *outcome)
{
    below.call = NULL;
    below.events->on_end(below.call_arg, outcome);
}

/* Told at once, as only an error may be; nothing here depends on when. */
void sched_prepare(struct scheduler *s, const char *name, const struct function_config *config,
                   sched_prepare_cb *cb, void *arg)
{
    (void)s;
    (void)name;
    (void)config;
    if (below.prepare_rc) {
        struct un_error err = UN_ERROR_INIT;
        un_error_set(&err, below.prepare_rc, "the program ended before it asked for a request");
        static const struct unid_report counted = {
            .unsupported_count = 1, .unsupported = {{57, 2}}, .made = {[57] = 2}};
        cb(arg, below.prepare_rc, &err, "last words\n", &counted);
    } else {
        cb(arg, 0, NULL, NULL, NULL);
    }
}

void sched_instances(struct scheduler *s,
                     void (*fn)(void *arg, const struct sched_instance_info *info), void *arg)
{
    struct sched_instance_info shell = {
        .state = INSTANCE_IDLE, .state_name = "idle", .driver = "fake", .mem_mib = 16};
    struct sched_instance_info busy = {.state = INSTANCE_RUNNING,
                                       .state_name = "running",
                                       .driver = "fake",
                                       .function = "hello",
                                       .version = 2};
    (void)s;
    strcpy(shell.id, BELOW_ID);
    fn(arg, &shell);
    fn(arg, &busy);
}

int sched_instance_kill(struct scheduler *s, const char *id, struct un_error *err)
{
    (void)s;
    if (strcmp(id, BELOW_ID) != 0) {
        return un_error_set(err, -ENOENT, "no such instance");
    }
    below.killed++;
    return 0;
}

void sched_get_stats(struct scheduler *s, struct sched_stats *ret)
{
    (void)s;
    memset(ret, 0, sizeof(*ret));
    ret->calls_by_outcome[SCHED_OK] = 7;
}

const struct sched_metrics *sched_get_metrics(const struct scheduler *s)
{
    static struct sched_metrics metrics = {.function_count = 1};

    return &metrics;
}

const char *metrics_phase_name(enum metrics_phase p)
{
    return "run";
}

uint64_t metrics_bucket_us(unsigned i)
{
    return 100ull << i;
}

int sched_check_reserved(const struct scheduler *s, const char *name,
                         const struct function_config *config, struct un_error *err)
{
    return 0;
}

void sched_observe(struct scheduler *s, sched_news_cb *cb, void *arg)
{
    below.observer = cb;
    below.observer_arg = arg;
}

bool replay_answer_whole(const struct replay_answer *a)
{
    return a->total == a->body.len;
}

static void go_replay(struct later *l)
{
    static const struct replay_answer before = {.status = 502, .outcome = "failed"},
                                      after = {.status = 200, .outcome = "ok"};
    const struct replay_result r = {
        .id = BELOW_ID, .function = "hello", .version = 3, .before = &before, .after = &after};

    CB(l, replay_cb)(l->arg, l->rc, l->rc ? NULL : &r, &l->err);
}

void sched_replay(struct scheduler *s, const char *id, const char *qualifier, replay_cb cb,
                  void *arg)
{
    later(go_replay, (void (*)(void))cb, arg, strcmp(id, BELOW_ID) ? -ENOENT : 0);
}

int store_check_room(struct store *s, uint64_t bytes, struct un_error *err)
{
    return 0;
}

void store_get_stats(struct store *s, struct store_stats *ret)
{
    (void)s;
    memset(ret, 0, sizeof(*ret));
}

/* --- receipts, async, logs -------------------------------------------------------------------- */

static void go_receipts(struct later *l)
{
    struct receipt r = {.function = "hello",
                        .version = 3,
                        .status = 502,
                        .attempt = 1,
                        .outcome = "failed",
                        .error = "exit status 3",
                        .phases = {.run_us = 9}};
    strcpy(r.id, BELOW_ID);
    CB(l, receipt_list_cb)(l->arg, l->rc, &r, l->rc ? 0 : 1, &l->err);
}

void receipt_list(struct scheduler *s, const struct receipt_query *query, receipt_list_cb cb,
                  void *arg)
{
    (void)s;
    (void)query;
    later(go_receipts, (void (*)(void))cb, arg, 0);
}

void receipt_get(struct scheduler *s, const char *id, receipt_list_cb cb, void *arg)
{
    (void)s;
    later(go_receipts, (void (*)(void))cb, arg, strcmp(id, BELOW_ID) ? -ENOENT : 0);
}

static void go_pending(struct later *l)
{
    CB(l, async_pending_cb)(l->arg, l->rc == 0);
}

void async_pending(struct scheduler *s, const char *id, async_pending_cb cb, void *arg)
{
    (void)s;
    later(go_pending, (void (*)(void))cb, arg, id[25] == 'B' ? 0 : -ENOENT);
}

static void go_accepted(struct later *l)
{
    struct async_accepted one = {.result = ASYNC_ACCEPTED, .id = BELOW_ID};
    CB(l, async_accept_cb)(l->arg, l->rc, &one, l->rc ? 0 : 1, &l->err);
}

void async_submit(struct scheduler *s, const struct async_spec *spec, async_accept_cb cb, void *arg)
{
    (void)s;
    snprintf(below.async_body, sizeof(below.async_body), "%.*s", (int)spec->body_len,
             (const char *)spec->body);
    snprintf(below.async_type, sizeof(below.async_type), "%s",
             spec->content_type ? spec->content_type : "");
    later(go_accepted, (void (*)(void))cb, arg, strcmp(spec->function, "hello") ? -ENOENT : 0);
}

uint64_t async_now_us(const struct scheduler *s)
{
    (void)s;
    return 1000000;
}

void async_get_stats(const struct scheduler *s, struct async_stats *ret)
{
    (void)s;
    *ret = (struct async_stats){.waiting = 7, .dead = 2};
}

static void go_deadletters(struct later *l)
{
    struct deadletter d = {.id = BELOW_ID,
                           .function = "hello",
                           .trigger = "thumbs",
                           .reason = "5 attempts failed",
                           .outcome = "failed",
                           .attempts = 5,
                           .fields = "X-A: b\r\nX-C: d\r\n",
                           .body = l->arg ? "\xff\xfe" : NULL,
                           .body_len = 2};
    CB(l, deadletter_list_cb)(l->arg, l->rc, &d, l->rc ? 0 : 1, &l->err);
}

void deadletter_list(struct scheduler *s, const struct deadletter_query *query,
                     deadletter_list_cb cb, void *arg)
{
    (void)s;
    (void)query;
    later(go_deadletters, (void (*)(void))cb, arg, 0);
}

void deadletter_get(struct scheduler *s, const char *id, deadletter_list_cb cb, void *arg)
{
    (void)s;
    later(go_deadletters, (void (*)(void))cb, arg, strcmp(id, BELOW_ID) ? -ENOENT : 0);
}

static void go_changed(struct later *l)
{
    CB(l, deadletter_cb)(l->arg, l->rc, 1, &l->err);
}

void deadletter_redrive(struct scheduler *s, const char *id, deadletter_cb cb, void *arg)
{
    (void)s;
    later(go_changed, (void (*)(void))cb, arg, strcmp(id, BELOW_ID) ? -ENOENT : 0);
}

void deadletter_redrive_all(struct scheduler *s, const struct deadletter_query *query,
                            deadletter_cb cb, void *arg)
{
    (void)s;
    (void)query;
    later(go_changed, (void (*)(void))cb, arg, 0);
}

void deadletter_remove(struct scheduler *s, const char *id, deadletter_cb cb, void *arg)
{
    (void)s;
    later(go_changed, (void (*)(void))cb, arg, strcmp(id, BELOW_ID) ? -ENOENT : 0);
}

void deadletter_remove_all(struct scheduler *s, const struct deadletter_query *query,
                           deadletter_cb cb, void *arg)
{
    deadletter_redrive_all(s, query, cb, arg);
}

static void go_log(struct later *l)
{
    struct log_line lines[] = {{.at_us = 1, .text = "one"}, {.at_us = 2, .text = "two"}};
    CB(l, log_list_cb)(l->arg, 0, lines, 2, NULL);
}

void log_list(struct scheduler *s, const char *function, unsigned limit, log_list_cb cb, void *arg)
{
    (void)s;
    (void)function;
    (void)limit;
    later(go_log, (void (*)(void))cb, arg, 0);
}

struct log_follower *log_follow(struct scheduler *s, const char *function,
                                void (*fn)(void *arg, const struct log_line *line), void *arg)
{
    /* The second of the listed lines, and one more, come while the list is being read. */
    struct log_line two = {.at_us = 2, .text = "two"}, three = {.at_us = 3, .text = "three"};
    (void)s;
    (void)function;
    below.log_fn = fn;
    below.log_arg = arg;
    below.followers++;
    fn(arg, &two);
    fn(arg, &three);
    return &the_follower;
}

void log_unfollow(struct log_follower *f)
{
    (void)f;
    below.followers--;
}

/* --- published ports and private names -------------------------------------------------------- */

struct function_version *function_peek(struct registry *r, const char *name, const char *qualifier)
{
    return NULL;
}

void function_list_published(struct registry *r, const char *after, unsigned limit,
                             function_list_cb cb, void *arg)
{
    cb(arg, 0, NULL, 0, NULL);
}

void registry_on_change(struct registry *r, registry_change_fn fn, void *arg)
{
}

void registry_off_change(struct registry *r, registry_change_fn fn, void *arg)
{
}

struct dialer *sched_dialer(struct scheduler *s)
{
    return NULL;
}

void dialer_on_internal(struct dialer *d, dial_serve_fn serve, void *arg)
{
}
