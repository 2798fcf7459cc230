/* config.h - the daemon's settings: defaults, the configuration file, flags.
 *
 * One table (config.c) names each setting once: its key in the JSON file ("pool.min" is {"pool":
 * {"min": ..}}), its type and bounds, its flag if it has one of its own. Any key can be given on
 * the command line as --set KEY=VALUE. Later sources win: defaults, file, flags.
 *
 * To add a setting: a field here, a line in the table, a line in docs/man/unid.8 (a test compares).
 */
#ifndef UNID_DAEMON_CONFIG_H
#define UNID_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum { CONFIG_LIST_MAX = 8, CONFIG_BY_DRIVER = -1 };

struct config_list {
    char *items[CONFIG_LIST_MAX + 1]; /* NULL-terminated */
    size_t count;
};

struct config {
    struct config_list listen; /* "ADDRESS:PORT"; empty when "none" was given */
    struct config_list hosts;  /* names that REST answers to */
    char *socket;              /* path of the Unix socket, "none" for none */
    char *state_dir, *runtime_dir;
    char *driver; /* "auto", "libvirt", "fake" */
    char *libvirt_uri;
    char *accelerator; /* "auto", "kvm", "tcg" */
    char *log_level, *log_format;
    char *token_file;
    char *ready_file;
    int64_t drain_timeout_ms;
    int64_t memory_mib;
    int64_t pool_min, pool_max; /* or CONFIG_BY_DRIVER, when not set: see config_pool */
    int64_t pool_idle_ms, pool_shell_mib;
    int64_t queue_per_function, queue_total, queue_wait_ms;
    int64_t max_request_bytes, max_response_bytes, max_log_bytes;
    int64_t image_max_bytes, image_max_cache_bytes, image_gc_hours;
    int64_t receipts_max_rows, receipts_max_days;
    int64_t logs_max_bytes, logs_max_days, metrics_functions;
    int64_t replay_request_bytes, replay_total_bytes, replay_hours;
    int64_t retry_max_attempts, retry_max_age_ms, retry_backoff_ms, retry_backoff_max_ms;
    char *machines_network; /* "auto", "tap", "user", "none" */
    char *machines_range;
    int64_t machines_shell_keep_ms;
    int64_t http_max_head_bytes, http_max_connections;
    int64_t http_idle_timeout_ms, http_head_timeout_ms, http_stall_timeout_ms;
    bool check_only; /* --check-config */
};

/* What the command line asks for. */
enum config_action { CONFIG_RUN, CONFIG_SHOW_HELP, CONFIG_SHOW_VERSION };

/* Fills `ret` with the defaults for this user (free with config_done). -ENOMEM. */
int config_init(struct config *ret, struct un_error *err);

/* Reads defaults, the file named by --config, and the flags. -EINVAL with the flag or key and what
 * it takes; the errno of the file. `ret` must be released with config_done in any case. */
int config_load(int argc, char **argv, struct config *ret, enum config_action *ret_action,
                struct un_error *err);

/* Sets the settings that a configuration file's text names. -EINVAL. Untrusted input: fuzzed. */
int config_parse_file(struct config *c, const char *text, size_t len, struct un_error *err);

/* pool.min and pool.max; what is not set follows from the name of the driver that functions run with
 * by default, and gives way to the one that is set. */
struct config_pool {
    unsigned min, max;
};
struct config_pool config_pool(const struct config *c, const char *driver);

/* What the bounds of single settings cannot say: pool.min <= pool.max and the like, and whether the token
 * can be read. -EINVAL, the errno of the token's file. */
int config_validate(const struct config *c, struct un_error *err);

/* The token of api.token_file, without the newline at its end, into CONFIG_TOKEN_SIZE bytes. -EINVAL, the
 * errno of the file. */
enum { CONFIG_TOKEN_SIZE = 512 };
int config_read_token(const struct config *c, char *token, size_t size, struct un_error *err);

void config_done(struct config *c);

/* The usage text of `unid --help`. */
void config_print_help(void);

/* Calls `fn` with each key of the table. For the test that compares the manual. */
void config_each_key(void (*fn)(void *arg, const char *key), void *arg);

#endif
