/* deploy.c - unictl deploy: push what is not there yet, then make a version of the function.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/push.h"
#include "cli/table.h"
#include "cli/verbs/deploy.h"
#include "common/cleanup.h"

enum { MIB = 1 << 20, MEMORY_MIB_MAX = 65536, TIMEOUT_MS_MAX = 900000, CONCURRENCY_MAX = 10000 };

static int set_new(json_t *obj, const char *key, json_t *value)
{
    return json_object_set_new(obj, key, value) < 0 ? cli_fail(CLI_REFUSED, "out of memory")
                                                    : CLI_DONE;
}

static int read_memory(const struct cli_call *call, json_t *config)
{
    const char *text = args_get(&call->args, "memory");
    uint64_t bytes = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return CLI_DONE;
    }
    if (args_size(text, &bytes, &err) < 0) {
        return cli_usage(call, "--memory: %s", err.text);
    }
    if (bytes % MIB || bytes < 2 * (uint64_t)MIB || bytes / MIB > MEMORY_MIB_MAX) {
        return cli_usage(call, "--memory: '%s' is not a whole number of MiB from 2M to 64G", text);
    }
    return set_new(config, "memory_mib", json_integer((json_int_t)(bytes / MIB)));
}

static int read_timeout(const struct cli_call *call, json_t *config)
{
    const char *text = args_get(&call->args, "timeout");
    uint64_t ms = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return CLI_DONE;
    }
    if (args_duration(text, &ms, &err) < 0) {
        return cli_usage(call, "--timeout: %s", err.text);
    }
    if (ms < 1 || ms > TIMEOUT_MS_MAX) {
        return cli_usage(call, "--timeout: '%s' is not from 1ms to 15m", text);
    }
    return set_new(config, "timeout_ms", json_integer((json_int_t)ms));
}

static int read_reserved(const struct cli_call *call, json_t *config)
{
    const char *text = args_get(&call->args, "reserved");
    uint64_t n = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return CLI_DONE;
    }
    if (args_count(text, 0, CONCURRENCY_MAX, &n, &err) < 0) {
        return cli_usage(call, "--reserved: %s", err.text);
    }
    return set_new(config, "reserved_concurrency", json_integer((json_int_t)n));
}

static int read_concurrency(const struct cli_call *call, json_t *config)
{
    const char *text = args_get(&call->args, "concurrency");
    uint64_t n = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return CLI_DONE;
    }
    if (args_count(text, 1, CONCURRENCY_MAX, &n, &err) < 0) {
        return cli_usage(call, "--concurrency: %s", err.text);
    }
    return set_new(config, "concurrency", json_integer((json_int_t)n));
}

/* An option whose value is one of the words, which are separated by ", ". */
static int read_word(const struct cli_call *call, const char *option, const char *words,
                     json_t *config)
{
    const char *text = args_get(&call->args, option);
    size_t len = text ? strlen(text) : 0;
    if (!text) {
        return CLI_DONE;
    }
    for (const char *word = words; *word; word += strspn(word, ", ")) {
        size_t word_len = strcspn(word, ",");
        if (word_len == len && memcmp(word, text, len) == 0) {
            return set_new(config, option, json_string(text));
        }
        word += word_len;
    }
    return cli_usage(call, "--%s: '%s' is none of %s", option, text, words);
}

static int read_words(const struct cli_call *call, json_t *config)
{
    int status = read_word(call, "interface", "filter, cgi, http, sdk, tcp", config);
    status =
        status == CLI_DONE ? read_word(call, "driver", "auto, kvm, libvirt, fake", config) : status;
    status = status == CLI_DONE ? read_word(call, "isolation", "vm, reset", config) : status;
    return status == CLI_DONE ? read_word(call, "snapshot", "ready, start", config) : status;
}

static int read_env(const struct cli_call *call, json_t *config)
{
    json_t *env = json_object();
    int status = set_new(config, "env", env);
    size_t at = 0;
    for (const char *pair; status == CLI_DONE && (pair = args_next(&call->args, "env", &at));) {
        const char *equals = strchr(pair, '=');
        if (!equals || equals == pair) {
            return cli_usage(call, "--env: '%s' is not K=V", pair);
        }
        un_autofree char *key = strndup(pair, (size_t)(equals - pair));
        json_t *value = json_string(equals + 1);
        if (key && !value) {
            return cli_usage(call, "--env: the value of %s is not UTF-8", key);
        }
        status = key ? set_new(env, key, value) : cli_fail(CLI_REFUSED, "out of memory");
    }
    return status;
}

/* The values of an option that may be repeated, as a list. The daemon reads them further. */
static int read_list(const struct cli_call *call, const char *option, const char *shape,
                     json_t *config)
{
    json_t *list;
    int status;
    size_t at = 0;
    if (!args_has(&call->args, option)) {
        return CLI_DONE;
    }
    list = json_array();
    status = set_new(config, option, list);
    for (const char *text;
         status == CLI_DONE && (text = args_next(&call->args, option, &at)) != NULL;) {
        /* An address is optional where the shape says so. */
        json_t *word = strchr(text, ':') || shape[0] == '[' ? json_string(text) : NULL;
        if (!word) {
            return cli_usage(call, "--%s: '%s' is not %s", option, text, shape);
        }
        if (json_array_append_new(list, word) < 0) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    return status;
}

static int read_egress(const struct cli_call *call, json_t *config)
{
    return read_list(call, "egress", "HOST:PORT", config);
}

static int read_publish(const struct cli_call *call, json_t *config)
{
    size_t at = 0;
    for (const char *text; (text = args_next(&call->args, "publish", &at)) != NULL;) {
        size_t digits = strspn(text, "0123456789");
        if (digits && text[digits] == ':') {
            return cli_usage(call,
                             "--publish: '%s': it takes [ADDR:]PORT, of unid's side only: "
                             "--publish %.*s; which port the machine serves is said with --port %s",
                             text, (int)digits, text, text + digits + 1);
        }
    }
    return read_list(call, "publish", "[ADDR:]PORT", config);
}

static int read_args(const struct cli_call *call, json_t *config)
{
    json_t *args = json_array();
    int status = set_new(config, "args", args);
    for (size_t i = 0; status == CLI_DONE && i < call->args.rest_count; i++) {
        json_t *word = json_string(call->args.rest[i]);
        if (!word) {
            return cli_usage(call, "argument %zu behind -- is not UTF-8", i + 1);
        }
        if (json_array_append_new(args, word) < 0) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    return status;
}

static int read_count(const struct cli_call *call, const char *option, const char *key,
                      uint64_t least, uint64_t most, json_t *machine)
{
    const char *text = args_get(&call->args, option);
    uint64_t n = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return CLI_DONE;
    }
    if (args_count(text, least, most, &n, &err) < 0) {
        return cli_usage(call, "--%s: %s", option, err.text);
    }
    return set_new(machine, key, json_integer((json_int_t)n));
}

static int read_time(const struct cli_call *call, const char *option, const char *key,
                     json_t *machine)
{
    const char *text = args_get(&call->args, option);
    uint64_t ms = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return CLI_DONE;
    }
    if (args_duration(text, &ms, &err) < 0) {
        return cli_usage(call, "--%s: %s", option, err.text);
    }
    return set_new(machine, key, json_integer((json_int_t)ms));
}

static int read_text(const struct cli_call *call, const char *option, const char *key,
                     json_t *machine)
{
    const char *text = args_get(&call->args, option);
    json_t *value = text ? json_string(text) : NULL;
    if (text && !value) {
        return cli_usage(call, "--%s: is not UTF-8", option);
    }
    return text ? set_new(machine, key, value) : CLI_DONE;
}

static int read_workdir(const struct cli_call *call, json_t *config)
{
    const char *dir = args_get(&call->args, "workdir");
    if (dir && dir[0] != '/') {
        return cli_usage(call, "--workdir: '%s' is no absolute path", dir);
    }
    return read_text(call, "workdir", "workdir", config);
}

static int read_volumes(const struct cli_call *call, json_t *machine)
{
    json_t *list;
    int status;
    size_t at = 0;
    if (!args_has(&call->args, "volume")) {
        return CLI_DONE;
    }
    if (!args_has(&call->args, "service")) {
        return cli_usage(call,
                         "--volume: one machine at a time can write to a disk; add --service");
    }
    list = json_array();
    status = set_new(machine, "volumes", list);
    for (const char *name;
         status == CLI_DONE && (name = args_next(&call->args, "volume", &at)) != NULL;) {
        if (json_array_append_new(list, json_string(name)) < 0) {
            return cli_usage(call, "--volume: '%s' is no volume's name", name);
        }
    }
    return status;
}

/* The images that a kernel gets besides; files of this machine are pushed. */
static int push_further(const struct cli_call *call, json_t *config)
{
    static const char *const options[] = {"initrd", "disk"};
    json_t *machine = json_object_get(config, "machine");
    for (size_t i = 0; i < UN_ARRAY_SIZE(options); i++) {
        const char *what = args_get(&call->args, options[i]);
        char digest[PUSH_DIGEST_SIZE];
        int status = what ? push_named(call, what, digest) : CLI_DONE;
        if (what && status == CLI_DONE) {
            status = set_new(machine, options[i], json_string(digest));
        }
        if (status != CLI_DONE) {
            return status;
        }
    }
    return CLI_DONE;
}

/* Any of these options makes it a machine image. */
static int read_machine(const struct cli_call *call, json_t *config)
{
    const char *append = args_get(&call->args, "append");
    json_t *machine = json_object();
    int status = machine ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
    if (status == CLI_DONE && append) {
        status = set_new(machine, "append", json_string(append));
    }
    status =
        status == CLI_DONE
            ? read_word(call, "flavor",
                        "plain, pc, q35, firecracker, unikraft, unikraft-fc, solo5, osv, rumprun, "
                        "nanos, linux, linux-pc",
                        machine)
            : status;
    status = status == CLI_DONE ? read_count(call, "port", "port", 1, UINT16_MAX, machine) : status;
    status = status == CLI_DONE
                 ? read_count(call, "min-instances", "min_instances", 0, CONCURRENCY_MAX, machine)
                 : status;
    status = status == CLI_DONE
                 ? read_count(call, "max-instances", "max_instances", 1, CONCURRENCY_MAX, machine)
                 : status;
    status =
        status == CLI_DONE ? read_time(call, "idle-timeout", "idle_timeout_ms", machine) : status;
    status =
        status == CLI_DONE ? read_time(call, "ready-timeout", "ready_timeout_ms", machine) : status;
    status =
        status == CLI_DONE ? read_text(call, "ready-console", "ready_console", machine) : status;
    if (status == CLI_DONE && args_has(&call->args, "service")) {
        status = set_new(machine, "service", json_true());
    }
    status = status == CLI_DONE ? read_volumes(call, machine) : status;
    bool said = args_has(&call->args, "machine") || args_has(&call->args, "initrd") ||
                args_has(&call->args, "disk") || json_object_size(machine) > 0;
    if (status != CLI_DONE || !said) {
        json_decref(machine);
        return status;
    }
    return set_new(config, "machine", machine);
}

int deploy_read_config(const struct cli_call *call, json_t *config)
{
    int (*const readers[])(const struct cli_call *, json_t *) = {
        read_memory,  read_timeout, read_concurrency, read_reserved, read_words, read_env,
        read_workdir, read_egress,  read_publish,     read_machine,  read_args};
    if (args_has(&call->args, "list-calls") &&
        set_new(config, "list_calls", json_true()) != CLI_DONE) {
        return CLI_REFUSED;
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(readers); i++) {
        int status = readers[i](call, config);
        if (status != CLI_DONE) {
            return status;
        }
    }
    return CLI_DONE;
}

/* Puts a Linux program and what it needs into the configuration. */
static int gather(const struct cli_call *call, const char *what, json_t *config, struct gathered *g)
{
    int status = gather_push(call, what, config, g);
    json_t *args = json_object_get(config, "args");
    if (status == CLI_DONE && g->program[0]) {
        status = set_new(config, "program", json_string(g->program));
    }
    for (size_t i = json_array_size(g->arguments); status == CLI_DONE && i > 0; i--) {
        if (json_array_insert(args, 0, json_array_get(g->arguments, i - 1)) < 0) {
            status = cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    if (status == CLI_DONE && !call->json && !call->quiet) {
        gather_show(g);
    }
    return status == CLI_DONE ? set_new(config, "image", json_string(api_str(g->image, "digest")))
                              : status;
}

int deploy_find_image(const struct cli_call *call, const char *what, json_t *config,
                      struct gathered *g)
{
    if (!*what) {
        return cli_usage(call,
                         "the program or image is empty: give a file, or an image's digest or tag");
    }
    bool named = !args_has(&call->args, "rootfs") && !args_has(&call->args, "with") &&
                 (push_is_digest(what) || access(what, F_OK) < 0);
    if (!named && !json_object_get(config, "machine") && gather_wanted(call, what)) {
        return gather(call, what, config, g);
    }
    int said = read_text(call, "program", "program", config);
    if (said != CLI_DONE) {
        return said;
    }
    if (push_is_digest(what)) {
        return set_new(config, "image", json_string(what));
    }
    if (access(what, F_OK) == 0) {
        un_autojson json_t *image = NULL;
        int status = push_file(call, what, NULL, &image);
        return status != CLI_DONE ? status
                                  : set_new(config, "image", json_string(api_str(image, "digest")));
    }
    int why = errno; /* of access() */
    struct stat st;
    if (lstat(what, &st) == 0) {
        return cli_fail(CLI_REFUSED, "%s: a link that leads nowhere: %s", what, strerror(why));
    }
    if (*what == '/' || *what == '.') {
        return cli_fail(CLI_REFUSED, "there is no file %s", what);
    }
    un_autofree char *path = api_path("/api/v1/images/%s", what);
    un_autojson json_t *image = NULL;
    int status = api_call(call, "GET", path, NULL, &image);
    if (status == CLI_REFUSED) {
        return cli_fail(status, "'%s' is neither a file here nor an image's digest or tag there",
                        what);
    }
    return status != CLI_DONE ? status
                              : set_new(config, "image", json_string(api_str(image, "digest")));
}

/* Nothing of a service has run when it is deployed, unless machines are kept: how to see what becomes
 * of it. */
static int show_readiness(const json_t *function, struct un_buf *out)
{
    const json_t *machine = json_object_get(function, "machine");
    const char *name = api_str(function, "name");
    if (!json_is_true(json_object_get(machine, "service")) || api_str(function, "ready_at")[0]) {
        return 0;
    }
    return un_buf_printf(out,
                         "its first machine starts %s; unictl describe %s tells whether it was "
                         "ready, unictl logs %s what it wrote\n",
                         api_uint(machine, "min_instances") ? "now" : "with its first request",
                         name, name);
}

/* What all requests share that was meant to differ, and what to do. */
static void note_random(const struct cli_call *call, const json_t *function)
{
    if (json_is_true(json_object_get(function, "shares_random")) && !call->quiet) {
        (void)cli_fail(
            CLI_DONE,
            "note: the program drew random bytes before it was ready, and what it made of them (a "
            "generator's state, a key) is the same in all requests; where that matters, deploy "
            "with --snapshot start");
    }
}

static int show_deployed(const struct cli_call *call, const json_t *function)
{
    un_autobuf struct un_buf out = {0};
    un_autofree char *url = client_function_url(call->client, api_str(function, "url"));
    int rc = url ? un_buf_printf(&out, "%s version %llu %s\n", api_str(function, "name"),
                                 (unsigned long long)api_uint(function, "version"), url)
                 : -ENOMEM;
    rc = rc < 0 ? rc : show_readiness(function, &out);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

int deploy_operand(const struct cli_call *call, size_t at, const char **ret)
{
    bool given = at < call->args.operand_count;
    *ret = given ? call->args.operands[at] : "-";
    return given || args_has(&call->args, "rootfs")
               ? CLI_DONE
               : cli_usage(call, "%s needs %sPROGRAM|IMAGE, or --rootfs with a container image",
                           call->verb->name, at ? "NAME " : "");
}

int verb_deploy(struct cli_call *call)
{
    un_autofree char *path = NULL;
    un_autojson json_t *config = json_object();
    un_autojson json_t *function = NULL;
    un_autogathered struct gathered g = {0};
    if (!config) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    /* Everything that can be wrong with the words is said before a byte is sent. */
    const char *what = NULL;
    int status = api_function_path(call, call->args.operands[0], "", &path);
    status = status == CLI_DONE ? deploy_operand(call, 1, &what) : status;
    status = status == CLI_DONE ? deploy_read_config(call, config) : status;
    status = status == CLI_DONE ? deploy_find_image(call, what, config, &g) : status;
    status = status == CLI_DONE ? push_further(call, config) : status;
    status = status == CLI_DONE ? api_call(call, "PUT", path, config, &function) : status;
    if (status != CLI_DONE) {
        return status;
    }
    if (call->json && g.files) {
        (void)json_object_set(function, "collected", g.files);
    }
    note_random(call, function);
    return call->json ? cli_print_json(function) : show_deployed(call, function);
}
