/* watch.c - unictl watch, replay: what happens, and what has failed once more. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/table.h"
#include "common/cleanup.h"
#include "common/id.h"

enum { EVENT_MAX = 1 << 20 /* a longer event is a broken stream */ };

/* --- watch ------------------------------------------------------------------------------------ */

struct watching {
    const struct cli_call *call;
    struct un_buf pending;
};

/* The members of an event that a line for people shows, in this order. */
static const char *const shown[] = {"function", "alias",        "trigger", "digest", "tag", "id",
                                    "state",    "trigger_name", "outcome", "error",  NULL};

static int print_event(const struct watching *w, const char *kind, const json_t *data)
{
    un_autobuf struct un_buf out = {0};
    int rc;
    if (strcmp(kind, "open") == 0) {
        return 0;
    }
    if (w->call->json) {
        un_autojson json_t *all = json_pack("{s:s}", "kind", kind);
        json_object_update(all, (json_t *)data);
        un_autofree char *text = un_json_text(all);
        rc = text ? un_buf_printf(&out, "%s\n", text) : -ENOMEM;
        return rc ? rc : cli_write(out.data, out.len, NULL);
    }
    if (strcmp(kind, "overflow") == 0) {
        const json_t *missed = json_object_get(data, "missed");
        rc = json_is_integer(missed)
                 ? un_buf_printf(&out, "[%" JSON_INTEGER_FORMAT " events were missed]\n",
                                 json_integer_value(missed))
                 : un_buf_append_str(&out, "[events were missed]\n");
        return rc ? rc : cli_write(out.data, out.len, NULL);
    }
    rc = un_buf_printf(&out, "%s  %-10s %-9s", api_str(data, "at"), kind, api_str(data, "change"));
    for (size_t i = 0; shown[i] && rc == 0; i++) {
        const char *text = api_str(data, shown[i]);
        bool known = strcmp(shown[i], "trigger") == 0 && strcmp(kind, "trigger") != 0;
        if (*text && !known) {
            rc = un_buf_append_str(&out, " ");
            rc = rc ? rc : table_append_clean(&out, text, false);
        }
        if (rc == 0 && strcmp(shown[i], "function") == 0 && api_uint(data, "version")) {
            rc = un_buf_printf(&out, ":%" PRIu64, api_uint(data, "version"));
        }
    }
    if (rc == 0 && api_uint(data, "status")) {
        rc = un_buf_printf(&out, " (%" PRIu64 ")", api_uint(data, "status"));
    }
    if (rc == 0 && api_uint(data, "count")) {
        rc = un_buf_printf(&out, " count %" PRIu64, api_uint(data, "count"));
    }
    rc = rc ? rc : un_buf_append_str(&out, "\n");
    return rc ? rc : cli_write(out.data, out.len, NULL);
}

/* One event's lines, without the empty one behind it. */
static int take_event(const struct watching *w, char *text, struct un_error *err)
{
    const char *kind = "", *data = NULL;
    char *line;
    un_autojson json_t *j = NULL;
    while ((line = strsep(&text, "\n")) != NULL) {
        if (strncmp(line, "event: ", 7) == 0) {
            kind = line + 7;
        } else if (strncmp(line, "data: ", 6) == 0) {
            data = line + 6;
        } /* id, retry and comments are not for us */
    }
    if (!data) {
        return 0;
    }
    if (un_json_parse(data, strlen(data), &j, err) < 0 || !json_is_object(j)) {
        return un_error_set(err, -EPROTO, "the daemon's stream of events is malformed");
    }
    int rc = print_event(w, kind, j);
    return rc < 0 ? un_error_set(err, rc, "cannot write to standard output: %s", strerror(-rc)) : 0;
}

static int on_watch_data(void *arg, const struct client_response *r, const void *data, size_t len,
                         struct un_error *err)
{
    struct watching *w = arg;
    uint8_t *end;
    if (un_buf_append(&w->pending, data, len) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    while ((end = memmem(w->pending.data, w->pending.len, "\n\n", 2)) != NULL) {
        *end = '\0';
        int rc = take_event(w, (char *)w->pending.data, err);
        if (rc < 0) {
            return rc;
        }
        un_buf_consume(&w->pending, (size_t)(end - w->pending.data) + 2);
    }
    if (fflush(stdout) != 0) {
        return un_error_set(err, -errno, "cannot write to standard output: %s", strerror(errno));
    }
    return w->pending.len > EVENT_MAX ? un_error_set(err, -EPROTO, "an event without an end") : 0;
}

int verb_watch(struct cli_call *call)
{
    const char *kinds = args_get(&call->args, "kinds");
    struct watching w = {.call = call};
    un_autofree char *path =
        kinds ? api_path("/api/v1/watch?kinds=%s", kinds) : strdup("/api/v1/watch");
    struct client_request req = {
        .method = "GET", .path = path, .on_data = on_watch_data, .arg = &w};
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    if (!path) {
        return cli_fail_output(-ENOMEM);
    }
    int rc = client_send(call->client, &req, &r, &err);
    un_buf_done(&w.pending);
    if (rc == -EPIPE) {
        return cli_fail_output(rc);
    }
    if (rc < 0) {
        return cli_fail_send(call, rc, &err);
    }
    return r.status >= 300 ? cli_fail_response(call, &r) : CLI_DONE;
}

/* --- replay ----------------------------------------------------------------------------------- */

static int clean_line(struct un_buf *out, const char *label, const char *text)
{
    int rc = un_buf_printf(out, "%-13s", label);
    rc = rc ? rc : table_append_clean(out, text, false);
    return rc ? rc : un_buf_append_str(out, "\n");
}

static int add_answer(struct un_buf *out, const char *label, const json_t *a)
{
    const json_t *body = json_object_get(a, "body");
    char text[512];
    snprintf(text, sizeof(text), "%" PRIu64 " %s, %" PRIu64 " bytes%s%.280s", api_uint(a, "status"),
             api_str(a, "outcome"), api_uint(body, "size"), *api_str(a, "error") ? ": " : "",
             api_str(a, "error"));
    return clean_line(out, label, text);
}

static const char *value_of(const json_t *header, const char *key)
{
    const json_t *v = json_object_get(header, key);
    return json_is_string(v) ? json_string_value(v) : "(none)";
}

static int add_diff(struct un_buf *out, const json_t *r)
{
    const json_t *diff = json_object_get(r, "diff"), *header;
    const json_t *body = json_object_get(diff, "body");
    size_t i;
    int rc = 0;
    if (json_is_true(json_object_get(diff, "same"))) {
        return un_buf_append_str(out, "The answers are the same.\n");
    }
    json_array_foreach(json_object_get(diff, "headers"), i, header)
    {
        char text[1024];
        snprintf(text, sizeof(text), "%.100s: %.400s -> %.400s", api_str(header, "name"),
                 value_of(header, "before"), value_of(header, "after"));
        rc = rc ? rc : clean_line(out, "Header:", text);
    }
    if (rc || strcmp(api_str(body, "kind"), "same") == 0) {
        return rc ? rc : un_buf_append_str(out, "The bodies are the same.\n");
    }
    if (strcmp(api_str(body, "kind"), "text") == 0) {
        rc = un_buf_append_str(out, "--- before\n+++ after\n");
        return rc ? rc : table_append_clean(out, api_str(body, "diff"), true);
    }
    const json_t *before = json_object_get(json_object_get(r, "before"), "body");
    const json_t *after = json_object_get(json_object_get(r, "after"), "body");
    rc = un_buf_printf(out, "Bodies:      %" PRIu64 " bytes, sha256 %s\n", api_uint(before, "size"),
                       *api_str(before, "sha256") ? api_str(before, "sha256") : "not known");
    return rc ? rc
              : un_buf_printf(out, "             %" PRIu64 " bytes, sha256 %s\n",
                              api_uint(after, "size"), api_str(after, "sha256"));
}

static int replay_text(struct un_buf *out, const json_t *r)
{
    char text[256];
    int rc = clean_line(out, "Invocation:", api_str(r, "id"));
    snprintf(text, sizeof(text), "%s version %" PRIu64, api_str(r, "function"),
             api_uint(r, "version"));
    rc = rc ? rc : clean_line(out, "Function:", text);
    rc = rc ? rc : add_answer(out, "Before:", json_object_get(r, "before"));
    rc = rc ? rc : add_answer(out, "After:", json_object_get(r, "after"));
    return rc ? rc : add_diff(out, r);
}

int verb_replay(struct cli_call *call)
{
    const char *id = call->args.operands[0], *version = args_get(&call->args, "version");
    un_autojson json_t *answer = NULL;
    if (!un_id_valid(id)) {
        return cli_usage(call, "'%s' is no invocation's id: see unictl receipts --status failed",
                         id);
    }
    un_autofree char *path = version
                                 ? api_path("/api/v1/invocations/%s/replay?version=%s", id, version)
                                 : api_path("/api/v1/invocations/%s/replay", id);
    int status = api_call(call, "POST", path, NULL, &answer);
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(answer);
    }
    un_autobuf struct un_buf out = {0};
    int rc = replay_text(&out, answer);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}
