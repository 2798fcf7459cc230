/* check.c - unictl check: whether a program can run, before it is deployed.
 *
 * The daemon's report is the same that a deploy would have. With --run the program becomes a function
 * under a name that nobody else has, is called once, and is removed again, whatever happened.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/show.h"
#include "cli/table.h"
#include "cli/verbs/deploy.h"
#include "common/cleanup.h"

enum { RECEIPT_TRIES = 100, RECEIPT_STEP_NS = 50000000, RANDOM_BYTES = 8 };

/* --- the report ------------------------------------------------------------------------------- */

static void print_texts(struct un_buf *out, const char *label, const json_t *list)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        un_buf_printf(out, "%s: ", label);
        table_append_clean(out, json_string_value(one), false);
        un_buf_append_str(out, "\n");
    }
}

static void print_elfs(struct un_buf *out, const json_t *report)
{
    size_t i, k;
    json_t *elf, *site;
    json_array_foreach(json_object_get(report, "elf"), i, elf)
    {
        const char *error = api_str(elf, "error");
        un_buf_append_str(out, "  ");
        table_append_clean(out, api_str(elf, "path"), false);
        if (*error) {
            un_buf_append_str(out, ": not looked through: ");
            table_append_clean(out, error, false);
            un_buf_append_str(out, "\n");
            continue;
        }
        un_buf_printf(out, ": %llu found, %llu rewritten\n",
                      (unsigned long long)api_uint(elf, "sites"),
                      (unsigned long long)api_uint(elf, "rewritten"));
        json_array_foreach(json_object_get(elf, "problems"), k, site)
        {
            un_buf_printf(out, "    %s %s: %s\n", api_str(site, "address"), api_str(site, "kind"),
                          api_str(site, "reason"));
        }
    }
}

static void print_missing(struct un_buf *out, json_t *missing)
{
    const char *name;
    json_t *files;
    if (json_object_size(missing) == 0) {
        return;
    }
    un_buf_append_str(out, "calls known to be missing, where the program makes them:\n");
    json_object_foreach(missing, name, files)
    {
        size_t i;
        json_t *file;
        un_buf_printf(out, "  %s:", name);
        json_array_foreach(files, i, file)
        {
            un_buf_append_str(out, " ");
            table_append_clean(out, json_string_value(file), false);
        }
        un_buf_append_str(out, "\n");
    }
}

static void print_report(struct un_buf *out, const json_t *check)
{
    const json_t *report = json_object_get(check, "report");
    un_buf_printf(out, "kind: %s\n",
                  *api_str(report, "kind") ? api_str(report, "kind") : api_str(check, "kind"));
    if (json_is_object(report)) {
        size_t i;
        json_t *library;
        un_buf_append_str(out, "program: ");
        table_append_clean(out, api_str(report, "program"), false);
        un_buf_append_str(out, "\n");
        json_array_foreach(json_object_get(report, "libraries"), i, library)
        {
            un_buf_append_str(out, i == 0 ? "libraries: " : " ");
            table_append_clean(out, api_str(library, "name"), false);
        }
        un_buf_append_str(out, json_array_size(json_object_get(report, "libraries")) ? "\n" : "");
        un_buf_append_str(out, "system-call sites:\n");
        print_elfs(out, report);
        print_missing(out, json_object_get(report, "missing_calls"));
        print_texts(out, "warning", json_object_get(report, "warnings"));
        print_texts(out, "problem", json_object_get(report, "problems"));
        if (api_uint(report, "memory_mib")) {
            un_buf_printf(out, "memory: at least %llu MiB, by default %llu MiB\n",
                          (unsigned long long)api_uint(report, "memory_mib"),
                          (unsigned long long)api_uint(report, "memory_advised_mib"));
        }
    }
    bool runs = json_is_true(json_object_get(check, "runs"));
    un_buf_append_str(out, runs ? "it can run" : "it cannot run: ");
    if (!runs) {
        table_append_clean(out, api_str(check, "error"), false);
    }
    un_buf_append_str(out, "\n");
}

/* --- one run ---------------------------------------------------------------------------------- */

struct run {
    struct cli_call *call;
    char name[16 + 2 * RANDOM_BYTES];
    char id[64];
    long status;
    json_t *receipt;
    json_t *problem; /* what the daemon said of a program that failed; NULL */
};

static int call_once(struct run *r, struct un_error *err)
{
    const char *data = args_get(&r->call->args, "data");
    un_autofree char *path = api_path("/api/v1/functions/%s/invocations?mode=sync", r->name);
    un_autoclose int fd = -1;
    struct client_request req = {.method = "POST", .path = path};
    un_autoresponse struct client_response answer = {0};
    if (!path) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (data && (*data == '@' || strcmp(data, "-") == 0)) {
        bool from_stdin = strcmp(data, "-") == 0 || strcmp(data, "@-") == 0;
        fd = from_stdin ? dup(STDIN_FILENO) : open(data + 1, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return un_error_set(err, -errno, "cannot read %s: %s", data, strerror(errno));
        }
        req.has_fd = true;
        req.fd = fd;
        req.fd_size = -1;
    } else if (data) {
        req.data = data;
        req.data_len = strlen(data);
    }
    int rc = client_send(r->call->client, &req, &answer, err);
    un_autofree char *id = client_header(&answer, "X-Unid-Invocation-Id");
    r->status = answer.status;
    snprintf(r->id, sizeof(r->id), "%s", id ? id : "");
    if (answer.status >= 400) {
        (void)un_json_parse(answer.body.data, answer.body.len, &r->problem, NULL);
    }
    return rc == -ECONNRESET && answer.status ? 0 : rc;
}

/* Receipts are written a little later. */
static int find_receipt(struct run *r)
{
    un_autofree char *path = api_path("/api/v1/invocations/%s", r->id);
    for (int i = 0; path && i < RECEIPT_TRIES; i++) {
        struct client_request req = {
            .method = "GET", .path = path, .timeout_ms = CLIENT_CONTROL_MS};
        un_autoresponse struct client_response answer = {0};
        const struct timespec step = {.tv_nsec = RECEIPT_STEP_NS};
        if (client_send(r->call->client, &req, &answer, NULL) == 0 && answer.status == 200) {
            return un_json_parse(answer.body.data, answer.body.len, &r->receipt, NULL) == 0
                       ? CLI_DONE
                       : cli_fail(CLI_REFUSED, "the daemon's answer is no JSON");
        }
        nanosleep(&step, NULL);
    }
    return cli_fail(CLI_TIMED_OUT, "the daemon has written no receipt of the run");
}

static int run_function(struct run *r, const char *path, json_t *config)
{
    struct un_error err = UN_ERROR_INIT;
    un_autojson json_t *function = NULL, *removed = NULL;
    int status = api_call_problem(r->call, "PUT", path, config, &function, &r->problem);
    if (status != CLI_DONE) {
        return status;
    }
    int rc = call_once(r, &err);
    int gone = api_call(r->call, "DELETE", path, NULL, &removed);
    if (rc < 0) {
        return cli_fail(CLI_REFUSED, "the run: %s", err.text);
    }
    status = r->id[0] ? find_receipt(r)
                      : cli_fail(CLI_REFUSED, "the daemon did not run it (status %ld)", r->status);
    return status == CLI_DONE ? gone : status;
}

static int run_once(struct run *r, json_t *config)
{
    unsigned char random[RANDOM_BYTES];
    char hex[2 * RANDOM_BYTES + 1];
    un_autofree char *path = NULL;
    if (RAND_bytes(random, sizeof(random)) != 1) {
        return cli_fail(CLI_REFUSED, "no random bytes for the run's name");
    }
    un_hex_encode(random, sizeof(random), hex);
    snprintf(r->name, sizeof(r->name), "unictl-check-%s", hex);
    int status = api_function_path(r->call, r->name, "", &path);
    return status == CLI_DONE ? run_function(r, path, config) : status;
}

/* Those that are not there first. `said` is a receipt, or the problem of a program that failed before it
 * asked for a request, which knows of no more than its calls. */
static void print_calls(struct un_buf *out, const json_t *said)
{
    const json_t *missing = json_object_get(said, "unsupported");
    const json_t *made = json_object_get(said, "calls_made");
    uint64_t total = api_uint(said, "calls");
    size_t i;
    const json_t *call;
    un_buf_append_str(out, json_array_size(missing) ? "calls not there: "
                                                    : "every call it made is there");
    (void)show_calls(missing, false, out);
    json_array_foreach(made, i, call)
    {
        total += json_object_get(said, "calls") ? 0 : api_uint(call, "times");
    }
    un_buf_printf(out, "\ncalls made: %llu%s", (unsigned long long)total,
                  json_array_size(made) ? ": " : "");
    (void)show_calls(made, true, out);
    un_buf_append_str(out, "\n");
}

static void print_run(struct un_buf *out, const struct run *r)
{
    const json_t *said = r->receipt ? r->receipt : r->problem;
    const char *error = api_str(said, r->receipt ? "error" : "detail");
    const char *log_tail = api_str(r->problem, "log_tail");
    un_buf_printf(out, "run: %s", r->receipt ? api_str(said, "outcome") : "failed");
    if (*error) {
        un_buf_append_str(out, ": ");
        table_append_clean(out, error, false);
    }
    un_buf_append_str(out, "\n");
    if (json_is_array(json_object_get(said, "unsupported"))) {
        print_calls(out, said);
    }
    if (r->receipt) {
        un_buf_printf(out, "memory used at most: %llu KiB\n",
                      (unsigned long long)api_uint(said, "peak_rss_kib"));
    }
    if (r->receipt && *log_tail) { /* else it has been said on standard error */
        un_buf_append_str(out, "the end of its log:\n");
        table_append_clean(out, log_tail, true);
    }
}

/* --- the verb --------------------------------------------------------------------------------- */

static int show(struct cli_call *call, json_t *check, const struct gathered *g, const struct run *r)
{
    un_autobuf struct un_buf out = {0};
    if (call->json) {
        if (g->files) {
            json_object_set(check, "collected", g->files);
        }
        if (r->receipt) {
            json_object_set(check, "receipt", r->receipt);
        }
        if (r->problem) {
            json_object_set(check, "problem", r->problem);
        }
        return cli_print_json(check);
    }
    print_report(&out, check);
    if (r->receipt || r->problem) {
        print_run(&out, r);
    }
    return out.len ? cli_print(&out) : cli_fail_output(-ENOMEM);
}

int verb_check(struct cli_call *call)
{
    un_autojson json_t *config = json_object(), *check = NULL;
    un_autogathered struct gathered g = {0};
    un_autofree char *path = NULL;
    struct run r = {.call = call};
    const char *what = NULL;
    int status = config ? deploy_operand(call, 0, &what) : cli_fail_output(-ENOMEM);
    status = status == CLI_DONE ? deploy_read_config(call, config) : status;
    status = status == CLI_DONE ? deploy_find_image(call, what, config, &g) : status;
    if (status == CLI_DONE) {
        /* What was gathered here says itself which program it is of. */
        const char *program = g.files ? NULL : args_get(&call->args, "program");
        path = program ? api_path("/api/v1/images/%s/check?program=%s", api_str(config, "image"),
                                  program)
                       : api_path("/api/v1/images/%s/check", api_str(config, "image"));
        status = api_call(call, "POST", path, NULL, &check);
    }
    if (status != CLI_DONE) {
        return status;
    }
    bool runs = json_is_true(json_object_get(check, "runs"));
    if (runs && args_has(&call->args, "run")) {
        (void)json_object_set_new(config, "list_calls", json_true());
        status = run_once(&r, config);
    }
    int shown = show(call, check, &g, &r);
    json_decref(r.receipt);
    json_decref(r.problem);
    status = status == CLI_DONE ? shown : status;
    return status == CLI_DONE && !runs ? CLI_REFUSED : status;
}
