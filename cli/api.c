/* api.c - see api.h. */
#include "cli/api.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/table.h"
#include "common/cleanup.h"

enum { PAGE_ITEMS = 1000 /* LIMIT_PAGE_ITEMS of the daemon */, NAME_MAX_LEN = 63 };

static void say(const char *text, const char *hint)
{
    un_autobuf struct un_buf clean = {0};
    if (table_append_clean(&clean, text, true) == 0) {
        fprintf(stderr, "unictl: %s\n%s", (const char *)clean.data, hint);
    } else {
        fprintf(stderr, "unictl: out of memory\n");
    }
}

static void say_va(const char *hint, const char *fmt, va_list ap)
{
    un_autofree char *text = NULL;
    if (vasprintf(&text, fmt, ap) < 0) {
        text = NULL;
    }
    say(text ? text : "out of memory", hint);
}

int cli_fail(enum cli_exit exit, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say_va("", fmt, ap);
    va_end(ap);
    return exit;
}

void cli_warn(const char *fmt, ...)
{
    un_autofree char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) {
        text = NULL;
    }
    va_end(ap);
    cli_fail(CLI_DONE, "warning: %s", text ? text : "out of memory");
}

int cli_usage(const struct cli_call *call, const char *fmt, ...)
{
    char hint[64];
    snprintf(hint, sizeof(hint), "See: unictl %s --help\n", call->verb->name);
    va_list ap;
    va_start(ap, fmt);
    say_va(hint, fmt, ap);
    va_end(ap);
    return CLI_USAGE;
}

int cli_fail_send(const struct cli_call *call, int rc, const struct un_error *err)
{
    switch (rc) {
    case -ECONNREFUSED:
        return cli_fail(
            CLI_NO_DAEMON,
            "no daemon at %s (%s): start it with `unid`, or say where it is with --host",
            client_host(call->client), err->text);
    case -ECONNRESET:
        return cli_fail(CLI_NO_DAEMON,
                        "the daemon at %s broke off without an answer (%s): see its log, and try "
                        "again",
                        client_host(call->client), err->text);
    case -ETIMEDOUT:
        return cli_fail(CLI_TIMED_OUT, "the daemon at %s gave %s", client_host(call->client),
                        err->text);
    default:
        return cli_fail(CLI_REFUSED, "%s", err->text);
    }
}

enum cli_exit cli_exit_of_status(long status)
{
    return status == 504 ? CLI_TIMED_OUT : status == 502 ? CLI_FUNCTION_FAILED : CLI_REFUSED;
}

/* The exit's detail and the guest's last words below the first line. */
static void say_more(const json_t *problem)
{
    const json_t *exit = json_object_get(problem, "exit");
    const json_t *fault = json_object_get(exit, "fault");
    const char *log_tail = api_str(problem, "log_tail");
    un_autobuf struct un_buf out = {0};
    int rc = 0;
    if (json_is_object(fault)) {
        rc = un_buf_printf(&out, "  fault: %s at rip %s, address %s\n", api_str(fault, "name"),
                           api_str(fault, "rip"), api_str(fault, "address"));
    }
    if (rc == 0 && *log_tail) {
        bool ends = log_tail[strlen(log_tail) - 1] == '\n';
        rc = un_buf_printf(&out, "  the end of its log:\n%s%s", log_tail, ends ? "" : "\n");
    }
    const char *id = api_str(problem, "invocation_id");
    if (rc == 0 && *id) {
        rc = un_buf_printf(&out, "  more: unictl receipt %s\n", id);
    }
    un_autobuf struct un_buf clean = {0};
    if (rc == 0 && out.len && table_append_clean(&clean, (const char *)out.data, true) == 0) {
        fputs((const char *)clean.data, stderr);
    }
}

/* What to do about a status that people meet. */
static const char *advice(long status)
{
    switch (status) {
    case 401:
    case 403:
        return ": give the token with --token-file or UNID_TOKEN";
    case 507:
        return ": make room on the daemon's disk";
    default:
        return "";
    }
}

/* Gives the problem, if there is one. */
static int say_problem(const struct client_response *r, json_t **ret)
{
    enum cli_exit exit = cli_exit_of_status(r->status);
    un_autojson json_t *problem = NULL;
    if (!r->body.len || un_json_parse(r->body.data, r->body.len, &problem, NULL) < 0 ||
        !json_is_object(problem)) {
        return cli_fail(exit, "the daemon answered %ld%s", r->status, advice(r->status));
    }
    const char *title = api_str(problem, "title"), *detail = api_str(problem, "detail");
    un_autofree char *retry = client_header(r, "Retry-After");
    cli_fail(exit, "%s%s%s%s%s%s%s", *title ? title : "refused", *detail ? ": " : "", detail,
             advice(r->status), retry ? " (try again in " : "", retry ? retry : "",
             retry ? " s)" : "");
    say_more(problem);
    *ret = un_steal(&problem);
    return exit;
}

int cli_fail_response(const struct cli_call *call, const struct client_response *r)
{
    un_autojson json_t *problem = NULL;
    int exit = say_problem(r, &problem);
    if (problem && call->json) {
        cli_print_json(problem);
    }
    return exit;
}

int api_call(const struct cli_call *call, const char *method, const char *path, const json_t *body,
             json_t **ret)
{
    un_autojson json_t *problem = NULL;
    int exit = api_call_problem(call, method, path, body, ret, &problem);
    if (problem && call->json) {
        cli_print_json(problem);
    }
    return exit;
}

int api_call_problem(const struct cli_call *call, const char *method, const char *path,
                     const json_t *body, json_t **ret, json_t **ret_problem)
{
    static const char *const json_fields[] = {"Content-Type: application/json", NULL};
    un_autofree char *text = body ? un_json_text(body) : NULL;
    if (!path || (body && !text)) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    struct client_request req = {
        .method = method,
        .path = path,
        .fields = text ? json_fields : NULL,
        .data = text,
        .data_len = text ? strlen(text) : 0,
        .timeout_ms = CLIENT_CONTROL_MS,
    };
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc = client_send(call->client, &req, &r, &err);
    if (rc < 0) {
        return cli_fail_send(call, rc, &err);
    }
    if (r.status >= 300) {
        return say_problem(&r, ret_problem);
    }
    json_t *value = NULL;
    if (r.body.len) {
        rc = un_json_parse(r.body.data, r.body.len, &value, &err);
        if (rc < 0) {
            return cli_fail(CLI_REFUSED, "%s answered with something else than JSON: is that unid?",
                            client_host(call->client));
        }
    }
    *ret = value;
    return CLI_DONE;
}

int api_find(const struct cli_call *call, const char *path, json_t **ret)
{
    if (!path) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    struct client_request req = {.method = "GET", .path = path, .timeout_ms = CLIENT_CONTROL_MS};
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc = client_send(call->client, &req, &r, &err);
    if (rc < 0) {
        return cli_fail_send(call, rc, &err);
    }
    if (r.status == 404) {
        return CLI_DONE;
    }
    if (r.status != 200) {
        return cli_fail_response(call, &r);
    }
    if (un_json_parse(r.body.data, r.body.len, ret, &err) < 0) {
        return cli_fail(CLI_REFUSED, "the daemon's answer is no JSON: %s", err.text);
    }
    return CLI_DONE;
}

/* Moves the items of `page` behind those of `all`, no more than `limit`. */
static int take_items(json_t *all, const json_t *page, uint64_t limit)
{
    json_t *items = json_object_get(all, "items");
    json_t *more = json_object_get(page, "items");
    size_t index;
    json_t *item;
    json_array_foreach(more, index, item)
    {
        if (limit && json_array_size(items) >= limit) {
            break;
        }
        if (json_array_append(items, item) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

int api_list(const struct cli_call *call, const char *path, uint64_t limit, json_t **ret)
{
    un_autojson json_t *all = json_pack("{s:[],s:n}", "items", "next");
    un_autofree char *cursor = NULL;
    uint64_t page_items = limit && limit < PAGE_ITEMS ? limit : PAGE_ITEMS;
    for (;;) {
        un_autofree char *page_path = NULL;
        un_autofree char *after = cursor ? client_escape(cursor) : NULL;
        if (!path || !all || (cursor && !after) ||
            asprintf(&page_path, "%s%climit=%" PRIu64 "%s%s", path, strchr(path, '?') ? '&' : '?',
                     page_items, after ? "&cursor=" : "", after ? after : "") < 0) {
            page_path = NULL;
            return cli_fail(CLI_REFUSED, "out of memory");
        }
        un_autojson json_t *page = NULL;
        int status = api_call(call, "GET", page_path, NULL, &page);
        if (status != CLI_DONE) {
            return status;
        }
        size_t got = json_array_size(json_object_get(page, "items"));
        if (take_items(all, page, limit) < 0) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
        const char *next = api_str(page, "next");
        size_t have = json_array_size(json_object_get(all, "items"));
        if (!*next || !got || (limit && have >= limit)) {
            json_object_set(all, "next", json_object_get(page, "next"));
            *ret = un_steal(&all);
            return CLI_DONE;
        }
        free(cursor);
        cursor = strdup(next);
        if (!cursor) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
}

char *api_path(const char *fmt, ...)
{
    un_autobuf struct un_buf out = {0};
    va_list ap;
    va_start(ap, fmt);
    int rc = 0;
    while (*fmt && rc == 0) {
        size_t plain = strcspn(fmt, "%");
        rc = un_buf_append(&out, fmt, plain);
        fmt += plain;
        if (*fmt == '%') {
            un_autofree char *escaped = client_escape(va_arg(ap, const char *));
            rc = !escaped ? -ENOMEM : rc ? rc : un_buf_append_str(&out, escaped);
            fmt += 2;
        }
    }
    va_end(ap);
    return rc == 0 ? un_buf_steal_str(&out) : NULL;
}

/* The names of DESIGN's DNS label, so that a typing error is not sent as a path. */
static bool is_name(const char *s)
{
    size_t len = strlen(s);
    return len >= 1 && len <= NAME_MAX_LEN && *s >= 'a' && *s <= 'z' && s[len - 1] != '-' &&
           strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

int api_function_path(const struct cli_call *call, const char *name, const char *rest, char **ret)
{
    if (!is_name(name)) {
        return cli_usage(call,
                         "'%s' is no function name: 1 to 63 of a-z, 0-9 and '-', beginning with a "
                         "letter, not ending with '-'",
                         name);
    }
    if (asprintf(ret, "/api/v1/functions/%s%s", name, rest) < 0) {
        *ret = NULL;
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    return CLI_DONE;
}

int cli_write(const void *data, size_t len, struct un_error *err)
{
    if (len && fwrite(data, 1, len, stdout) != len) {
        return un_error_errno(err, -errno, "write to standard output");
    }
    return 0;
}

int cli_fail_output(int rc)
{
    if (rc == -EPIPE) {
        return CLI_REFUSED; /* whoever read has seen enough, as with `| head` */
    }
    return cli_fail(CLI_REFUSED, "%s: %s",
                    rc == -ENOMEM ? "cannot show the answer" : "cannot write to standard output",
                    strerror(-rc));
}

int cli_print(const struct un_buf *text)
{
    int rc = cli_write(text->data, text->len, NULL);
    return rc < 0 ? cli_fail_output(rc) : CLI_DONE;
}

int api_remove_each(const struct cli_call *call,
                    int (*find)(const struct cli_call *call, const char *name, char **ret))
{
    un_autojson json_t *removed = json_pack("{s:[]}", "removed");
    int worst = removed ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
    for (size_t i = 0; removed && i < call->args.operand_count; i++) {
        const char *name = call->args.operands[i];
        un_autofree char *path = NULL;
        un_autojson json_t *answer = NULL;
        int status = find(call, name, &path);
        status = status == CLI_DONE ? api_call(call, "DELETE", path, NULL, &answer) : status;
        if (status == CLI_DONE) {
            json_array_append_new(json_object_get(removed, "removed"), json_string(name));
            if (!call->json) {
                printf("%s\n", name);
            }
        }
        worst = worst == CLI_DONE ? status : worst;
    }
    if (call->json && json_array_size(json_object_get(removed, "removed")) > 0) {
        int status = cli_print_json(removed);
        worst = worst == CLI_DONE ? status : worst;
    }
    return worst;
}

int cli_print_json(const json_t *value)
{
    un_autofree char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (!text) {
        return cli_fail_output(-ENOMEM);
    }
    int rc = cli_write(text, strlen(text), NULL);
    rc = rc ? rc : cli_write("\n", 1, NULL);
    return rc < 0 ? cli_fail_output(rc) : CLI_DONE;
}

const char *api_str(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));
    return s ? s : "";
}

uint64_t api_uint(const json_t *obj, const char *key)
{
    const json_t *n = json_object_get(obj, key);
    return json_is_integer(n) && json_integer_value(n) > 0 ? (uint64_t)json_integer_value(n) : 0;
}
