/* config.c - see config.h. */
#include "daemon/config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/endpoint.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/log.h"
#include "netplumb/net.h"

enum { CONFIG_FILE_MAX = 1 << 20 };

enum type { T_STRING, T_LIST, T_INT };

struct setting {
    const char *key;
    enum type type;
    size_t offset;
    int64_t least, most;
    const char *flag; /* without "--"; NULL: only --set */
    const char *value_name, *help;
};

#define STRING(key, field, flag, value, help)                                                      \
    {                                                                                              \
        key, T_STRING, offsetof(struct config, field), 0, 0, flag, value, help                     \
    }
#define INT(key, field, least, most, flag, help)                                                   \
    {                                                                                              \
        key, T_INT, offsetof(struct config, field), least, most, flag, "N", help                   \
    }

static const struct setting settings[] = {
    {"listen", T_LIST, offsetof(struct config, listen), 0, 0, "listen", "ADDR:PORT",
     "listen here; may be repeated; \"none\" for the socket only"},
    STRING("socket", socket, "socket", "PATH", "the Unix socket; \"none\" for none"),
    STRING("state_dir", state_dir, "state-dir", "DIR", "where unid.db and cache/ live"),
    STRING("runtime_dir", runtime_dir, "runtime-dir", "DIR", "short-lived sockets"),
    STRING("driver", driver, "driver", "NAME", "auto, kvm, libvirt, or fake (for tests)"),
    STRING("libvirt_uri", libvirt_uri, "libvirt-uri", "URI", "a local QEMU URI of libvirt"),
    STRING("accelerator", accelerator, "accelerator", "NAME",
           "auto (measured at the first start), kvm, or tcg"),
    STRING("log.level", log_level, "log-level", "LEVEL", "debug, info, warn, or error"),
    STRING("log.format", log_format, "log-format", "FORMAT", "text or json"),
    STRING("api.token_file", token_file, "token-file", "FILE",
           "REST calls over TCP must carry this file's token"),
    {"api.hosts", T_LIST, offsetof(struct config, hosts), 0, 0, "api-host", "NAME",
     "REST also answers to this host name; may be repeated"},
    STRING("ready_file", ready_file, "ready-file", "FILE",
           "written when unid serves: process id and addresses, as JSON"),
    INT("drain_timeout_ms", drain_timeout_ms, 0, 3600000, "drain-timeout",
        "milliseconds that running requests get after SIGTERM"),
    INT("memory_mib", memory_mib, 0, INT32_MAX, "memory",
        "MiB for all VMs together; 0: half of the host's"),
    INT("pool.min", pool_min, 0, LIMIT_POOL_SHELLS, "pool-min",
        "shells kept ready when idle; not given: kvm 8, libvirt 1"),
    INT("pool.max", pool_max, 0, LIMIT_POOL_SHELLS, "pool-max",
        "shells kept ready when busy; not given: kvm 48, libvirt 8"),
    INT("pool.idle_ms", pool_idle_ms, 10, INT32_MAX, NULL, "idle time that costs the pool a shell"),
    INT("pool.shell_mib", pool_shell_mib, 8, LIMIT_FUNCTION_MEMORY_MIB, NULL,
        "memory of a pool's shell"),
    INT("limits.queue_per_function", queue_per_function, 0, INT32_MAX, NULL,
        "requests that may wait for one function"),
    INT("limits.queue_total", queue_total, 0, INT32_MAX, NULL, "requests that may wait in all"),
    INT("limits.queue_wait_ms", queue_wait_ms, 1, INT32_MAX, NULL, "longest wait for a VM"),
    INT("limits.max_request_bytes", max_request_bytes, 0, INT64_MAX, NULL, "request body"),
    INT("limits.max_response_bytes", max_response_bytes, 0, INT64_MAX, NULL, "response body"),
    INT("limits.max_log_bytes", max_log_bytes, 0, INT32_MAX, NULL, "log of one invocation"),
    INT("images.max_bytes", image_max_bytes, 1, INT64_MAX, NULL, "size of an image"),
    INT("images.max_cache_bytes", image_max_cache_bytes, 0, INT64_MAX, NULL,
        "unpacked images kept"),
    INT("images.gc_hours", image_gc_hours, 0, 1 << 20, NULL,
        "images that nothing has referred to for so long are removed; 0: never"),
    INT("receipts.max_rows", receipts_max_rows, 0, INT64_MAX, NULL, "receipts kept"),
    INT("receipts.max_days", receipts_max_days, 0, 36500, NULL, "age of receipts kept"),
    INT("logs.max_bytes", logs_max_bytes, 0, INT64_MAX, NULL, "kept of what functions log"),
    INT("logs.max_days", logs_max_days, 0, 36500, NULL, "age of that"),
    INT("metrics.functions", metrics_functions, 0, LIMIT_METRICS_FUNCTIONS_MOST, NULL,
        "functions that are counted each for itself"),
    INT("replay.request_bytes", replay_request_bytes, 0, 16 << 20, NULL,
        "kept of a failed request, and of its answer; 0: none are kept"),
    INT("replay.total_bytes", replay_total_bytes, 0, INT64_MAX, NULL, "kept of all of them"),
    INT("replay.hours", replay_hours, 1, 24 * 3650, NULL, "age of those kept"),
    INT("retry.max_attempts", retry_max_attempts, 1, 1000, NULL,
        "events and asynchronous invocations: how often one may fail"),
    INT("retry.max_age_ms", retry_max_age_ms, 1, 366ll * 24 * 3600 * 1000, NULL,
        "a failed attempt at an older one is the last"),
    INT("retry.backoff_ms", retry_backoff_ms, 1, 86400000, NULL,
        "the first delay is random up to this; it doubles"),
    INT("retry.backoff_max_ms", retry_backoff_max_ms, 1, 86400000, NULL, "no delay is longer"),
    STRING("machines.network", machines_network, NULL, "WORD",
           "auto, tap (needs root), user, or none: how machine images are reached"),
    STRING("machines.range", machines_range, NULL, "CIDR", "addresses of machine images on taps"),
    INT("machines.shell_keep_ms", machines_shell_keep_ms, 0, INT32_MAX, NULL,
        "how long a machine made ahead for any service stays unused; 0: none is made"),
    INT("http.max_head_bytes", http_max_head_bytes, 1024, 1 << 20, NULL, "request line and fields"),
    INT("http.max_connections", http_max_connections, 1, 1 << 20, NULL, "connections at once"),
    INT("http.idle_timeout_ms", http_idle_timeout_ms, 10, INT32_MAX, NULL, "between requests"),
    INT("http.head_timeout_ms", http_head_timeout_ms, 10, INT32_MAX, NULL, "for a whole head"),
    INT("http.stall_timeout_ms", http_stall_timeout_ms, 10, INT32_MAX, NULL,
        "without a byte moving in a body"),
};

/* --- setting values --------------------------------------------------------------------------- */

static int replace(char **slot, const char *value, struct un_error *err)
{
    char *copy = strdup(value);
    if (!copy) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    free(*slot);
    *slot = copy;
    return 0;
}

static struct config_list *list_of(struct config *c, const struct setting *s)
{
    return (struct config_list *)((char *)c + s->offset);
}

static void clear_list(struct config_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(un_steal(&list->items[i]));
    }
    list->count = 0;
}

/* "none" empties the list. */
static int add_to_list(struct config *c, const struct setting *s, const char *value,
                       struct un_error *err)
{
    struct config_list *list = list_of(c, s);
    if (strcmp(value, "none") == 0) {
        clear_list(list);
        return 0;
    }
    if (list->count == CONFIG_LIST_MAX) {
        return un_error_set(err, -EINVAL, "%s: at most %d values", s->key, CONFIG_LIST_MAX);
    }
    int rc = replace(&list->items[list->count], value, err);
    if (rc == 0) {
        list->count++;
    }
    return rc;
}

static int set_int(struct config *c, const struct setting *s, int64_t value, struct un_error *err)
{
    if (value < s->least || value > s->most) {
        return un_error_set(err, -EINVAL, "%s: must be from %" PRId64 " to %" PRId64, s->key,
                            s->least, s->most);
    }
    *(int64_t *)((char *)c + s->offset) = value;
    return 0;
}

/* A setting from the command line. */
static int set_text(struct config *c, const struct setting *s, const char *text,
                    struct un_error *err)
{
    if (s->type == T_LIST) {
        return add_to_list(c, s, text, err);
    }
    if (s->type == T_STRING) {
        return replace((char **)((char *)c + s->offset), text, err);
    }
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end) {
        return un_error_set(err, -EINVAL, "%s: \"%.40s\" is not a whole number", s->key, text);
    }
    return set_int(c, s, value, err);
}

static int set_list_json(struct config *c, const struct setting *s, const json_t *value,
                         struct un_error *err)
{
    clear_list(list_of(c, s));
    size_t i;
    json_t *one;
    json_array_foreach(value, i, one)
    {
        if (!json_is_string(one)) {
            return un_error_set(err, -EINVAL, "%s: must be a list of strings", s->key);
        }
        int rc = add_to_list(c, s, json_string_value(one), err);
        if (rc < 0) {
            return rc;
        }
    }
    return json_is_array(value)
               ? 0
               : un_error_set(err, -EINVAL, "%s: must be a list of strings", s->key);
}

static int set_json(struct config *c, const struct setting *s, const json_t *value,
                    struct un_error *err)
{
    if (s->type == T_LIST) {
        return set_list_json(c, s, value, err);
    }
    if (s->type == T_INT) {
        if (!json_is_integer(value)) {
            return un_error_set(err, -EINVAL, "%s: must be a whole number", s->key);
        }
        return set_int(c, s, json_integer_value(value), err);
    }
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value)) {
        return un_error_set(err, -EINVAL, "%s: must be a string", s->key);
    }
    return replace((char **)((char *)c + s->offset), json_string_value(value), err);
}

static const struct setting *find_key(const char *key, size_t len)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(settings); i++) {
        if (strlen(settings[i].key) == len && memcmp(settings[i].key, key, len) == 0) {
            return &settings[i];
        }
    }
    return NULL;
}

/* --- the file --------------------------------------------------------------------------------- */

/* Whether any key of the table starts with "prefix.". */
static bool is_section(const char *prefix)
{
    size_t len = strlen(prefix);
    for (size_t i = 0; i < UN_ARRAY_SIZE(settings); i++) {
        if (strncmp(settings[i].key, prefix, len) == 0 && settings[i].key[len] == '.') {
            return true;
        }
    }
    return false;
}

static int apply_object(struct config *c, const char *section, const json_t *obj,
                        struct un_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)obj, name, value)
    {
        char key[128];
        snprintf(key, sizeof key, "%s%s%s", section, *section ? "." : "", name);
        const struct setting *s = find_key(key, strlen(key));
        int rc;
        if (s) {
            rc = set_json(c, s, value, err);
        } else if (!*section && json_is_object(value) && is_section(name)) {
            rc = apply_object(c, name, value, err);
        } else {
            rc = un_error_set(err, -EINVAL, "unknown setting \"%.80s\" (unid --help lists them)",
                              key);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int config_parse_file(struct config *c, const char *text, size_t len, struct un_error *err)
{
    un_autojson json_t *root = NULL;
    int rc = un_json_parse(text, len, &root, err);
    if (rc < 0) {
        return rc;
    }
    if (!json_is_object(root)) {
        return un_error_set(err, -EINVAL, "must be a JSON object");
    }
    return apply_object(c, "", root, err);
}

static int read_file(struct config *c, const char *path, struct un_error *err)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        return un_error_errno(err, -errno, "configuration file %s", path);
    }
    char *text = malloc(CONFIG_FILE_MAX);
    size_t n = text ? fread(text, 1, CONFIG_FILE_MAX, f) : 0;
    bool whole = text && !ferror(f) && n < CONFIG_FILE_MAX;
    fclose(f);
    int rc = whole ? config_parse_file(c, text, n, err)
                   : un_error_set(err, -EIO, "cannot be read, or is larger than 1 MiB");
    free(text);
    return rc < 0 ? un_error_context(err, "configuration file %s", path) : 0;
}

/* --- the command line ------------------------------------------------------------------------- */

static int set_pair(struct config *c, const char *pair, struct un_error *err)
{
    const char *eq = strchr(pair, '=');
    const struct setting *s = eq ? find_key(pair, (size_t)(eq - pair)) : NULL;
    if (!s) {
        return un_error_set(err, -EINVAL, "--set %.80s: give KEY=VALUE with a key of unid --help",
                            pair);
    }
    return set_text(c, s, eq + 1, err);
}

static const struct setting *find_flag(const char *name, size_t len)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(settings); i++) {
        const char *flag = settings[i].flag;
        if (flag && strlen(flag) == len && memcmp(flag, name, len) == 0) {
            return &settings[i];
        }
    }
    return NULL;
}

/* The state of going through the arguments once. */
struct pass {
    bool file_only; /* first pass: only --config, whose settings the flags then override */
    bool list_seen[UN_ARRAY_SIZE(settings)];
};

static int apply_flag(struct config *c, struct pass *pass, const char *name, size_t name_len,
                      const char *value, struct un_error *err)
{
    if (name_len == 6 && memcmp(name, "config", 6) == 0) {
        return pass->file_only ? read_file(c, value, err) : 0;
    }
    if (pass->file_only) {
        return 0;
    }
    if (name_len == 3 && memcmp(name, "set", 3) == 0) {
        return set_pair(c, value, err);
    }
    const struct setting *s = find_flag(name, name_len);
    if (s->type == T_LIST && !pass->list_seen[s - settings]) {
        clear_list(list_of(c, s));
        pass->list_seen[s - settings] = true;
    }
    return set_text(c, s, value, err);
}

static bool is_word(const char *arg, const char *word, const char *short_word)
{
    return strcmp(arg, word) == 0 || strcmp(arg, short_word) == 0;
}

static int walk_arguments(int argc, char **argv, struct config *c, struct pass *pass,
                          enum config_action *ret_action, struct un_error *err)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (is_word(arg, "--help", "-h")) {
            *ret_action = CONFIG_SHOW_HELP;
            return 0;
        }
        if (is_word(arg, "--version", "-V")) {
            *ret_action = CONFIG_SHOW_VERSION;
            return 0;
        }
        if (strcmp(arg, "--check-config") == 0) {
            c->check_only = true;
            continue;
        }
        const char *name = arg + 2;
        size_t len = strcspn(arg, "=") - 2;
        bool known = strncmp(arg, "--", 2) == 0 &&
                     (find_flag(name, len) || (len == 6 && memcmp(name, "config", 6) == 0) ||
                      (len == 3 && memcmp(name, "set", 3) == 0));
        if (!known) {
            return un_error_set(err, -EINVAL, "unknown argument \"%.80s\" (see unid --help)", arg);
        }
        const char *value = arg[len + 2] == '=' ? arg + len + 3 : argv[++i];
        if (!value) {
            return un_error_set(err, -EINVAL, "%s needs a value", arg);
        }
        int rc = apply_flag(c, pass, name, len, value, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int config_load(int argc, char **argv, struct config *ret, enum config_action *ret_action,
                struct un_error *err)
{
    *ret_action = CONFIG_RUN;
    int rc = config_init(ret, err);
    struct pass files = {.file_only = true}, flags = {0};
    if (rc == 0) {
        rc = walk_arguments(argc, argv, ret, &files, ret_action, err);
    }
    if (rc == 0 && *ret_action == CONFIG_RUN) {
        rc = walk_arguments(argc, argv, ret, &flags, ret_action, err);
    }
    return rc < 0 || *ret_action != CONFIG_RUN ? rc : config_validate(ret, err);
}

/* --- defaults and checks ---------------------------------------------------------------------- */

/* Formats into a new string in `slot`. */
#define SET_FORMATTED(slot, err, ...)                                                              \
    ({                                                                                             \
        char text_[4096];                                                                          \
        snprintf(text_, sizeof text_, __VA_ARGS__);                                                \
        replace(slot, text_, err);                                                                 \
    })

static int init_paths(struct config *c, struct un_error *err)
{
    if (geteuid() == 0) {
        int rc = replace(&c->state_dir, "/var/lib/unid", err);
        rc = rc < 0 ? rc : replace(&c->runtime_dir, "/run/unid", err);
        return rc < 0 ? rc : replace(&c->socket, "/run/unid/unid.sock", err);
    }
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    const char *run = getenv("XDG_RUNTIME_DIR");
    int rc = state && *state
                 ? SET_FORMATTED(&c->state_dir, err, "%s/unid", state)
                 : SET_FORMATTED(&c->state_dir, err, "%s/.local/state/unid", home ? home : "");
    if (rc < 0) {
        return rc;
    }
    if (run && *run) {
        rc = SET_FORMATTED(&c->runtime_dir, err, "%s/unid", run);
        return rc < 0 ? rc : SET_FORMATTED(&c->socket, err, "%s/unid.sock", run);
    }
    rc = SET_FORMATTED(&c->runtime_dir, err, "/tmp/unid-%u", (unsigned)geteuid());
    return rc < 0 ? rc : SET_FORMATTED(&c->socket, err, "%s/unid.sock", c->runtime_dir);
}

int config_init(struct config *ret, struct un_error *err)
{
    *ret = (struct config){
        .drain_timeout_ms = 30000,
        .pool_min = CONFIG_BY_DRIVER,
        .pool_max = CONFIG_BY_DRIVER,
        .pool_idle_ms = 30000,
        .pool_shell_mib = 64,
        .machines_shell_keep_ms = DEFAULT_MACHINE_SHELL_KEEP_MS,
        .queue_per_function = LIMIT_QUEUE_FUNCTION,
        .queue_total = LIMIT_QUEUE_TOTAL,
        .queue_wait_ms = LIMIT_QUEUE_WAIT_MS,
        .max_request_bytes = LIMIT_REQUEST_BODY_BYTES,
        .max_response_bytes = LIMIT_RESPONSE_BODY_BYTES,
        .max_log_bytes = LIMIT_LOG_BYTES,
        .image_max_bytes = LIMIT_IMAGE_BYTES,
        .image_max_cache_bytes = LIMIT_CACHE_BYTES,
        .image_gc_hours = 24,
        .receipts_max_rows = LIMIT_RECEIPTS_ROWS,
        .receipts_max_days = LIMIT_RECEIPTS_DAYS,
        .logs_max_bytes = (int64_t)LIMIT_LOGS_BYTES,
        .logs_max_days = LIMIT_LOGS_DAYS,
        .metrics_functions = LIMIT_METRICS_FUNCTIONS,
        .replay_request_bytes = LIMIT_REPLAY_REQUEST_BYTES,
        .replay_total_bytes = (int64_t)LIMIT_REPLAY_TOTAL_BYTES,
        .replay_hours = LIMIT_REPLAY_HOURS,
        .retry_max_attempts = DEFAULT_ASYNC_ATTEMPTS,
        .retry_max_age_ms = (int64_t)DEFAULT_ASYNC_AGE_MS,
        .retry_backoff_ms = DEFAULT_ASYNC_BACKOFF_MS,
        .retry_backoff_max_ms = DEFAULT_ASYNC_BACKOFF_MOST_MS,
        .http_max_head_bytes = LIMIT_HTTP_HEAD_BYTES,
        .http_max_connections = LIMIT_HTTP_CONNECTIONS,
        .http_idle_timeout_ms = LIMIT_HTTP_IDLE_MS,
        .http_head_timeout_ms = LIMIT_HTTP_HEAD_MS,
        .http_stall_timeout_ms = LIMIT_HTTP_STALL_MS,
    };
    int rc = init_paths(ret, err);
    rc = rc < 0 ? rc : add_to_list(ret, find_key("listen", 6), "127.0.0.1:7070", err);
    rc = rc < 0 ? rc : replace(&ret->driver, "auto", err);
    rc = rc < 0 ? rc : replace(&ret->libvirt_uri, "qemu:///embed", err);
    rc = rc < 0 ? rc : replace(&ret->accelerator, "auto", err);
    rc = rc < 0 ? rc : replace(&ret->log_level, "info", err);
    rc = rc < 0 ? rc : replace(&ret->machines_network, "auto", err);
    rc = rc < 0 ? rc : replace(&ret->machines_range, "10.87.0.0/16", err);
    rc = rc < 0 ? rc : replace(&ret->log_format, "text", err);
    rc = rc < 0 ? rc : replace(&ret->token_file, "", err);
    return rc < 0 ? rc : replace(&ret->ready_file, "", err);
}

static int check_word(const char *key, const char *word, const char *const *known,
                      struct un_error *err)
{
    char list[128] = "";
    for (; *known; known++) {
        if (strcmp(*known, word) == 0) {
            return 0;
        }
        strncat(list, " ", sizeof list - strlen(list) - 1);
        strncat(list, *known, sizeof list - strlen(list) - 1);
    }
    return un_error_set(err, -EINVAL, "%s: \"%.40s\" is none of:%s", key, word, list);
}

int config_read_token(const struct config *c, char *token, size_t size, struct un_error *err)
{
    un_autoclose int fd = open(c->token_file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, token, size - 1);
    if (n < 0) {
        return un_error_errno(err, -errno, "token file %s", c->token_file);
    }
    token[n] = '\0';
    token[strcspn(token, "\r\n")] = '\0';
    if (strlen(token) < 16) {
        return un_error_set(err, -EINVAL, "token file %s: a token has at least 16 characters",
                            c->token_file);
    }
    return 0;
}

static int check_listen(const char *address, struct un_error *err)
{
    struct un_endpoint e;
    if (!strchr(address, ':') || un_endpoint_parse_listen(address, strlen(address), &e, NULL) < 0) {
        return un_error_set(err, -EINVAL,
                            "listen: \"%.100s\" is no address and port, like 127.0.0.1:7070 or "
                            "[::1]:7070",
                            address);
    }
    return 0;
}

/* Where it listens, and whom it lets in. */
static int check_access(const struct config *c, struct un_error *err)
{
    struct sockaddr_un addr;
    char token[CONFIG_TOKEN_SIZE];
    for (size_t i = 0; i < c->listen.count; i++) {
        int rc = check_listen(c->listen.items[i], err);
        if (rc < 0) {
            return rc;
        }
    }
    if (c->listen.count == 0 && strcmp(c->socket, "none") == 0) {
        return un_error_set(err, -EINVAL, "nothing to listen on: give listen or socket");
    }
    if (strlen(c->socket) >= sizeof(addr.sun_path)) {
        return un_error_set(err, -EINVAL, "socket: a path of at most %zu bytes",
                            sizeof(addr.sun_path) - 1);
    }
    return *c->token_file ? config_read_token(c, token, sizeof(token), err) : 0;
}

int config_validate(const struct config *c, struct un_error *err)
{
    static const char *const drivers[] = {"auto", "kvm", "libvirt", "fake", NULL};
    static const char *const accelerators[] = {"auto", "kvm", "tcg", NULL};
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    static const char *const formats[] = {"text", "json", NULL};
    static const char *const networks[] = {"auto", "tap", "user", "none", NULL};
    int rc = check_word("driver", c->driver, drivers, err);
    rc = rc < 0 ? rc : check_word("accelerator", c->accelerator, accelerators, err);
    rc = rc < 0 ? rc : check_word("log.level", c->log_level, levels, err);
    rc = rc < 0 ? rc : check_word("log.format", c->log_format, formats, err);
    rc = rc < 0 ? rc : check_word("machines.network", c->machines_network, networks, err);
    if (rc < 0) {
        return rc;
    }
    rc = net_range_valid(c->machines_range, err);
    if (rc < 0) {
        return un_error_context(err, "machines.range");
    }
    if (c->pool_max != CONFIG_BY_DRIVER && c->pool_min > c->pool_max) {
        return un_error_set(err, -EINVAL, "pool.min %" PRId64 " is above pool.max %" PRId64,
                            c->pool_min, c->pool_max);
    }
    if (c->state_dir[0] != '/' || c->runtime_dir[0] != '/') {
        return un_error_set(err, -EINVAL, "state_dir and runtime_dir must be absolute paths");
    }
    return check_access(c, err);
}

struct config_pool config_pool(const struct config *c, const char *driver)
{
    /* A shell of the native driver costs next to nothing while it waits, and it takes some dozens of
     * them to keep up with what it can start; one of libvirt is a whole QEMU. */
    struct config_pool pool =
        strcmp(driver, "kvm") == 0 ? (struct config_pool){8, 48} : (struct config_pool){1, 8};

    if (c->pool_max != CONFIG_BY_DRIVER) {
        pool.max = (unsigned)c->pool_max;
        pool.min = pool.min < pool.max ? pool.min : pool.max;
    }
    if (c->pool_min != CONFIG_BY_DRIVER) {
        pool.min = (unsigned)c->pool_min;
        pool.max = pool.max > pool.min ? pool.max : pool.min;
    }
    return pool;
}

void config_done(struct config *c)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(settings); i++) {
        if (settings[i].type == T_LIST) {
            clear_list(list_of(c, &settings[i]));
        } else if (settings[i].type == T_STRING) {
            free(un_steal((char **)((char *)c + settings[i].offset)));
        }
    }
}

void config_print_help(void)
{
    printf("usage: unid [--config FILE] [--check-config] [--set KEY=VALUE]... [flags]\n\n"
           "Runs functions as unikernels, a VM for each request. See unid(8).\n\n");
    for (size_t i = 0; i < UN_ARRAY_SIZE(settings); i++) {
        const struct setting *s = &settings[i];
        char left[64];
        if (s->flag) {
            snprintf(left, sizeof left, "--%s %s", s->flag, s->value_name);
        } else {
            snprintf(left, sizeof left, "--set %s=%s", s->key, s->value_name);
        }
        printf("  %-36s %s\n", left, s->help);
    }
    printf("  %-36s %s\n  %-36s %s\n", "--help, --version", "print and exit", "--check-config",
           "read all settings, say what is wrong, exit");
}

void config_each_key(void (*fn)(void *arg, const char *key), void *arg)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(settings); i++) {
        fn(arg, settings[i].key);
    }
}
