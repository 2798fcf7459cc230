/* doctor.c - see doctor.h. */
#include "daemon/doctor.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/list.h"

struct asker {
    struct un_list node;
    void (*cb)(void *arg, const json_t *report);
    void *arg;
};

/* Outlives doctor_free while a driver measures, for a driver has no way to take a probe back. */
struct doctor {
    const struct config *config;
    const struct drivers *drivers;
    const struct machines *machines;
    struct un_list askers;
    json_t *report;   /* while measuring: what has been found so far */
    size_t measuring; /* 1-based place of the driver that measures now; 0: none does */
    bool abandoned;
};

int doctor_new(const struct config *config, const struct drivers *drivers,
               const struct machines *machines, struct doctor **ret, struct un_error *err)
{
    struct doctor *doctor = calloc(1, sizeof(*doctor));
    if (!doctor) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    doctor->config = config;
    doctor->drivers = drivers;
    doctor->machines = machines;
    un_list_init(&doctor->askers);
    *ret = doctor;
    return 0;
}

static void answer_all(struct doctor *doctor, const json_t *report)
{
    un_list_for_each_safe (it, &doctor->askers) {
        struct asker *asker = un_list_entry(it, struct asker, node);
        un_list_remove(it);
        asker->cb(asker->arg, report);
        free(asker);
    }
}

void doctor_free(struct doctor *doctor)
{
    if (!doctor) {
        return;
    }
    answer_all(doctor, NULL);
    if (doctor->measuring) {
        doctor->abandoned = true;
    } else {
        free(doctor);
    }
}

static void add_result(json_t *report, const char *name, const struct hv_probe *probe)
{
    json_array_append_new(json_object_get(report, "drivers"),
                          json_pack("{s:s, s:b, s:s, s:I, s:I, s:I, s:s}", "name", name, "usable",
                                    probe->usable, "accelerator", probe->accelerator, "shell_us",
                                    (json_int_t)probe->shell_us, "start_us",
                                    (json_int_t)probe->start_us, "guest_ops_per_ms",
                                    (json_int_t)probe->guest_ops_per_ms, "detail", probe->detail));
    json_array_append_new(json_object_get(report, "findings"),
                          json_pack("{s:s+, s:s, s:s, s:s}", "check", "driver ", name, "status",
                                    probe->usable ? "ok" : "warn", "detail", probe->detail, "fix",
                                    ""));
}

static void add_network(json_t *report, const struct machines *machines)
{
    struct machines_network n;
    machines_describe_network(machines, &n);
    json_array_append_new(json_object_get(report, "findings"),
                          json_pack("{s:s, s:s, s:s, s:s}", "check", "network of machine images",
                                    "status", n.whole ? "ok" : "warn", "detail", n.detail, "fix",
                                    n.fix));
}

/* Which ones they are, as a unictl that looks at this machine can only guess them. */
static void add_places(json_t *report, const struct config *config)
{
    const char *state = config->state_dir, *socket = config->socket;
    bool writable = access(state, W_OK | X_OK) == 0, none = strcmp(socket, "none") == 0;
    json_t *findings = json_object_get(report, "findings");
    json_array_append_new(
        findings,
        json_pack("{s:s, s:s, s:s+, s:s}", "check", "state-dir", "status", writable ? "ok" : "fail",
                  "detail", state, writable ? " is in use" : " is not writable for the daemon",
                  "fix", writable ? "" : "give it back to the user that runs the daemon"));
    json_array_append_new(findings,
                          json_pack("{s:s, s:s, s:s+, s:s}", "check", "runtime-dir", "status", "ok",
                                    "detail", none ? "there is to be no Unix socket" : socket,
                                    none ? "" : " is listened on", "fix", ""));
}

static void on_probe(void *arg, const struct hv_probe *probe);

static void measure_next(struct doctor *doctor)
{
    struct hv_driver *driver = doctor->drivers->items[doctor->measuring++];
    hv_driver_ops(driver)->probe(driver, on_probe, doctor);
}

static void on_probe(void *arg, const struct hv_probe *probe)
{
    struct doctor *doctor = arg;
    if (doctor->abandoned) {
        json_decref(doctor->report);
        free(doctor);
        return;
    }
    add_result(doctor->report, hv_driver_ops(doctor->drivers->items[doctor->measuring - 1])->name,
               probe);
    if (doctor->measuring < doctor->drivers->count) {
        measure_next(doctor);
        return;
    }
    add_network(doctor->report, doctor->machines);
    add_places(doctor->report, doctor->config);
    un_autojson json_t *report = un_steal(&doctor->report);
    doctor->measuring = 0;
    answer_all(doctor, report);
}

void doctor_report(void *arg, void (*cb)(void *arg, const json_t *report), void *cb_arg)
{
    struct doctor *doctor = arg;
    struct asker *asker = calloc(1, sizeof(*asker));
    if (!doctor->report) {
        doctor->report = json_pack("{s:[], s:[]}", "findings", "drivers");
    }
    if (!asker || !doctor->report) {
        free(asker);
        cb(cb_arg, NULL);
        return;
    }
    asker->cb = cb;
    asker->arg = cb_arg;
    un_list_push(&doctor->askers, &asker->node);
    if (!doctor->measuring) {
        measure_next(doctor);
    }
}
