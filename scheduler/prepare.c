/* prepare.c - the program's part of what a driver runs, and its snapshot ahead of the first call. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "scheduler/record/counted.h"
#include "scheduler/scheduler_impl.h"

const char **run_argv(const char *name, const struct function_config *config)
{
    size_t n = 0;
    const char **argv;

    while (config->args && config->args[n]) {
        n++;
    }
    argv = calloc(n + 2, sizeof(*argv));
    if (argv) {
        argv[0] = config->program ? config->program : name;
        for (size_t i = 0; i < n; i++) {
            argv[i + 1] = config->args[i];
        }
    }
    return argv;
}

/* A server is told its port, as on other platforms; any would do. */
static const char *const port_variable = "PORT=8080";

const char **run_envp(const struct function_config *config)
{
    bool has_port = config->interface != FUNCTION_HTTP;
    size_t n = 0;
    const char **envp;

    while (config->env && config->env[n]) {
        has_port = has_port || strncmp(config->env[n], "PORT=", 5) == 0;
        n++;
    }
    envp = calloc(n + 2, sizeof(*envp));
    if (envp) {
        for (size_t i = 0; i < n; i++) {
            envp[i] = config->env[i];
        }
        envp[n] = has_port ? NULL : port_variable;
    }
    return envp;
}

struct hv_run_spec run_spec_of(const struct image_mapping *image,
                               const struct function_config *config, const char *const *argv,
                               const char *const *envp)
{
    return (struct hv_run_spec){
        .image = image->data,
        .image_len = image->size,
        .mem_bytes = (uint64_t)config->memory_mib << 20,
        .argv = argv,
        .envp = envp,
        .interface = interface_number(config->interface),
        .ask_first = config->snapshot == FUNCTION_SNAPSHOT_START,
    };
}

/* --- preparing -------------------------------------------------------------------------------- */

struct prepare {
    struct scheduler *s;
    struct sched_driver *driver; /* NULL: there is nothing to do */
    const char *name;
    const struct function_config *config;
    struct image_mapping *image; /* a reference, while the driver uses it */
    sched_prepare_cb *cb;
    void *arg;
    struct un_post post;
};

static void prepare_end(struct prepare *p, int rc, const struct un_error *err, const char *log_tail,
                        const struct unid_report *report)
{
    struct scheduler *s = p->s;

    if (p->image) {
        image_unref(p->image);
    }
    p->cb(p->arg, rc, err, log_tail, report);
    free(p);
    sched_done(s);
}

/* Whether the program itself is to blame, by what hv.h says of prepare. */
static bool programs_fault(int rc)
{
    return rc == -EPROTO || rc == -ETIMEDOUT || rc == -EINVAL || rc == -ENOMEM || rc == -E2BIG;
}

static void on_prepared(void *arg, int rc, const struct un_error *err, const void *log,
                        size_t log_len, const struct unid_report *report)
{
    struct prepare *p = arg;
    struct un_error why = UN_ERROR_INIT;
    struct guest_log_sink sink = {.max_bytes = LIMIT_LOG_BYTES, .at_us = un_clock_wall_us()};
    struct guest_log lines = {0};
    char tail[LOG_TAIL_BYTES];

    if (rc < 0 && !programs_fault(rc)) {
        un_log(UN_LOG_WARN, "no snapshot could be made; it is tried again at the first call",
               "function", p->name, "driver", p->driver->ops->name, "error", err->text);
        rc = 0;
    }
    if (rc == 0) {
        prepare_end(p, 0, NULL, NULL, report);
        return;
    }
    un_error_copy(&why, err);
    if (report) {
        counted_name_missing(report, why.text, sizeof(why.text));
    }
    guest_log_add(&lines, log, log_len, &sink);
    guest_log_finish(&lines, &sink);
    guest_log_tail(&lines, tail, sizeof(tail));
    guest_log_done(&lines);
    prepare_end(p, rc, &why, tail, report);
}

/* A program that takes longer to ask than a call of it may run is of no use. A very short timeout does
 * not count: the machine may just be busy. */
static uint64_t deadline_us(const struct function_config *config)
{
    uint64_t ms = config->timeout_ms;

    if (ms < LIMIT_SNAPSHOT_LEAST_MS) {
        ms = LIMIT_SNAPSHOT_LEAST_MS;
    } else if (ms > LIMIT_SNAPSHOT_BUILD_MS) {
        ms = LIMIT_SNAPSHOT_BUILD_MS;
    }
    return ms * 1000;
}

static void on_image(void *arg, int rc, struct image_mapping *mapping, const struct un_error *err)
{
    struct prepare *p = arg;
    struct un_error why = UN_ERROR_INIT;
    char key[FUNCTION_SNAPSHOT_KEY_SIZE];
    un_autofree const char **argv = run_argv(p->name, p->config);
    un_autofree const char **envp = run_envp(p->config);

    if (rc < 0) {
        prepare_end(p, rc, err, NULL, NULL);
        return;
    }
    p->image = mapping;
    rc = argv && envp ? function_snapshot_key(p->name, p->config, key, &why)
                      : un_error_set(&why, -ENOMEM, "out of memory");
    if (rc < 0) {
        prepare_end(p, rc, &why, NULL, NULL);
        return;
    }
    struct hv_run_spec spec = run_spec_of(mapping, p->config, argv, envp);
    spec.snapshot_key = key;
    spec.deadline_us = deadline_us(p->config);
    p->driver->ops->prepare(p->driver->drv, &spec, on_prepared, p);
}

static void begin(void *arg)
{
    struct prepare *p = arg;

    if (p->driver && p->driver->ops->prepare) {
        image_open(p->s->images, p->config->image, on_image, p);
    } else {
        prepare_end(p, 0, NULL, NULL, NULL);
    }
}

void sched_prepare(struct scheduler *s, const char *name, const struct function_config *config,
                   sched_prepare_cb *cb, void *arg)
{
    struct prepare *p = un_fault("prepare.alloc") ? NULL : calloc(1, sizeof(*p));
    struct un_error err = UN_ERROR_INIT;

    if (!p) {
        un_error_set(&err, -ENOMEM, "prepare a function: out of memory");
        cb(arg, -ENOMEM, &err, NULL, NULL);
        return;
    }
    *p = (struct prepare){
        .s = s,
        .driver = pool_driver(s, config),
        .name = name,
        .config = config,
        .cb = cb,
        .arg = arg,
        .post = {.fn = begin, .arg = p},
    };
    sched_begin(s);
    un_loop_post(s->loop, &p->post);
}
