/* config.c - a function's configuration, from and to JSON (see function.h). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/endpoint.h"
#include "common/fault.h"
#include "common/json.h"
#include "common/limits.h"
#include "imagestore/function.h"
#include "imagestore/internal.h"
#include "prepare/program.h"
#include "unid/abi.h"

static const char *const interface_names[] = {
    [FUNCTION_FILTER] = "filter", [FUNCTION_CGI] = "cgi", [FUNCTION_HTTP] = "http",
    [FUNCTION_LAMBDA] = "lambda", [FUNCTION_SDK] = "sdk", [FUNCTION_TCP] = "tcp",
};

static const char *const driver_names[] = {
    [FUNCTION_AUTO] = "auto",
    [FUNCTION_KVM] = "kvm",
    [FUNCTION_LIBVIRT] = "libvirt",
    [FUNCTION_FAKE] = "fake",
};

static const char *const isolation_names[] = {[FUNCTION_VM] = "vm", [FUNCTION_RESET] = "reset"};

static const char *const snapshot_names[] = {
    [FUNCTION_SNAPSHOT_READY] = "ready", [FUNCTION_SNAPSHOT_START] = "start"};

const char *function_driver_name(enum function_driver d)
{
    return (size_t)d < UN_ARRAY_SIZE(driver_names) ? driver_names[d] : "unknown";
}

const char *function_isolation_name(enum function_isolation i)
{
    return (size_t)i < UN_ARRAY_SIZE(isolation_names) ? isolation_names[i] : "unknown";
}

const char *function_snapshot_name(enum function_snapshot s)
{
    return (size_t)s < UN_ARRAY_SIZE(snapshot_names) ? snapshot_names[s] : "unknown";
}

const char *function_interface_name(enum function_interface i)
{
    return (size_t)i < UN_ARRAY_SIZE(interface_names) ? interface_names[i] : "default";
}

int function_interface_parse(const char *word)
{
    for (size_t i = 0; word && i < UN_ARRAY_SIZE(interface_names); i++) {
        if (strcmp(word, interface_names[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static bool label_valid(const char *s)
{
    size_t len = s ? strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") : 0;
    return len > 0 && len <= 63 && s[len] == '\0' && s[0] >= 'a' && s[0] <= 'z' &&
           s[len - 1] != '-';
}

bool function_name_valid(const char *name)
{
    return label_valid(name);
}

bool function_alias_valid(const char *alias)
{
    return label_valid(alias);
}

void function_config_init(struct function_config *c)
{
    *c = (struct function_config){
        .interface = FUNCTION_DEFAULT,
        .memory_mib = DEFAULT_FUNCTION_MEMORY_MIB,
        .timeout_ms = DEFAULT_FUNCTION_TIMEOUT_MS,
        .concurrency = DEFAULT_FUNCTION_CONCURRENCY,
    };
    machine_config_init(&c->machine);
}

static void free_strings(char **list)
{
    for (size_t i = 0; list && list[i]; i++) {
        free(list[i]);
    }
    free(list);
}

void function_config_done(struct function_config *c)
{
    free_strings(c->args);
    free_strings(c->env);
    free_strings(c->egress);
    free_strings(c->publish);
    free(c->program);
    machine_config_done(&c->machine);
    c->args = c->env = c->egress = c->publish = NULL;
    c->program = NULL;
}

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* Takes one string's bytes, with its NUL, from what the guest's string area holds. */
static int take_room(size_t bytes, size_t *room, struct un_error *err)
{
    if (bytes >= *room) {
        return un_error_set(err, -EINVAL, "args and env together have more than %d bytes",
                            LIMIT_FUNCTION_STRINGS);
    }
    *room -= bytes + 1;
    return 0;
}

static bool has_nul(const json_t *string)
{
    return strlen(json_string_value(string)) != json_string_length(string);
}

static int parse_args(const json_t *root, struct function_config *c, size_t *room,
                      struct un_error *err)
{
    const json_t *list = json_object_get(root, "args"), *item;
    size_t i;
    if (!list) {
        return 0;
    }
    if (!json_is_array(list) || json_array_size(list) > LIMIT_FUNCTION_ARGS) {
        return un_error_set(err, -EINVAL, "args: must be a list of at most %d strings",
                            LIMIT_FUNCTION_ARGS);
    }
    c->args = un_fault("function.args") ? NULL : calloc(json_array_size(list) + 1, sizeof *c->args);
    if (!c->args) {
        return no_memory(err);
    }
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item) || has_nul(item)) {
            return un_error_set(err, -EINVAL, "args[%zu]: must be a string without NUL", i);
        }
        int rc = take_room(json_string_length(item), room, err);
        if (rc < 0) {
            return rc;
        }
        if (!(c->args[i] = strdup(json_string_value(item)))) {
            return no_memory(err);
        }
    }
    return 0;
}

/* By key: '=' ends it, so that "A=1" comes before "AB=1" as "A" does before "AB". */
static int by_key(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    while (*x == *y && *x != '=' && *x) {
        x++;
        y++;
    }
    int left = *x == '=' ? 0 : (unsigned char)*x, right = *y == '=' ? 0 : (unsigned char)*y;
    return left - right;
}

static int parse_env_entry(const char *key, const json_t *value, char **ret, struct un_error *err)
{
    if (!key[0] || strchr(key, '=')) {
        return un_error_set(err, -EINVAL, "env: \"%s\" is not a name for a variable", key);
    }
    if (!json_is_string(value) || has_nul(value)) {
        return un_error_set(err, -EINVAL, "env.%s: must be a string without NUL", key);
    }
    size_t key_len = strlen(key), size = key_len + 1 + json_string_length(value) + 1;
    char *entry = malloc(size);
    if (!entry) {
        return no_memory(err);
    }
    memcpy(entry, key, key_len);
    entry[key_len] = '=';
    memcpy(entry + key_len + 1, json_string_value(value), size - key_len - 1);
    *ret = entry;
    return 0;
}

static int parse_env(json_t *root, struct function_config *c, size_t *room, struct un_error *err)
{
    json_t *map = json_object_get(root, "env"), *value;
    const char *key;
    size_t count = 0;
    if (!map) {
        return 0;
    }
    if (!json_is_object(map) || json_object_size(map) > LIMIT_FUNCTION_ARGS) {
        return un_error_set(err, -EINVAL, "env: must be an object of at most %d strings",
                            LIMIT_FUNCTION_ARGS);
    }
    c->env = calloc(json_object_size(map) + 1, sizeof *c->env);
    if (!c->env) {
        return no_memory(err);
    }
    json_object_foreach(map, key, value)
    {
        int rc = parse_env_entry(key, value, &c->env[count], err);
        if (rc == 0) {
            rc = take_room(strlen(c->env[count++]), room, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    qsort(c->env, count, sizeof *c->env, by_key);
    return 0;
}

/* Kept in one form, so that equal rules are equal texts. */
static int parse_egress(const json_t *root, struct function_config *c, struct un_error *err)
{
    const json_t *list = json_object_get(root, "egress"), *item;
    size_t i;
    if (!list || (json_is_array(list) && json_array_size(list) == 0)) {
        return 0;
    }
    if (!json_is_array(list) || json_array_size(list) > LIMIT_FUNCTION_EGRESS) {
        return un_error_set(err, -EINVAL, "egress: must be a list of at most %d \"HOST:PORT\"",
                            LIMIT_FUNCTION_EGRESS);
    }
    c->egress = calloc(json_array_size(list) + 1, sizeof *c->egress);
    if (!c->egress) {
        return no_memory(err);
    }
    json_array_foreach(list, i, item)
    {
        struct un_endpoint rule;
        char text[UN_ENDPOINT_TEXT_SIZE];
        if (!json_is_string(item)) {
            return un_error_set(err, -EINVAL, "egress[%zu]: must be a string", i);
        }
        int rc =
            un_endpoint_parse(json_string_value(item), json_string_length(item), true, &rule, err);
        if (rc < 0) {
            un_error_context(err, "egress[%zu]", i);
            return rc;
        }
        if (!(c->egress[i] = strdup(un_endpoint_text(&rule, text)))) {
            return no_memory(err);
        }
    }
    return 0;
}

static bool named_before(char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* Kept in one form, as above. */
static int parse_publish(const json_t *root, struct function_config *c, struct un_error *err)
{
    const json_t *list = json_object_get(root, "publish"), *item;
    size_t i;
    if (!list || (json_is_array(list) && json_array_size(list) == 0)) {
        return 0;
    }
    if (!json_is_array(list) || json_array_size(list) > LIMIT_FUNCTION_PUBLISH) {
        return un_error_set(err, -EINVAL, "publish: must be a list of at most %d \"[ADDR:]PORT\"",
                            LIMIT_FUNCTION_PUBLISH);
    }
    c->publish = calloc(json_array_size(list) + 1, sizeof *c->publish);
    if (!c->publish) {
        return no_memory(err);
    }
    json_array_foreach(list, i, item)
    {
        struct un_endpoint at;
        char text[UN_ENDPOINT_TEXT_SIZE];
        if (!json_is_string(item)) {
            return un_error_set(err, -EINVAL, "publish[%zu]: must be a string", i);
        }
        int rc =
            un_endpoint_parse_listen(json_string_value(item), json_string_length(item), &at, err);
        if (rc < 0) {
            un_error_context(err, "publish[%zu]", i);
            return rc;
        }
        if (named_before(c->publish, i, un_endpoint_text(&at, text))) {
            return un_error_set(err, -EINVAL, "publish[%zu]: %s stands there twice", i, text);
        }
        if (!(c->publish[i] = strdup(text))) {
            return no_memory(err);
        }
    }
    return 0;
}

static int parse_program(const json_t *root, struct function_config *c, size_t *room,
                         struct un_error *err)
{
    const char *program = NULL;
    int rc = un_json_get_str(root, "program", &program, err);
    if (rc < 0 || !program) {
        return rc;
    }
    if (program[0] != '/' || strlen(program) >= PATH_MAX) {
        return un_error_set(err, -EINVAL,
                            "program: must be an absolute path in the image's root file system");
    }
    rc = take_room(strlen(program), room, err);
    if (rc < 0) {
        return rc;
    }
    c->program = strdup(program);
    return c->program ? 0 : no_memory(err);
}

static int parse_u32(const json_t *root, const char *key, int64_t least, int64_t most,
                     uint32_t *ret, struct un_error *err)
{
    int64_t value = *ret;
    int rc = un_json_get_int(root, key, least, most, &value, err);
    if (rc == 0) {
        *ret = (uint32_t)value;
    }
    return rc;
}

static int parse_numbers(const json_t *root, struct function_config *c, struct un_error *err)
{
    int rc = parse_u32(root, "memory_mib", LIMIT_FUNCTION_MEMORY_MIN, LIMIT_FUNCTION_MEMORY_MIB,
                       &c->memory_mib, err);
    c->memory_given = json_object_get(root, "memory_mib") != NULL;
    if (rc == 0) {
        rc = parse_u32(root, "timeout_ms", 1, LIMIT_FUNCTION_TIMEOUT_MS, &c->timeout_ms, err);
    }
    if (rc == 0) {
        rc = parse_u32(root, "concurrency", 1, LIMIT_FUNCTION_CONCURRENCY, &c->concurrency, err);
    }
    if (rc == 0) {
        rc = parse_u32(root, "reserved_concurrency", 0, LIMIT_FUNCTION_CONCURRENCY,
                       &c->reserved_concurrency, err);
    }
    if (rc == 0 && c->reserved_concurrency > c->concurrency) {
        rc = un_error_set(err, -EINVAL, "reserved_concurrency: must be at most concurrency (%u)",
                          c->concurrency);
    }
    return rc;
}

static int parse_words(const json_t *root, struct function_config *c, struct un_error *err)
{
    const char *image = NULL, *word = NULL;
    int rc = un_json_get_str(root, "image", &image, err);
    if (rc == 0) {
        rc = un_json_get_str(root, "interface", &word, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (!image) {
        return un_error_set(err, -EINVAL, "image: is missing; push one, then name its digest");
    }
    if (!image_digest_valid(image)) {
        return un_error_set(err, -EINVAL,
                            "image: must be \"sha256:\" and 64 lower-case hex digits");
    }
    memcpy(c->image, image, IMAGE_DIGEST_SIZE);
    if (word) {
        int interface = function_interface_parse(word);
        if (interface < 0) {
            return un_error_set(err, -EINVAL,
                                "interface: must be filter, cgi, http, lambda, sdk or tcp");
        }
        c->interface = (enum function_interface)interface;
    }
    return 0;
}

/* The place of the key's word among `names`; `*ret` stays when the key is missing. */
static int parse_choice(const json_t *root, const char *key, const char *const *names, size_t count,
                        unsigned *ret)
{
    const json_t *value = json_object_get(root, key);
    if (!value) {
        return 0;
    }
    for (size_t i = 0; json_is_string(value) && i < count; i++) {
        if (strcmp(json_string_value(value), names[i]) == 0) {
            *ret = (unsigned)i;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_choices(const json_t *root, struct function_config *c, struct un_error *err)
{
    unsigned driver = FUNCTION_AUTO, isolation = FUNCTION_VM, snapshot = FUNCTION_SNAPSHOT_READY;
    if (parse_choice(root, "driver", driver_names, UN_ARRAY_SIZE(driver_names), &driver) < 0) {
        return un_error_set(err, -EINVAL, "driver: must be auto, kvm, libvirt or fake");
    }
    if (parse_choice(root, "isolation", isolation_names, UN_ARRAY_SIZE(isolation_names),
                     &isolation) < 0) {
        return un_error_set(err, -EINVAL, "isolation: must be vm or reset");
    }
    if (parse_choice(root, "snapshot", snapshot_names, UN_ARRAY_SIZE(snapshot_names), &snapshot) <
        0) {
        return un_error_set(err, -EINVAL, "snapshot: must be ready or start");
    }
    if (un_json_get_bool(root, "list_calls", &c->list_calls, err) < 0) {
        return -EINVAL;
    }
    c->driver = (enum function_driver)driver;
    c->isolation = (enum function_isolation)isolation;
    c->snapshot = (enum function_snapshot)snapshot;
    return 0;
}

int function_config_parse(const void *json, size_t len, struct function_config *ret,
                          struct un_error *err)
{
    static const char *const keys[] = {"image",       "interface",
                                       "driver",      "isolation",
                                       "memory_mib",  "timeout_ms",
                                       "concurrency", "args",
                                       "env",         "egress",
                                       "program",     "machine",
                                       "publish",     "reserved_concurrency",
                                       "list_calls",  "snapshot",
                                       NULL};
    un_autojson json_t *root = NULL;
    struct function_config c;
    size_t room = LIMIT_FUNCTION_STRINGS;
    function_config_init(&c);
    int rc = un_json_parse(json, len, &root, err);
    if (rc == 0 && !json_is_object(root)) {
        rc = un_error_set(err, -EINVAL, "a function's configuration must be a JSON object");
    }
    if (rc == 0) {
        rc = un_json_only_keys(root, keys, err);
    }
    if (rc == 0) {
        rc = parse_words(root, &c, err);
    }
    if (rc == 0) {
        rc = parse_choices(root, &c, err);
    }
    if (rc == 0) {
        rc = parse_numbers(root, &c, err);
    }
    if (rc == 0) {
        rc = parse_args(root, &c, &room, err);
    }
    if (rc == 0) {
        rc = parse_env(root, &c, &room, err);
    }
    if (rc == 0) {
        rc = parse_egress(root, &c, err);
    }
    if (rc == 0) {
        rc = parse_publish(root, &c, err);
    }
    if (rc == 0) {
        rc = parse_program(root, &c, &room, err);
    }
    if (rc == 0) {
        rc = machine_config_parse(json_object_get(root, "machine"), &c.machine, err);
    }
    if (rc < 0) {
        function_config_done(&c);
        return rc;
    }
    *ret = c;
    return 0;
}

static json_t *list_to_json(char **args)
{
    json_t *list = json_array();
    for (size_t i = 0; list && args && args[i]; i++) {
        if (json_array_append_new(list, json_string(args[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *env_to_json(char **env)
{
    json_t *map = json_object();
    for (size_t i = 0; map && env && env[i]; i++) {
        const char *equals = strchr(env[i], '=');
        un_autofree char *key = equals ? strndup(env[i], (size_t)(equals - env[i])) : NULL;
        if (!key || json_object_set_new(map, key, json_string(equals + 1)) < 0) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

char *function_config_to_json(const struct function_config *c)
{
    un_autojson json_t *root = json_object();
    if (!root || json_object_set_new(root, "image", json_string(c->image)) < 0 ||
        (c->interface != FUNCTION_DEFAULT &&
         json_object_set_new(root, "interface",
                             json_string(function_interface_name(c->interface))) < 0) ||
        json_object_set_new(root, "driver", json_string(function_driver_name(c->driver))) < 0 ||
        json_object_set_new(root, "isolation", json_string(function_isolation_name(c->isolation))) <
            0 ||
        (c->snapshot == FUNCTION_SNAPSHOT_START &&
         json_object_set_new(root, "snapshot", json_string(function_snapshot_name(c->snapshot))) <
             0) ||
        json_object_set_new(root, "memory_mib", json_integer(c->memory_mib)) < 0 ||
        json_object_set_new(root, "timeout_ms", json_integer(c->timeout_ms)) < 0 ||
        json_object_set_new(root, "concurrency", json_integer(c->concurrency)) < 0 ||
        json_object_set_new(root, "args", list_to_json(c->args)) < 0 ||
        json_object_set_new(root, "env", env_to_json(c->env)) < 0 ||
        (c->reserved_concurrency > 0 &&
         json_object_set_new(root, "reserved_concurrency", json_integer(c->reserved_concurrency)) <
             0) ||
        (c->list_calls && json_object_set_new(root, "list_calls", json_true()) < 0) ||
        (c->program && json_object_set_new(root, "program", json_string(c->program)) < 0) ||
        (c->machine.set &&
         json_object_set_new(root, "machine", machine_config_to_json(&c->machine)) < 0) ||
        (c->publish && json_object_set_new(root, "publish", list_to_json(c->publish)) < 0) ||
        (c->egress && json_object_set_new(root, "egress", list_to_json(c->egress)) < 0)) {
        return un_json_text(NULL); /* takes note that memory ran out here */
    }
    return un_json_text(root);
}

/* --- the interface ---------------------------------------------------------------------------- */

/* What a program has and a machine has not. */
static int check_no_program(const struct function_config *c, struct un_error *err)
{
    const char *what =
        c->args && c->args[0]
            ? "args: a machine image has a command line: machine.append (--append)"
        : c->env && c->env[0] ? "env: a machine image has no environment; its command line is "
                                "machine.append (--append)"
        : c->isolation == FUNCTION_RESET
            ? "isolation: reset is for programs; a machine that serves more than one request is a "
              "service (machine.service, --service)"
        : c->driver == FUNCTION_KVM ? "driver: kvm runs programs; machine images are run by libvirt"
                                    : NULL;
    return what ? un_error_set(err, -EINVAL, "%s", what) : 0;
}

int function_settle_interface(struct function_config *c, enum image_kind kind, struct un_error *err)
{
    bool sdk = kind == IMAGE_SDK;
    bool program = image_kind_is_linux(kind);
    if (c->interface == FUNCTION_DEFAULT) {
        c->interface = sdk ? FUNCTION_SDK : program ? FUNCTION_FILTER : FUNCTION_HTTP;
    }
    if (c->program && !program) {
        return un_error_set(err, -EINVAL, "program: an image of kind %s has no root file system",
                            image_kind_name(kind));
    }
    if (kind == IMAGE_INITRD) {
        return un_error_set(
            err, -EINVAL,
            "image: an initial RAM disk has no kernel; deploy the kernel, and this as its "
            "initrd (machine.initrd, --initrd)");
    }
    if (kind == IMAGE_DISK && (c->machine.initrd[0] || c->machine.disk[0])) {
        return un_error_set(
            err, -EINVAL,
            "machine: %s: goes with a kernel, and this image is a disk, which brings "
            "its own; attach further disks as volumes",
            c->machine.initrd[0] ? "initrd" : "disk");
    }
    if (c->machine.set && (sdk || program)) {
        return un_error_set(
            err, -EINVAL,
            "machine: an image of kind %s brings no kernel of its own; a machine image "
            "is an ELF file with a PVH note or a multiboot header or of Linux' "
            "64-bit boot protocol, a Linux bzImage or a disk",
            image_kind_name(kind));
    }
    if (c->snapshot == FUNCTION_SNAPSHOT_START && !program) {
        return un_error_set(err, -EINVAL,
                            sdk ? "snapshot: start is for Linux programs; one with the guest SDK "
                                  "says itself when, by unid_next()"
                                : "snapshot: is for programs; machine images have none");
    }
    c->machine.set = !sdk && !program;
    int rc = c->machine.set ? check_no_program(c, err) : 0;
    if (rc < 0) {
        return rc;
    }
    if (c->interface == FUNCTION_LAMBDA) {
        return un_error_set(err, -ENOTSUP,
                            "interface: lambda is not served by this unid; a program that speaks "
                            "HTTP itself can be deployed as http, one that reads standard input "
                            "as filter");
    }
    /* What brings a library OS along speaks the guest contract as an SDK image does, and is one. */
    if (c->interface == FUNCTION_TCP && !c->machine.service) {
        return un_error_set(
            err, -EINVAL,
            "interface: tcp is for machine images that are services, whose machines "
            "outlive a connection (machine.service, unictl deploy --service)");
    }
    bool fits = sdk       ? true
                : program ? c->interface != FUNCTION_SDK && c->interface != FUNCTION_TCP
                          : c->interface == FUNCTION_HTTP || c->interface == FUNCTION_TCP;
    return fits ? 0
                : un_error_set(
                      err, -EINVAL, "interface: \"%s\" does not go with an image of kind %s; %s",
                      function_interface_name(c->interface), image_kind_name(kind),
                      program ? "it must be filter, cgi or http" : "it must be http or tcp");
}

int function_settle_image(struct function_config *c, const struct image_mapping *image,
                          struct un_error *err)
{
    uint64_t memory = (uint64_t)c->memory_mib << 20;
    if (!c->memory_given && memory < image->memory_advised) {
        memory = image->memory_advised;
        c->memory_mib = (uint32_t)(memory >> 20);
    }
    if (memory < image->memory_least) {
        return un_error_set(
            err, -EINVAL, "memory_mib: the program and its files need at least %llu, given were %u",
            (unsigned long long)(image->memory_least >> 20), c->memory_mib);
    }
    un_autojson json_t *report = NULL;
    const char *program = c->program;
    if (!program && un_json_parse(image->report, image->report_size, &report, err) == 0) {
        program = json_string_value(json_object_get(report, "program"));
    }
    return program && program[0]
               ? 0
               : un_error_set(err, -EINVAL,
                              "program: is missing; the root file system does not say what runs "
                              "(unictl deploy: --program PATH, or --rootfs TAR and the path)");
}

/* --- the snapshot's key ----------------------------------------------------------------------- */

/* A number and the string it counts, so that no two lists of strings have the same bytes. */
static int add_string(struct un_buf *text, const char *s)
{
    return un_buf_printf(text, "%zu:%s,", strlen(s), s);
}

static int add_strings(struct un_buf *text, const char *label, char *const *list)
{
    int rc = un_buf_printf(text, "%s", label);
    for (size_t i = 0; rc == 0 && list && list[i]; i++) {
        rc = add_string(text, list[i]);
    }
    return rc;
}

int function_snapshot_key(const char *name, const struct function_config *c,
                          char ret[FUNCTION_SNAPSHOT_KEY_SIZE], struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    char digest[IMAGE_DIGEST_SIZE], preparer[PREPARE_ID_SIZE];
    int rc = un_buf_printf(&text, "unid snapshot, abi %d.%d, image %s, memory %u, interface %s, ",
                           UNID_ABI_MAJOR, UNID_ABI_MINOR, c->image, c->memory_mib,
                           function_interface_name(c->interface));
    if (rc == 0 && c->snapshot != FUNCTION_SNAPSHOT_READY) {
        rc = un_buf_printf(&text, "snapshot %s, ", function_snapshot_name(c->snapshot));
    }
    prepare_id(preparer);
    rc = rc < 0 ? rc : un_buf_printf(&text, "%s, ", preparer);
    rc = rc < 0 ? rc : add_strings(&text, "program ", (char *const[]){c->program, NULL});
    rc = rc < 0 ? rc : add_strings(&text, "name ", (char *const[]){(char *)name, NULL});
    rc = rc < 0 ? rc : add_strings(&text, "args ", c->args);
    rc = rc < 0 ? rc : add_strings(&text, "env ", c->env);
    EVP_MD_CTX *md = rc < 0 ? NULL : image_digest_new();
    if (!md) {
        return no_memory(err);
    }
    rc = EVP_DigestUpdate(md, text.data, text.len) == 1 ? image_digest_final(md, digest, err)
                                                        : un_error_set(err, -EIO, "SHA-256 failed");
    EVP_MD_CTX_free(md);
    if (rc == 0) {
        memcpy(ret, digest + strlen("sha256:"), FUNCTION_SNAPSHOT_KEY_SIZE);
    }
    return rc;
}
