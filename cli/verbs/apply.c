/* apply.c - unictl apply and delete: several functions, and their volumes, from one file.
 *
 *     read ── local checks ── the daemon's checks ── images ── volumes ── functions
 *             nothing is changed up to here ─────────┘  (images that nobody uses are collected again)
 *
 * The file is a JSON object: {"volumes": {NAME: {"size_mib": N}}, "functions": {NAME: {...}}}. A function
 * is what PUT /api/v1/functions/{name} takes, but "image", "machine.initrd" and "machine.disk" may be
 * files of this machine, and "with", "rootfs" and "program" mean what they do to `unictl deploy`. Paths
 * begin where the file is: the program goes there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/push.h"
#include "cli/verbs/deploy.h"
#include "common/cleanup.h"
#include "common/limits.h"

/* Stands for an image that is not there yet, when the daemon checks a configuration. */
static const char placeholder[] =
    "sha256:0000000000000000000000000000000000000000000000000000000000000000";

static const struct args_option with_option = {"with", 0, "PATH", ""};
static const struct args_option rootfs_option = {"rootfs", 0, "DIR|TAR", ""};
static const struct args_option program_option = {"program", 0, "PATH", ""};

static const struct {
    const char *key;
    const struct args_option *option;
    bool list; /* a string or a list of them */
} local_keys[] = {{"with", &with_option, true},
                  {"rootfs", &rootfs_option, false},
                  {"program", &program_option, false}};

/* --- the file --------------------------------------------------------------------------------- */

static int read_whole(int fd, const char *name, struct un_buf *ret)
{
    char piece[16384];
    ssize_t n;
    while ((n = read(fd, piece, sizeof(piece))) != 0) {
        if (n < 0 && errno != EINTR) {
            return cli_fail(CLI_REFUSED, "cannot read %s: %s", name, strerror(errno));
        }
        if (n > 0 && (ret->len + (size_t)n > LIMIT_HTTP_JSON_BYTES ||
                      un_buf_append(ret, piece, (size_t)n) < 0)) {
            return cli_fail(CLI_REFUSED, "%s is longer than %d bytes", name, LIMIT_HTTP_JSON_BYTES);
        }
    }
    return CLI_DONE;
}

/* Where the file is: there its paths begin. */
static int go_there(const char *path)
{
    un_autofree char *dir = strdup(path);
    char *slash = dir ? strrchr(dir, '/') : NULL;
    if (!dir) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    if (!slash) {
        return CLI_DONE;
    }
    slash[slash == dir] = '\0';
    return chdir(dir) == 0 ? CLI_DONE
                           : cli_fail(CLI_REFUSED, "cannot go to %s: %s", dir, strerror(errno));
}

static int read_file(const struct cli_call *call, json_t **ret)
{
    const char *path = args_get(&call->args, "file");
    un_autobuf struct un_buf text = {0};
    struct un_error err = UN_ERROR_INIT;
    if (!path) {
        return cli_usage(call, "%s needs -f FILE", call->verb->name);
    }
    bool input = strcmp(path, "-") == 0;
    un_autoclose int fd = input ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return cli_fail(CLI_REFUSED, "cannot read %s: %s", path, strerror(errno));
    }
    int status = read_whole(fd, path, &text);
    if (status == CLI_DONE &&
        un_json_parse(text.data ? (const void *)text.data : "", text.len, ret, &err) < 0) {
        status = cli_fail(CLI_REFUSED, "%s: %s", path, err.text);
    }
    return status == CLI_DONE && !input ? go_there(path) : status;
}

/* --- what can be seen from here --------------------------------------------------------------- */

static int check_strings(const char *name, const char *key, const json_t *value, bool list)
{
    size_t i;
    const json_t *item;
    if (!value || json_is_string(value)) {
        return CLI_DONE;
    }
    if (!list || !json_is_array(value)) {
        return cli_fail(CLI_REFUSED, "functions.%s.%s: must be a string%s", name, key,
                        list ? " or a list of strings" : "");
    }
    json_array_foreach(value, i, item)
    {
        if (!json_is_string(item)) {
            return cli_fail(CLI_REFUSED, "functions.%s.%s[%zu]: must be a string", name, key, i);
        }
    }
    return CLI_DONE;
}

static int check_function(const char *name, const json_t *function)
{
    if (!json_is_string(json_object_get(function, "image"))) {
        return cli_fail(CLI_REFUSED,
                        "functions.%s: must be an object with an \"image\": a program or an image "
                        "here, or a digest or tag",
                        name);
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(local_keys); i++) {
        int status =
            check_strings(name, local_keys[i].key, json_object_get(function, local_keys[i].key),
                          local_keys[i].list);
        if (status != CLI_DONE) {
            return status;
        }
    }
    return CLI_DONE;
}

static int check_members(const json_t *file, const char *key)
{
    const json_t *value = json_object_get(file, key);
    return !value || json_is_object(value)
               ? CLI_DONE
               : cli_fail(CLI_REFUSED, "%s: must be an object, of a name each", key);
}

static int check_file(const struct cli_call *call, json_t *file)
{
    static const char *const keys[] = {"volumes", "functions", NULL};
    struct un_error err = UN_ERROR_INIT;
    const char *name;
    json_t *item;
    if (!json_is_object(file) || un_json_only_keys(file, keys, &err) < 0) {
        return cli_fail(CLI_REFUSED,
                        "the file must be an object of \"volumes\" and \"functions\"%s%s",
                        err.text[0] ? ": " : "", err.text);
    }
    int status = check_members(file, "volumes");
    status = status == CLI_DONE ? check_members(file, "functions") : status;
    json_object_foreach(json_object_get(file, "functions"), name, item)
    {
        un_autofree char *path = NULL;
        status = status == CLI_DONE ? api_function_path(call, name, "", &path) : status;
        status = status == CLI_DONE ? check_function(name, item) : status;
    }
    json_object_foreach(json_object_get(file, "volumes"), name, item)
    {
        int64_t size = 0;
        if (status == CLI_DONE &&
            (!json_is_object(item) ||
             un_json_get_int(item, "size_mib", 1, INT32_MAX, &size, &err) < 0 || size == 0)) {
            status = cli_fail(CLI_REFUSED, "volumes.%s: must be {\"size_mib\": N}", name);
        }
    }
    return status;
}

/* --- one function ----------------------------------------------------------------------------- */

/* What the file says of a function without what is meant for this program. NULL: out of memory. */
static json_t *config_of(const json_t *function)
{
    json_t *config = json_deep_copy(function);
    for (size_t i = 0; config && i < UN_ARRAY_SIZE(local_keys); i++) {
        json_object_del(config, local_keys[i].key);
    }
    if (config && !json_object_get(config, "args") &&
        json_object_set_new(config, "args", json_array()) < 0) {
        json_decref(config);
        return NULL;
    }
    return config;
}

/* Files become placeholders, of the image and of what goes with a kernel. */
static void put_placeholders(json_t *config)
{
    static const char *const keys[] = {"initrd", "disk"};
    json_t *machine = json_object_get(config, "machine");
    const char *image = json_string_value(json_object_get(config, "image"));
    if (image && !push_is_digest(image)) {
        json_object_set_new(config, "image", json_string(placeholder));
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(keys); i++) {
        const char *file = json_string_value(json_object_get(machine, keys[i]));
        if (file && !push_is_digest(file)) {
            json_object_set_new(machine, keys[i], json_string(placeholder));
        }
    }
}

/* Has the daemon look at the configurations, before anything is changed. */
static int check_configs(const struct cli_call *call, json_t *functions)
{
    const char *name;
    json_t *function;
    json_object_foreach(functions, name, function)
    {
        un_autofree char *path = NULL;
        un_autojson json_t *config = config_of(function), *answer = NULL;
        if (!config) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
        put_placeholders(config);
        int status = api_function_path(call, name, "?check=1", &path);
        status = status == CLI_DONE ? api_call(call, "PUT", path, config, &answer) : status;
        if (status != CLI_DONE) {
            return cli_fail(status, "function %s is not as it should be; nothing has been changed",
                            name);
        }
    }
    return CLI_DONE;
}

/* The words that `unictl deploy` would have been given. `values` has room for all. */
static struct args deploy_words(const json_t *function, struct args_value *values)
{
    struct args args = {.values = values};
    for (size_t i = 0; i < UN_ARRAY_SIZE(local_keys); i++) {
        const json_t *value = json_object_get(function, local_keys[i].key);
        size_t count = json_is_array(value) ? json_array_size(value) : value ? 1 : 0;
        for (size_t k = 0; k < count; k++) {
            const json_t *item = json_is_array(value) ? json_array_get(value, k) : value;
            values[args.value_count++] =
                (struct args_value){local_keys[i].option, json_string_value(item)};
        }
    }
    return args;
}

/* What goes with a kernel is pushed. */
static int push_parts(const struct cli_call *call, json_t *config)
{
    static const char *const keys[] = {"initrd", "disk"};
    json_t *machine = json_object_get(config, "machine");
    int status = CLI_DONE;
    for (size_t i = 0; status == CLI_DONE && i < UN_ARRAY_SIZE(keys); i++) {
        const char *file = json_string_value(json_object_get(machine, keys[i]));
        un_autojson json_t *image = NULL;
        if (!file || push_is_digest(file)) {
            continue;
        }
        status = push_file(call, file, NULL, &image);
        if (status == CLI_DONE &&
            json_object_set_new(machine, keys[i], json_string(api_str(image, "digest"))) < 0) {
            status = cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    return status;
}

/* Brings the images of a function there, and puts their digests into its configuration. */
static int push_images(const struct cli_call *call, const json_t *function, json_t *config)
{
    size_t words = UN_ARRAY_SIZE(local_keys) + json_array_size(json_object_get(function, "with"));
    un_autofree struct args_value *values = calloc(words, sizeof(*values));
    un_autogathered struct gathered g = {0};
    struct cli_call one = *call;
    if (!values) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    one.args = deploy_words(function, values);
    one.quiet = true;
    int status = deploy_find_image(&one, api_str(function, "image"), config, &g);
    return status == CLI_DONE ? push_parts(call, config) : status;
}

/* --- applying --------------------------------------------------------------------------------- */

/* What has been done, for people when something is refused, and for --json. */
static int note(const struct cli_call *call, json_t *done, const char *kind, const char *name,
                const char *change, json_t *more)
{
    json_t *item = json_pack("{s:s, s:s, s:s}", "kind", kind, "name", name, "change", change);
    if (!item || (more && json_object_update_missing(item, more) < 0) ||
        json_array_append_new(done, item) < 0) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    if (call->json) {
        return CLI_DONE;
    }
    printf("%s %s %s", kind, name, change);
    size_t i;
    const json_t *port;
    json_array_foreach(json_object_get(more, "ports"), i, port)
    {
        printf("%s %s", i ? "," : " at", api_str(port, "address"));
    }
    printf("\n");
    return CLI_DONE;
}

static int apply_volume(const struct cli_call *call, const char *name, const json_t *volume,
                        json_t *done)
{
    un_autofree char *path = api_path("/api/v1/volumes/%s", name);
    un_autojson json_t *before = NULL, *answer = NULL;
    int status = api_find(call, path, &before);
    status = status == CLI_DONE ? api_call(call, "PUT", path, volume, &answer) : status;
    return status == CLI_DONE
               ? note(call, done, "volume", name, before ? "unchanged" : "created", NULL)
               : status;
}

static int apply_function(const struct cli_call *call, const char *name, const json_t *config,
                          json_t *done)
{
    un_autofree char *path = NULL;
    un_autojson json_t *before = NULL, *after = NULL;
    int status = api_function_path(call, name, "", &path);
    status = status == CLI_DONE ? api_find(call, path, &before) : status;
    status = status == CLI_DONE ? api_call(call, "PUT", path, config, &after) : status;
    if (status != CLI_DONE) {
        return status;
    }
    const char *change = !before                                                     ? "created"
                         : api_uint(before, "version") == api_uint(after, "version") ? "unchanged"
                                                                                     : "updated";
    un_autojson json_t *more =
        json_pack("{s:O, s:O, s:O}", "version", json_object_get(after, "version"), "url",
                  json_object_get(after, "url"), "ports", json_object_get(after, "ports"));
    return note(call, done, "function", name, change, more);
}

static int apply_all(const struct cli_call *call, json_t *file, json_t *configs, json_t *done)
{
    const char *name;
    json_t *item;
    int status = CLI_DONE;
    json_object_foreach(json_object_get(file, "volumes"), name, item)
    {
        status = status == CLI_DONE ? apply_volume(call, name, item, done) : status;
    }
    json_object_foreach(configs, name, item)
    {
        status = status == CLI_DONE ? apply_function(call, name, item, done) : status;
    }
    return status;
}

/* Says what was done before something was refused. */
static void say_done(const json_t *done)
{
    size_t i;
    const json_t *item;
    un_autobuf struct un_buf text = {0};
    json_array_foreach(done, i, item)
    {
        (void)un_buf_printf(&text, "%s%s %s (%s)", i ? ", " : "", api_str(item, "kind"),
                            api_str(item, "name"), api_str(item, "change"));
    }
    cli_fail(CLI_REFUSED, "stopped there; done before: %s",
             text.len ? (const char *)text.data : "nothing");
}

static int prepare_all(const struct cli_call *call, json_t *functions, json_t *configs)
{
    const char *name;
    json_t *function;
    json_object_foreach(functions, name, function)
    {
        json_t *config = config_of(function);
        if (!config || json_object_set_new(configs, name, config) < 0) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
        int status = push_images(call, function, config);
        if (status != CLI_DONE) {
            return cli_fail(
                status, "the image of function %s is not there; nothing has been changed", name);
        }
    }
    return CLI_DONE;
}

int verb_apply(struct cli_call *call)
{
    un_autojson json_t *file = NULL, *configs = json_object(), *done = json_array();
    if (!configs || !done) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    int status = read_file(call, &file);
    json_t *functions = json_object_get(file, "functions");
    status = status == CLI_DONE ? check_file(call, file) : status;
    status = status == CLI_DONE ? check_configs(call, functions) : status;
    status = status == CLI_DONE ? prepare_all(call, functions, configs) : status;
    if (status != CLI_DONE) {
        return status;
    }
    status = apply_all(call, file, configs, done);
    if (status != CLI_DONE) {
        say_done(done);
        return status;
    }
    return call->json ? cli_print_json(done) : CLI_DONE;
}

/* --- deleting --------------------------------------------------------------------------------- */

static int delete_one(const struct cli_call *call, const char *kind, const char *name, json_t *done)
{
    un_autofree char *path = api_path("/api/v1/%ss/%s", kind, name);
    un_autojson json_t *before = NULL, *answer = NULL;
    int status = api_find(call, path, &before);
    if (status == CLI_DONE && before) {
        status = api_call(call, "DELETE", path, NULL, &answer);
    }
    return status == CLI_DONE ? note(call, done, kind, name, before ? "removed" : "absent", NULL)
                              : status;
}

/* The last first: what comes later may use what comes before. */
static int delete_all(const struct cli_call *call, const char *kind, json_t *members, json_t *done)
{
    size_t count = json_object_size(members), i = 0;
    un_autofree const char **names = calloc(count + 1, sizeof(*names));
    const char *name;
    json_t *item;
    int status = names ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
    json_object_foreach(members, name, item)
    {
        if (names) {
            names[i++] = name;
        }
    }
    while (status == CLI_DONE && i > 0) {
        status = delete_one(call, kind, names[--i], done);
    }
    return status;
}

int verb_delete(struct cli_call *call)
{
    un_autojson json_t *file = NULL, *done = json_array();
    int status = done ? read_file(call, &file) : cli_fail(CLI_REFUSED, "out of memory");
    status = status == CLI_DONE ? check_file(call, file) : status;
    if (status != CLI_DONE) {
        return status;
    }
    status = delete_all(call, "function", json_object_get(file, "functions"), done);
    if (status == CLI_DONE && args_has(&call->args, "volumes")) {
        status = delete_all(call, "volume", json_object_get(file, "volumes"), done);
    }
    if (status != CLI_DONE) {
        say_done(done);
        return status;
    }
    return call->json ? cli_print_json(done) : CLI_DONE;
}
