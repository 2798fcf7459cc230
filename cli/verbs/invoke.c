/* invoke.c - unictl invoke: streams a body to a function and its answer to standard output. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/show.h"
#include "common/cleanup.h"

enum { FIELDS_MAX = 100 /* as many as the daemon takes */ };

struct invoke {
    const struct cli_call *call;
    const char *fields[FIELDS_MAX + 1];
    struct client_request req;
    int fd;
    bool head_shown;
};

/* What goes with --async only, and what REST calls it. */
static const struct {
    const char *option, *key;
    enum { COUNT, TIME, TEXT } kind;
} async_options[] = {
    {"max-attempts", "max_attempts", COUNT},
    {"max-age", "max_age_ms", TIME},
    {"backoff", "backoff_ms", TIME},
    {"backoff-max", "backoff_max_ms", TIME},
    {"delay", "delay_ms", TIME},
    {"on-success", "on_success", TEXT},
    {"on-failure", "on_failure", TEXT},
};

/* Appends "&key=value" for each of them that is given; an exit status. */
static int add_async_options(const struct cli_call *call, struct un_buf *query)
{
    struct un_error err = UN_ERROR_INIT;
    for (size_t i = 0; i < UN_ARRAY_SIZE(async_options); i++) {
        const char *option = async_options[i].option, *key = async_options[i].key;
        const char *text = args_get(&call->args, option);
        un_autofree char *escaped = text ? client_escape(text) : NULL;
        uint64_t value = 0;
        int rc = 0;
        if (!text) {
            continue;
        }
        if (!args_has(&call->args, "async")) {
            return cli_usage(call, "--%s goes with --async", option);
        }
        if (async_options[i].kind == COUNT) {
            rc = args_count(text, 1, 1000, &value, &err);
        } else if (async_options[i].kind == TIME) {
            rc = args_duration(text, &value, &err);
        }
        if (rc < 0) {
            return cli_usage(call, "--%s: %s", option, err.text);
        }
        rc = async_options[i].kind == TEXT
                 ? un_buf_printf(query, "&%s=%s", key, escaped ? escaped : "")
                 : un_buf_printf(query, "&%s=%" PRIu64, key, value);
        if (rc < 0 || !escaped) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    return CLI_DONE;
}

/* "NAME[:QUALIFIER]" and the options to the path of the call. */
static int build_path(const struct cli_call *call, char **ret)
{
    const char *target = call->args.operands[0];
    size_t len = strcspn(target, ":");
    un_autofree char *name = strndup(target, len);
    un_autofree char *qualifier = target[len] ? client_escape(target + len + 1) : NULL;
    un_autobuf struct un_buf rest = {0};
    if (target[len] && !target[len + 1]) {
        return cli_usage(call, "'%s' has no version or alias behind its colon", target);
    }
    if (!name || (target[len] && !qualifier) ||
        un_buf_printf(&rest, "/invocations?mode=%s%s%s",
                      args_has(&call->args, "async") ? "async" : "sync",
                      qualifier ? "&qualifier=" : "", qualifier ? qualifier : "") < 0) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    int status = add_async_options(call, &rest);
    return status == CLI_DONE ? api_function_path(call, name, (const char *)rest.data, ret)
                              : status;
}

/* Field names are tokens (RFC 9110 section 5.6.2); what frames the message is not the user's to
 * set. */
static int read_headers(struct invoke *inv)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char *const ours[] = {"Content-Length", "Transfer-Encoding", "Connection",
                                       "Expect"};
    size_t at = 0, count = 0;
    for (const char *field; (field = args_next(&inv->call->args, "header", &at));) {
        size_t len = strspn(field, token);
        if (len == 0 || field[len] != ':' || strpbrk(field, "\r\n")) {
            return cli_usage(inv->call, "--header: '%s' is not K:V", field);
        }
        for (size_t i = 0; i < UN_ARRAY_SIZE(ours); i++) {
            if (strlen(ours[i]) == len && strncasecmp(field, ours[i], len) == 0) {
                return cli_usage(inv->call, "--header: unictl sets %s itself", ours[i]);
            }
        }
        if (count == FIELDS_MAX) {
            return cli_usage(inv->call, "--header: more than %d fields", FIELDS_MAX);
        }
        inv->fields[count++] = field;
    }
    inv->req.fields = inv->fields;
    return CLI_DONE;
}

static int read_data(struct invoke *inv)
{
    const char *data = args_get(&inv->call->args, "data");
    if (!data) {
        return CLI_DONE;
    }
    bool from_stdin = strcmp(data, "-") == 0 || strcmp(data, "@-") == 0;
    if (!from_stdin && *data != '@') {
        inv->req.data = data;
        inv->req.data_len = strlen(data);
        return CLI_DONE;
    }
    if (!from_stdin && !data[1]) {
        return cli_usage(inv->call, "--data: there is no file behind '@'");
    }
    if (!from_stdin) {
        inv->fd = open(data + 1, O_RDONLY | O_CLOEXEC);
    }
    int fd = from_stdin ? STDIN_FILENO : inv->fd;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return cli_fail(CLI_REFUSED, "cannot read %s: %s", data + 1, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        return cli_fail(CLI_REFUSED, "cannot read %s: it is a directory", data + 1);
    }
    off_t at = S_ISREG(st.st_mode) ? lseek(fd, 0, SEEK_CUR) : -1;
    inv->req.has_fd = true;
    inv->req.fd = fd;
    /* Files of /proc say they are empty; only a size above zero can be believed. */
    inv->req.fd_size = at >= 0 && st.st_size > at ? st.st_size - at : -1;
    return CLI_DONE;
}

static void show_head(struct invoke *inv, const struct client_response *r)
{
    un_autobuf struct un_buf plain = {0}, clean = {0};
    if (inv->head_shown || !args_has(&inv->call->args, "include") || !r->head.len) {
        return;
    }
    inv->head_shown = true;
    for (size_t i = 0; i < r->head.len; i++) {
        if (r->head.data[i] != '\r' && un_buf_append(&plain, &r->head.data[i], 1) < 0) {
            return;
        }
    }
    if (table_append_clean(&clean, (const char *)plain.data, true) == 0) {
        fputs((const char *)clean.data, stderr);
    }
}

static int on_data(void *arg, const struct client_response *r, const void *data, size_t len,
                   struct un_error *err)
{
    struct invoke *inv = arg;
    show_head(inv, r);
    int rc = cli_write(data, len, err);
    if (rc == 0 && fflush(stdout) != 0) {
        rc = un_error_errno(err, -errno, "write to standard output");
    }
    return rc;
}

/* The answer as one document; bytes that are not UTF-8 go into body_base64 instead of body. */
static int print_answer_json(const struct client_response *r)
{
    un_autofree char *id = client_header(r, "X-Unid-Invocation-Id");
    un_autofree char *timing = client_header(r, "Server-Timing");
    un_autofree char *type = client_header(r, "Content-Type");
    un_autojson json_t *doc =
        json_pack("{s:I,s:s*,s:s*,s:s*}", "status", (json_int_t)r->status, "invocation_id", id,
                  "server_timing", timing, "content_type", type);
    const char *bytes = r->body.len ? (const char *)r->body.data : "";
    un_autojson json_t *body = json_stringn(bytes, r->body.len);
    if (doc && body) {
        return json_object_set(doc, "body", body) < 0 ? cli_fail_output(-ENOMEM)
                                                      : cli_print_json(doc);
    }
    un_autofree char *text = malloc(r->body.len / 3 * 4 + 8);
    if (!doc || !text) {
        return cli_fail_output(-ENOMEM);
    }
    EVP_EncodeBlock((unsigned char *)text, r->body.data, (int)r->body.len);
    return json_object_set_new(doc, "body_base64", json_string(text)) < 0 ? cli_fail_output(-ENOMEM)
                                                                          : cli_print_json(doc);
}

static int show_accepted(const struct cli_call *call, const struct client_response *r)
{
    un_autojson json_t *doc = NULL;
    if (!r->body.len || un_json_parse(r->body.data, r->body.len, &doc, NULL) < 0) {
        return cli_fail(CLI_REFUSED, "the daemon's answer is no JSON");
    }
    show_missing(doc);
    if (call->json) {
        return cli_print_json(doc);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s\n", api_str(doc, "id"));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

static int conclude(struct invoke *inv, const struct client_response *r)
{
    show_head(inv, r);
    if (client_is_problem(r)) {
        return cli_fail_response(inv->call, r);
    }
    if (args_has(&inv->call->args, "async")) {
        return r->status == 202 ? show_accepted(inv->call, r) : cli_fail_response(inv->call, r);
    }
    int status = inv->call->json ? print_answer_json(r) : CLI_DONE;
    if (status == CLI_DONE && r->status >= 500) {
        return cli_fail(CLI_FUNCTION_FAILED, "the function answered %ld", r->status);
    }
    return status;
}

static int send_it(struct invoke *inv)
{
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    if (!inv->call->json && !args_has(&inv->call->args, "async")) {
        inv->req.on_data = on_data;
        inv->req.arg = inv;
    }
    int rc = client_send(inv->call->client, &inv->req, &r, &err);
    if (rc == -ECONNRESET && r.status) {
        un_autofree char *id = client_header(&r, "X-Unid-Invocation-Id");
        return cli_fail(CLI_FUNCTION_FAILED, "the function failed in the middle of its answer%s%s",
                        id ? ": see unictl receipt " : "", id ? id : "");
    }
    if (rc == -EPIPE) {
        return cli_fail_output(rc);
    }
    return rc < 0 ? cli_fail_send(inv->call, rc, &err) : conclude(inv, &r);
}

int verb_invoke(struct cli_call *call)
{
    struct invoke inv = {.call = call, .fd = -1, .req = {.method = "POST"}};
    un_autofree char *path = NULL;
    int status = build_path(call, &path);
    inv.req.path = path;
    status = status == CLI_DONE ? read_headers(&inv) : status;
    status = status == CLI_DONE ? read_data(&inv) : status;
    status = status == CLI_DONE ? send_it(&inv) : status;
    un_closep(&inv.fd);
    return status;
}
