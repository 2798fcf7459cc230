/* logs.c - what functions have logged: the last lines, or a stream of them.
 *
 * A stream begins with the last lines and goes on with each new one. A line that is logged while
 * the last lines are being read could come twice or not at all; so new lines are collected from the
 * start, and what the reading has found already is left out of them. A client that reads too slowly
 * misses lines, and is told so in one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/reply.h"
#include "common/clock.h"
#include "common/json.h"
#include "scheduler/record/receipt.h"

enum { EARLY_BYTES = 256 * 1024 };

struct follow {
    struct un_list node; /* api->follows */
    struct api_call *call;
    struct log_follower *follower;
    struct un_buf early; /* lines that came while the last ones were read */
    bool streaming, blocked;
    unsigned missed;
};

static json_t *line_json(const struct log_line *line)
{
    const char *id = line->invocation_id[0] ? line->invocation_id : NULL;
    return json_pack("{s:o, s:s?, s:o}", "at", reply_time(line->at_us), "invocation_id", id, "text",
                     un_json_string(line->text));
}

/* One line of NDJSON; NULL when out of memory. */
static char *line_text(const struct log_line *line)
{
    un_autojson json_t *j = line_json(line);
    un_autofree char *text = un_json_text(j);
    char *out = NULL;
    return text && asprintf(&out, "%s\n", text) >= 0 ? out : NULL;
}

static void send_text(struct follow *f, const char *text, size_t len)
{
    if (len && !http_respond_data(f->call->ex, text, len)) {
        f->blocked = true;
    }
}

static void follow_free(struct follow *f)
{
    if (f->follower) {
        log_unfollow(f->follower);
    }
    un_list_remove(&f->node);
    un_buf_done(&f->early);
    if (f->call) {
        call_free(f->call);
    }
    free(f);
}

static void on_line(void *arg, const struct log_line *line)
{
    struct follow *f = arg;
    un_autofree char *text = line_text(line);
    if (!text) {
        return;
    }
    if (!f->streaming) {
        if (f->early.len > EARLY_BYTES || un_buf_append_str(&f->early, text) < 0) {
            f->missed++;
        }
    } else if (f->blocked) {
        f->missed++;
    } else {
        send_text(f, text, strlen(text));
    }
}

static void follow_writable(void *arg)
{
    struct follow *f = arg;
    f->blocked = false;
    if (f->missed) {
        char note[64];
        snprintf(note, sizeof(note), "[%u lines left out: the reader was too slow]", f->missed);
        struct log_line line = {.at_us = un_clock_wall_us(), .text = note};
        f->missed = 0;
        on_line(f, &line);
    }
}

static void follow_gone(void *arg)
{
    struct follow *f = arg;
    f->call->ex = NULL;
    if (f->streaming) {
        follow_free(f);
    } /* else follow_listed frees */
}

static const struct http_handler follow_handler = {.on_writable = follow_writable,
                                                   .on_gone = follow_gone};

/* Where in the early lines those begin that `last` has not told already. */
static size_t early_start(const struct follow *f, const char *last)
{
    size_t len = last ? strlen(last) : 0;
    for (size_t at = 0; len && at + len <= f->early.len;) {
        const char *line = (const char *)f->early.data + at;
        size_t line_len = (size_t)(strchr(line, '\n') - line) + 1;
        if (line_len == len && memcmp(line, last, len) == 0) {
            return at + len;
        }
        at += line_len;
    }
    return 0;
}

static void follow_listed(void *arg, int rc, const struct log_line *list, size_t count,
                          const struct un_error *err)
{
    struct follow *f = arg;
    un_autofree char *last = NULL;
    if (rc < 0) {
        struct api_call *call = un_steal(&f->call);
        follow_free(f);
        reply_error(call, rc, err);
        return;
    }
    if (!f->call->ex) {
        follow_free(f);
        return;
    }
    http_respond_field(f->call->ex, "Content-Type", "application/x-ndjson");
    http_respond_field(f->call->ex, "Cache-Control", "no-store");
    http_respond_begin(f->call->ex, 200, -1);
    for (size_t i = 0; i < count; i++) {
        free(last);
        last = line_text(&list[i]);
        send_text(f, last, last ? strlen(last) : 0);
    }
    size_t start = early_start(f, last);
    f->streaming = true;
    if (f->early.len > start) {
        send_text(f, (const char *)f->early.data + start, f->early.len - start);
    }
    un_buf_done(&f->early);
    bool head_only = strcmp(http_exchange_request(f->call->ex)->method, "HEAD") == 0;
    if (head_only || f->call->api->draining) {
        http_respond_end(un_steal(&f->call->ex));
        follow_free(f);
    }
}

static void follow_start(struct api_call *call)
{
    struct follow *f = calloc(1, sizeof(*f));
    if (!f) {
        reply_problem(call, 500, "no memory for the stream");
        return;
    }
    f->call = call;
    un_list_push(&call->api->follows, &f->node);
    f->follower = log_follow(call->api->scheduler, call->match.params[0], on_line, f);
    http_exchange_handle(call->ex, &follow_handler, f);
    http_exchange_leave_on_eof(call->ex);
    log_list(call->api->scheduler, call->match.params[0], call->number, follow_listed, f);
}

void rest_logs_drain(struct api *a)
{
    un_list_for_each_safe (it, &a->follows) {
        struct follow *f = un_list_entry(it, struct follow, node);
        if (f->streaming) {
            http_respond_end(un_steal(&f->call->ex));
            follow_free(f);
        }
    }
}

static void on_listed(void *arg, int rc, const struct log_line *list, size_t count,
                      const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, line_json(&list[i]));
    }
    reply_json(call, 200, reply_page(items, NULL));
}

/* The function exists. */
static void on_function(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct api_call *call = arg;
    (void)v;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    if (!call->ex) {
        call_free(call);
        return;
    }
    if (call->match.params[1][0]) {
        follow_start(call);
    } else {
        log_list(call->api->scheduler, call->match.params[0], call->number, on_listed, call);
    }
}

void rest_logs(struct api_call *call)
{
    char follow[8] = "0";
    if (!function_name_valid(call->match.params[0])) {
        reply_problem(call, 404, "no such function");
        return;
    }
    if (!call_page(call, &call->number, NULL, 0)) {
        return;
    }
    if (route_query(call->match.query, "follow", follow, sizeof(follow)) < 0 ||
        (strcmp(follow, "0") != 0 && strcmp(follow, "1") != 0)) {
        reply_problem(call, 400, "follow: must be 0 or 1");
        return;
    }
    call->match.params[1][0] = follow[0] == '1';
    function_resolve(call->api->registry, call->match.params[0], NULL, on_function, call);
}
