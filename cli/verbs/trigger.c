/* trigger.c - unictl trigger add, ls, show, rm. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/show.h"
#include "common/cleanup.h"

enum { SECRET_MOST = 1024 };

/* --- add: from options to the JSON of PUT ----------------------------------------------------- */

static const char *opt(const struct cli_call *call, const char *name)
{
    return args_get(&call->args, name);
}

static void set_text(const struct cli_call *call, json_t *body, const char *option, const char *key)
{
    const char *text = opt(call, option);
    if (text) {
        json_object_set_new(body, key, json_string(text));
    }
}

/* A time like 30s; an exit status. */
static int set_ms(const struct cli_call *call, json_t *body, const char *option, const char *key)
{
    struct un_error err = UN_ERROR_INIT;
    uint64_t ms;
    const char *text = opt(call, option);
    if (!text) {
        return CLI_DONE;
    }
    if (args_duration(text, &ms, &err) < 0) {
        return cli_usage(call, "--%s: %s", option, err.text);
    }
    json_object_set_new(body, key, json_integer((json_int_t)ms));
    return CLI_DONE;
}

/* All values of a repeated option, each of which may be a list with commas. */
static void set_list(const struct cli_call *call, json_t *body, const char *option, const char *key)
{
    json_t *list = json_array();
    size_t at = 0;
    for (const char *value; (value = args_next(&call->args, option, &at));) {
        for (size_t len; *value; value += len + (value[len] == ',')) {
            len = strcspn(value, ",");
            json_array_append_new(list, json_stringn(value, len));
        }
    }
    if (json_array_size(list)) {
        json_object_set(body, key, list);
    }
    json_decref(list);
}

/* "text" exactly, "text*" as prefix, "*text" as suffix, "a*b" as both. */
static void set_filter(const struct cli_call *call, json_t *filter, const char *option)
{
    const char *text = opt(call, option), *star = text ? strchr(text, '*') : NULL;
    if (!text) {
        return;
    }
    if (!star) {
        json_object_set_new(filter, option, json_string(text));
        return;
    }
    json_t *match = json_object();
    if (star > text) {
        json_object_set_new(match, "prefix", json_stringn(text, (size_t)(star - text)));
    }
    if (star[1]) {
        json_object_set_new(match, "suffix", json_string(star + 1));
    }
    if (json_object_size(match)) { /* "*" alone: any, like no option */
        json_object_set(filter, option, match);
    }
    json_decref(match);
}

/* The first line of a file. An exit status. */
static int set_secret(const struct cli_call *call, json_t *body, const char *option,
                      const char *key)
{
    char text[SECRET_MOST];
    const char *path = opt(call, option);
    if (!path) {
        return CLI_DONE;
    }
    un_autoclose int fd =
        strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0) {
        return cli_fail(CLI_REFUSED, "%s: %s", path, strerror(errno));
    }
    text[n] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    json_object_set_new(body, key, json_string(text));
    explicit_bzero(text, sizeof(text));
    return CLI_DONE;
}

/* Credentials of the store: options, or as every S3 tool has them, the environment. */
static int set_credentials(const struct cli_call *call, json_t *body)
{
    const char *access = getenv("AWS_ACCESS_KEY_ID"), *secret = getenv("AWS_SECRET_ACCESS_KEY");
    if (opt(call, "access-key") || opt(call, "secret-key-file")) {
        set_text(call, body, "access-key", "access_key");
        return set_secret(call, body, "secret-key-file", "secret_key");
    }
    if (opt(call, "endpoint") && access && secret && *access && *secret) {
        json_object_set_new(body, "access_key", json_string(access));
        json_object_set_new(body, "secret_key", json_string(secret));
    }
    return CLI_DONE;
}

static int make_body(const struct cli_call *call, const char *type, json_t *body)
{
    static const char *const texts[][2] = {{"bucket", "bucket"},
                                           {"prefix", "prefix"},
                                           {"suffix", "suffix"},
                                           {"order", "order"},
                                           {"endpoint", "endpoint"},
                                           {"region", "region"},
                                           {"put", "put"},
                                           {"table", "table"},
                                           {"schedule", "schedule"},
                                           {"timezone", "timezone"},
                                           {"missed", "missed"},
                                           {"on-success", "on_success"},
                                           {"on-failure", "on_failure"},
                                           {"confirm-host", "confirm_host"}};
    json_object_set_new(body, "type", json_string(type));
    set_list(call, body, "function", "functions");
    set_list(call, body, "events", "events");
    for (size_t i = 0; i < UN_ARRAY_SIZE(texts); i++) {
        set_text(call, body, texts[i][0], texts[i][1]);
    }
    if (opt(call, "fetch")) {
        json_object_set_new(body, "fetch", json_true());
    }
    if (opt(call, "confirm")) {
        json_object_set_new(body, "confirm", json_true());
    }
    if (opt(call, "disabled")) {
        json_object_set_new(body, "enabled", json_false());
    }
    un_autojson json_t *filter = json_object();
    set_filter(call, filter, "type");
    set_filter(call, filter, "source");
    set_filter(call, filter, "subject");
    if (json_object_size(filter)) {
        json_object_set(body, "filter", filter);
    }
    if (opt(call, "max-attempts")) {
        struct un_error err = UN_ERROR_INIT;
        uint64_t n;
        if (args_count(opt(call, "max-attempts"), 1, 1000, &n, &err) < 0) {
            return cli_usage(call, "--max-attempts: %s", err.text);
        }
        json_object_set_new(body, "max_attempts", json_integer((json_int_t)n));
    }
    int status = set_ms(call, body, "max-age", "max_age_ms");
    status = status ? status : set_ms(call, body, "backoff", "backoff_ms");
    status = status ? status : set_ms(call, body, "backoff-max", "backoff_max_ms");
    status = status ? status : set_ms(call, body, "dedupe-window", "dedupe_window_ms");
    status = status ? status : set_secret(call, body, "trigger-token-file", "token");
    return status ? status : set_credentials(call, body);
}

/* --- add: what it tells ----------------------------------------------------------------------- */

static int tell_sender(const struct cli_call *call, const json_t *t, struct un_buf *out)
{
    const char *token = api_str(t, "token"), *type = api_str(t, "type");
    const char *plain = api_str(t, "url");
    if (!*plain) {
        const char *next = api_str(t, "next_at");
        return un_buf_printf(out, "Next:   %s\n", *next ? next : "never");
    }
    un_autofree char *url = client_function_url(call->client, plain);
    int rc = url ? un_buf_printf(out, "URL:    %s\n", url) : -ENOMEM;
    if (!*token) {
        return rc ? rc : un_buf_append_str(out, "Token:  as before\n");
    }
    rc = rc ? rc : un_buf_printf(out, "Token:  %s\n", token);
    if (rc == 0 && strcmp(type, "s3") == 0) {
        rc = un_buf_printf(out,
                           "\nThe token is not shown again. Stores give it in one of these ways:\n"
                           "  MinIO    endpoint=\"%s\" auth_token=\"%s\"\n"
                           "  Ceph     push-endpoint=%s?token=%s\n"
                           "  AWS SNS  https://unid:%s@HOST/events/s3/%s\n",
                           url, token, url, token, token, api_str(t, "name"));
    } else if (rc == 0) {
        rc = un_buf_printf(out,
                           "\nThe token is not shown again. With it, as \"Authorization: Bearer "
                           "%s\",\nwhat is sent goes to this trigger only.\n",
                           token);
    }
    return rc;
}

static int join(const json_t *list, struct un_buf *out)
{
    size_t at;
    const json_t *item;
    int rc = un_buf_append_str(out, "");
    json_array_foreach(list, at, item)
    {
        const char *text = json_string_value(item);
        rc = rc ? rc : un_buf_printf(out, "%s%s", at ? ", " : "", text ? text : "");
    }
    return rc;
}

int verb_trigger_add(struct cli_call *call)
{
    const char *type = call->args.operands[0], *name = call->args.operands[1];
    un_autojson json_t *body = json_object(), *trigger = NULL;
    un_autofree char *path = api_path("/api/v1/triggers/%s", name);
    if (!body) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    if (!opt(call, "function")) {
        return cli_usage(call, "--function is missing: which function is to run?");
    }
    int status = make_body(call, type, body);
    status = status == CLI_DONE ? api_call(call, "PUT", path, body, &trigger) : status;
    if (status == CLI_DONE) {
        show_missing(trigger);
    }
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(trigger);
    }
    un_autobuf struct un_buf out = {0}, functions = {0};
    int rc = join(json_object_get(trigger, "functions"), &functions);
    rc = rc ? rc
            : un_buf_printf(&out, "%s: %s -> %s\n", api_str(trigger, "name"),
                            api_str(trigger, "type"), (const char *)functions.data);
    rc = rc ? rc : tell_sender(call, trigger, &out);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* --- ls --------------------------------------------------------------------------------------- */

static const char *const trigger_heads[] = {"NAME",    "TYPE",      "FUNCTIONS", "WANTS",
                                            "ON",      ">ATTEMPTS", ">ACCEPTED", ">DUPLICATES",
                                            "MISSING", NULL};

/* What the table shows; next to the rest, as its text must live as long as the listing. */
#define FUNCTIONS_TEXT "functions_text"
#define WANTS_TEXT     "wants_text"
#define MISSING_TEXT   "missing_text"

static int describe_wants(const json_t *t, struct un_buf *out)
{
    static const char *const keys[] = {"bucket", "prefix",   "suffix",
                                       "table",  "schedule", "timezone"};
    int rc = un_buf_append_str(out, "");
    for (size_t i = 0; i < UN_ARRAY_SIZE(keys) && rc == 0; i++) {
        const char *text = api_str(t, keys[i]);
        rc = *text ? un_buf_printf(out, "%s%s=%s", out->len ? " " : "", keys[i], text) : 0;
    }
    json_t *filter = json_object_get(t, "filter"), *match;
    const char *key;
    json_object_foreach(filter, key, match)
    {
        rc = rc ? rc
                : un_buf_printf(out, "%s%s=%s%s%s%s", out->len ? " " : "", key,
                                api_str(match, "exact"), api_str(match, "prefix"),
                                *api_str(match, "exact") ? "" : "*", api_str(match, "suffix"));
    }
    un_autobuf struct un_buf events = {0};
    rc = rc ? rc : join(json_object_get(t, "events"), &events);
    return rc || !events.len
               ? rc
               : un_buf_printf(out, "%s%s", out->len ? " " : "", (const char *)events.data);
}

static int add_texts(json_t *trigger)
{
    un_autobuf struct un_buf functions = {0}, wants = {0}, missing = {0};
    int rc = join(json_object_get(trigger, "functions"), &functions);
    rc = rc ? rc : describe_wants(trigger, &wants);
    rc = rc ? rc : join(json_object_get(trigger, "missing"), &missing);
    if (rc == 0 &&
        (json_object_set_new(trigger, FUNCTIONS_TEXT, json_string((const char *)functions.data)) <
             0 ||
         json_object_set_new(trigger, WANTS_TEXT, json_string((const char *)wants.data)) < 0 ||
         json_object_set_new(trigger, MISSING_TEXT, json_string((const char *)missing.data)) < 0)) {
        rc = -ENOMEM;
    }
    return rc;
}

static void fill_trigger(const json_t *t, struct show_row *row)
{
    const json_t *counts = json_object_get(t, "counts");
    const char *wants = api_str(t, WANTS_TEXT);
    row->cell[0] = api_str(t, "name");
    row->cell[1] = api_str(t, "type");
    row->cell[2] = api_str(t, FUNCTIONS_TEXT);
    row->cell[3] = *wants ? wants : "everything";
    row->cell[4] = json_is_true(json_object_get(t, "enabled")) ? "yes" : "no";
    row->cell[5] = show_number(json_object_get(t, "retry"), "max_attempts", row->text[5]);
    row->cell[6] = show_number(counts, "accepted", row->text[6]);
    row->cell[7] = show_number(counts, "duplicates", row->text[7]);
    row->cell[8] = api_str(t, MISSING_TEXT);
}

int verb_trigger_ls(struct cli_call *call)
{
    un_autojson json_t *list = NULL;
    int status = api_list(call, "/api/v1/triggers", 0, &list);
    size_t at;
    json_t *trigger;
    int rc = 0;
    if (status == CLI_DONE && !call->json) {
        json_array_foreach(json_object_get(list, "items"), at, trigger)
        {
            rc = rc ? rc : add_texts(trigger);
        }
    }
    if (status != CLI_DONE || rc < 0) {
        return rc < 0 ? cli_fail_output(rc) : status;
    }
    return show_list(call, list, trigger_heads, fill_trigger);
}

/* --- show, rm --------------------------------------------------------------------------------- */

/* "key:  value", lists and objects as JSON. */
static int show_member(const char *key, const json_t *value, struct un_buf *out)
{
    un_autobuf struct un_buf clean = {0};
    un_autofree char *text = json_is_string(value) ? strdup(json_string_value(value))
                                                   : json_dumps(value, JSON_ENCODE_ANY);
    char label[32];
    snprintf(label, sizeof(label), "%s:", key);
    int rc = text ? table_append_clean(&clean, text, false) : -ENOMEM;
    return rc ? rc : un_buf_printf(out, "%-18s%s\n", label, (const char *)clean.data);
}

int verb_trigger_show(struct cli_call *call)
{
    un_autofree char *path = api_path("/api/v1/triggers/%s", call->args.operands[0]);
    un_autojson json_t *trigger = NULL;
    int status = api_call(call, "GET", path, NULL, &trigger);
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(trigger);
    }
    un_autobuf struct un_buf out = {0};
    const char *key;
    json_t *value;
    int rc = 0;
    json_object_foreach(trigger, key, value)
    {
        rc = rc ? rc : show_member(key, value, &out);
    }
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

static int trigger_path(const struct cli_call *call, const char *name, char **ret)
{
    *ret = api_path("/api/v1/triggers/%s", name); /* NULL: api_call reports it */
    return CLI_DONE;
}

int verb_trigger_rm(struct cli_call *call)
{
    return api_remove_each(call, trigger_path);
}
