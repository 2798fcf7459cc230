/* daemon.c - see daemon.h. */
#include "daemon/daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <config.h>

#include "api/api.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "daemon/doctor.h"
#include "daemon/drivers.h"
#include "daemon/machines.h"
#include "daemon/notify.h"
#include "events/events.h"
#include "hypervisor/hv.h"
#include "imagestore/function.h"
#include "imagestore/image.h"
#include "scheduler/scheduler.h"
#include "store/store.h"

enum { WORKER_THREADS = 4, GC_INTERVAL_US = 600 * 1000 * 1000, SOCKET_MODE = 0600 };
enum { READERS_WAIT_US = 2000 * 1000, READERS_CHECK_US = 10 * 1000 };

struct daemon {
    const struct config *config;
    struct un_loop *loop;
    struct un_workers *workers;
    struct store *store;
    struct imagestore *images;
    struct registry *registry;
    struct machines_start machines_start;
    struct drivers drivers;
    struct machines *machines;
    struct scheduler *scheduler;
    struct events *events;
    struct doctor *doctor;
    struct api *api;
    struct event *signals[2];
    struct un_timer gc_timer, readers_timer;
    uint64_t readers_until_us;
    bool draining, ports_opened;
};

/* --- directories ------------------------------------------------------------------------------ */

/* Makes a directory and its parents; 0700 for those that are new. */
static int make_dirs(const char *path, struct un_error *err)
{
    un_autofree char *copy = strdup(path);
    if (!copy) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    for (char *slash = strchr(copy + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash) {
            *slash = '\0';
        }
        if (mkdir(copy, 0700) < 0 && errno != EEXIST) {
            return un_error_errno(err, -errno, "make the directory %s", copy);
        }
        if (!slash) {
            break;
        }
        *slash = '/';
    }
    return access(path, W_OK | X_OK) < 0 ? un_error_errno(err, -errno, "directory %s", path) : 0;
}

/* Refuses a directory, or a link to one, of another user, who could put into it what would be taken for unid's:
 * the default runtime_dir can be below /tmp, with a name that anybody can guess. Root goes where it is told. */
static int check_owner(const char *path, struct un_error *err)
{
    uid_t own = geteuid();
    struct stat link, dir;
    if (lstat(path, &link) < 0 || stat(path, &dir) < 0) {
        return un_error_errno(err, -errno, "directory %s", path);
    }
    if (own != 0 &&
        ((link.st_uid != own && link.st_uid != 0) || (dir.st_uid != own && dir.st_uid != 0))) {
        return un_error_set(err, -EPERM,
                            "runtime_dir %s belongs to another user; name one of your own", path);
    }
    return 0;
}

/* --- opening, from below ---------------------------------------------------------------------- */

static int open_stores(struct daemon *d, struct un_error *err)
{
    static const struct store_schema *const schemas[] = {&imagestore_schema, &scheduler_schema,
                                                         &events_schema, NULL};
    un_autofree char *db = NULL, *cache = NULL, *volumes = NULL;
    if (asprintf(&db, "%s/unid.db", d->config->state_dir) < 0 ||
        asprintf(&cache, "%s/cache", d->config->state_dir) < 0 ||
        asprintf(&volumes, "%s/volumes", d->config->state_dir) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    struct store_spec store = {.loop = d->loop, .path = db, .schemas = schemas};
    int rc = store_open(&store, &d->store, err);
    if (rc < 0) {
        return rc;
    }
    struct imagestore_spec images = {.loop = d->loop,
                                     .store = d->store,
                                     .workers = d->workers,
                                     .cache_dir = cache,
                                     .volume_dir = volumes,
                                     .max_image_bytes = (uint64_t)d->config->image_max_bytes,
                                     .max_cache_bytes = (uint64_t)d->config->image_max_cache_bytes};
    rc = imagestore_open(&images, &d->images, err);
    return rc < 0 ? rc : registry_open(d->loop, d->store, &d->registry, err);
}

static int open_scheduler(struct daemon *d, struct un_error *err)
{
    const struct config *c = d->config;
    struct config_pool pool = config_pool(c, hv_driver_ops(d->drivers.items[0])->name);
    struct sched_spec spec = {.loop = d->loop,
                              .workers = d->workers,
                              .store = d->store,
                              .images = d->images,
                              .registry = d->registry,
                              .drivers = d->drivers.items,
                              .driver_count = d->drivers.count};
    sched_settings_init(&spec.settings);
    struct sched_settings *s = &spec.settings;
    s->memory_mib = (uint64_t)c->memory_mib;
    s->shell_mib = (uint64_t)c->pool_shell_mib;
    s->pool_min = pool.min;
    s->pool_max = pool.max;
    s->pool_idle_us = (uint64_t)c->pool_idle_ms * 1000;
    s->queue_per_function = (unsigned)c->queue_per_function;
    s->queue_total = (unsigned)c->queue_total;
    s->queue_wait_us = (uint64_t)c->queue_wait_ms * 1000;
    s->max_request_bytes = (uint64_t)c->max_request_bytes;
    s->max_response_bytes = (uint64_t)c->max_response_bytes;
    s->max_log_bytes = (uint64_t)c->max_log_bytes;
    s->receipts_max_rows = (uint64_t)c->receipts_max_rows;
    s->receipts_max_age_us = (uint64_t)c->receipts_max_days * 86400 * 1000000;
    s->replay_request_bytes = (uint64_t)c->replay_request_bytes;
    s->replay_total_bytes = (uint64_t)c->replay_total_bytes;
    s->replay_age_us = (uint64_t)c->replay_hours * 3600 * 1000000;
    s->retry = (struct async_policy){.max_attempts = (unsigned)c->retry_max_attempts,
                                     .max_age_ms = (uint64_t)c->retry_max_age_ms,
                                     .backoff_base_ms = (uint32_t)c->retry_backoff_ms,
                                     .backoff_max_ms = (uint32_t)c->retry_backoff_max_ms};
    int rc = sched_open(&spec, &d->scheduler, err);
    if (rc == 0) {
        rc = machines_attach(d->machines, d->scheduler, err);
    }
    return rc;
}

static int open_events(struct daemon *d, struct un_error *err)
{
    const struct events_spec spec = {
        .loop = d->loop, .store = d->store, .registry = d->registry, .scheduler = d->scheduler};
    return events_open(&spec, &d->events, err);
}

/* --- garbage ---------------------------------------------------------------------------------- */

static void on_collected(void *arg, int rc, const struct un_error *err)
{
    struct daemon *d = arg;
    if (rc < 0) {
        un_log(UN_LOG_WARN, "could not remove unused images; tried again later", "error",
               err->text);
    }
    if (!d->draining) {
        un_timer_arm_in(&d->gc_timer, GC_INTERVAL_US);
    }
}

static void collect_garbage(void *arg)
{
    struct daemon *d = arg;
    uint64_t age_us = (uint64_t)d->config->image_gc_hours * 3600 * 1000000;
    image_collect_garbage(d->images, age_us, on_collected, d);
}

/* --- the interface ---------------------------------------------------------------------------- */

/* Reads the token of api.token_file, without the newline at its end, into `token`. */
static int read_token(const char *path, char *token, size_t size, struct un_error *err)
{
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, token, size - 1);
    if (n < 0) {
        return un_error_errno(err, -errno, "token file %s", path);
    }
    token[n] = '\0';
    token[strcspn(token, "\r\n")] = '\0';
    if (strlen(token) < 16) {
        return un_error_set(err, -EINVAL, "token file %s: a token has at least 16 characters",
                            path);
    }
    return 0;
}

static int open_api(struct daemon *d, struct un_error *err)
{
    const struct config *c = d->config;
    char token[512];
    struct api_spec spec = {.loop = d->loop,
                            .scheduler = d->scheduler,
                            .images = d->images,
                            .registry = d->registry,
                            .events = d->events,
                            .store = d->store,
                            .version = PACKAGE_VERSION,
                            .driver = hv_driver_ops(d->drivers.items[0])->name,
                            .doctor = doctor_report,
                            .doctor_arg = d->doctor};
    api_settings_init(&spec.settings);
    spec.settings.max_request_bytes = (uint64_t)c->max_request_bytes;
    spec.settings.hosts = (const char *const *)c->hosts.items;
    spec.settings.max_image_bytes = (uint64_t)c->image_max_bytes;
    spec.settings.http.head_bytes = (size_t)c->http_max_head_bytes;
    spec.settings.http.connections = (unsigned)c->http_max_connections;
    spec.settings.http.idle_us = (uint64_t)c->http_idle_timeout_ms * 1000;
    spec.settings.http.head_us = (uint64_t)c->http_head_timeout_ms * 1000;
    spec.settings.http.stall_us = (uint64_t)c->http_stall_timeout_ms * 1000;
    if (*c->token_file) {
        int rc = read_token(c->token_file, token, sizeof token, err);
        if (rc < 0) {
            return rc;
        }
        spec.settings.token = token;
    }
    return api_open(&spec, &d->api, err);
}

/* Listens everywhere; `listening` (a JSON list) collects the addresses with the ports that were
 * taken. */
static int listen_all(struct daemon *d, json_t *listening, struct un_error *err)
{
    const struct config *c = d->config;
    for (size_t i = 0; i < c->listen.count; i++) {
        uint16_t port = 0;
        int rc = api_listen_tcp(d->api, c->listen.items[i], &port, err);
        if (rc < 0) {
            return un_error_context(err, "listen on %s", c->listen.items[i]);
        }
        const char *colon = strrchr(c->listen.items[i], ':');
        json_array_append_new(listening, json_sprintf("%.*s:%u", (int)(colon - c->listen.items[i]),
                                                      c->listen.items[i], port));
    }
    if (strcmp(c->socket, "none") == 0) {
        return 0;
    }
    int rc = api_listen_unix(d->api, c->socket, SOCKET_MODE, err);
    return rc < 0 ? un_error_context(err, "listen on %s", c->socket) : 0;
}

/* Written under another name first, so that a reader never sees half of it. */
static int write_ready_file(const char *path, const json_t *ready, struct un_error *err)
{
    un_autofree char *temp = NULL;
    if (asprintf(&temp, "%s.new", path) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (json_dump_file(ready, temp, 0) < 0 || rename(temp, path) < 0) {
        return un_error_errno(err, -errno, "ready file %s", path);
    }
    return 0;
}

static void on_ports_opened(void *arg)
{
    struct daemon *d = arg;
    d->ports_opened = true;
    un_loop_stop(d->loop);
}

/* Requests are served meanwhile. */
static void open_ports(struct daemon *d)
{
    api_open_ports(d->api, on_ports_opened, d);
    while (!d->ports_opened) {
        un_loop_run(d->loop);
    }
}

static int announce(struct daemon *d, json_t *listening, struct un_error *err)
{
    const struct config *c = d->config;
    un_autofree char *addresses = un_json_text(listening);
    un_autojson json_t *ready = json_pack("{s:i, s:O, s:s}", "pid", (int)getpid(), "listen",
                                          listening, "socket", c->socket);
    if (!addresses || !ready) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = *c->ready_file ? write_ready_file(c->ready_file, ready, err) : 0;
    if (rc == 0) {
        notify_send("READY=1");
        un_log(UN_LOG_INFO, "serving", "listen", addresses, "socket", c->socket, "driver",
               hv_driver_ops(d->drivers.items[0])->name, "state", c->state_dir);
    }
    return rc;
}

/* --- stopping --------------------------------------------------------------------------------- */

/* The scheduler has ended; what was answered still has to leave for slow readers. */
static void wait_for_readers(void *arg)
{
    struct daemon *d = arg;
    if (api_connections(d->api) == 0 || un_loop_now_us(d->loop) >= d->readers_until_us) {
        un_loop_stop(d->loop);
    } else if (un_timer_arm_in(&d->readers_timer, READERS_CHECK_US) < 0) {
        un_loop_stop(d->loop);
    }
}

static void on_drained(void *arg)
{
    struct daemon *d = arg;
    d->readers_until_us = un_loop_now_us(d->loop) + READERS_WAIT_US;
    wait_for_readers(d);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct daemon *d = arg;
    (void)what;
    if (d->draining) {
        un_log(UN_LOG_INFO, "stopping at once", "signal", strsignal(number));
        un_loop_stop(d->loop);
        return;
    }
    un_log(UN_LOG_INFO, "draining", "signal", strsignal(number));
    d->draining = true;
    notify_send("STOPPING=1");
    un_timer_cancel(&d->gc_timer);
    api_drain(d->api);
    events_drain(d->events);
    sched_drain(d->scheduler, (uint64_t)d->config->drain_timeout_ms * 1000, on_drained, d);
}

static int watch_signals(struct daemon *d, struct un_error *err)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < UN_ARRAY_SIZE(numbers); i++) {
        d->signals[i] = evsignal_new(un_loop_base(d->loop), numbers[i], on_signal, d);
        if (!d->signals[i] || event_add(d->signals[i], NULL) < 0) {
            return un_error_set(err, -ENOMEM, "watch signals: out of memory");
        }
    }
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int open_parts(struct daemon *d, struct un_error *err)
{
    /* First, for within a user namespace it is not known whose a directory is. */
    int rc = make_dirs(d->config->state_dir, err);
    rc = rc < 0 ? rc : make_dirs(d->config->runtime_dir, err);
    rc = rc < 0 ? rc : check_owner(d->config->runtime_dir, err);
    rc = rc < 0 ? rc : machines_prepare(d->config, &d->machines_start, err);
    rc = rc < 0 ? rc : un_loop_new(&d->loop, err);
    rc = rc < 0 ? rc : un_workers_new(d->loop, "unid-worker", WORKER_THREADS, &d->workers, err);
    if (rc < 0) {
        return rc;
    }
    un_timer_init(&d->gc_timer, d->loop, collect_garbage, d);
    un_timer_init(&d->readers_timer, d->loop, wait_for_readers, d);
    const struct drivers_spec spec = machines_drivers(&d->machines_start, d->config, d->loop);
    rc = open_stores(d, err);
    rc = rc < 0 ? rc : drivers_open(&spec, &d->drivers, err);
    rc = rc < 0 ? rc : machines_open(&d->machines_start, &spec, &d->drivers, &d->machines, err);
    rc = rc < 0 ? rc : open_scheduler(d, err);
    rc = rc < 0 ? rc : open_events(d, err);
    rc = rc < 0 ? rc : doctor_new(&d->drivers, d->machines, &d->doctor, err);
    rc = rc < 0 ? rc : open_api(d, err);
    return rc < 0 ? rc : watch_signals(d, err);
}

int daemon_open(const struct config *config, struct daemon **ret, struct un_error *err)
{
    struct daemon *d = calloc(1, sizeof *d);
    un_autojson json_t *listening = json_array();
    if (!d || !listening) {
        free(d);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    d->config = config;
    int rc = open_parts(d, err);
    rc = rc < 0 ? rc : listen_all(d, listening, err);
    if (rc == 0) {
        open_ports(d);
    }
    rc = rc < 0 ? rc : announce(d, listening, err);
    if (rc == 0 && config->image_gc_hours > 0) {
        rc = un_timer_arm_in(&d->gc_timer, GC_INTERVAL_US);
    }
    if (rc < 0) {
        daemon_close(d);
        return rc;
    }
    *ret = d;
    return 0;
}

void daemon_run(struct daemon *d)
{
    un_loop_run(d->loop);
}

void daemon_close(struct daemon *d)
{
    if (!d) {
        return;
    }
    if (d->api) {
        api_stop_accepting(d->api);
    }
    api_close(d->api);
    doctor_free(d->doctor);
    events_drain(d->events);
    machines_detach(d->machines);
    sched_close(d->scheduler);
    events_close(d->events);
    machines_close(d->machines, &d->drivers);
    drivers_close(&d->drivers);
    machines_finish(&d->machines_start);
    registry_close(d->registry);
    imagestore_close(d->images);
    un_workers_free(d->workers);
    store_close(d->store);
    for (size_t i = 0; i < UN_ARRAY_SIZE(d->signals); i++) {
        if (d->signals[i]) {
            event_free(d->signals[i]);
        }
    }
    if (d->loop) {
        un_timer_cancel(&d->gc_timer);
        un_timer_cancel(&d->readers_timer);
    }
    un_loop_free(d->loop);
    if (*d->config->ready_file) {
        unlink(d->config->ready_file);
    }
    un_log(UN_LOG_INFO, "stopped");
    free(d);
}
