/* api_sched_below.c - see api_below.h: the scheduler and its records. */
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

struct sched_call {
    int unused;
};
static struct sched_call the_call;
struct log_follower {
    int unused;
};
static struct log_follower the_follower;

/* --- calls, instances ------------------------------------------------------------------------- */

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

const char *sched_machine_flavor(const struct function_config *config,
                                 const struct image_mapping *image)
{
    return image ? "linux" : config->machine.flavor;
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
struct dialer *sched_dialer(struct scheduler *s)
{
    return NULL;
}

void dialer_on_internal(struct dialer *d, dial_serve_fn serve, void *arg)
{
}
