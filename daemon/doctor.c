/* doctor.c - see doctor.h. */
#include "daemon/doctor.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/list.h"

struct asker {
    struct un_list node;
    void (*cb)(void *arg, const json_t *report);
    void *arg;
};

/* Outlives doctor_free while the driver measures, for the driver has no way to take a probe back.
 */
struct doctor {
    struct hv_driver *driver;
    struct un_list askers;
    bool measuring, abandoned;
};

int doctor_new(struct hv_driver *driver, struct doctor **ret, struct un_error *err)
{
    struct doctor *doctor = calloc(1, sizeof *doctor);
    if (!doctor) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    doctor->driver = driver;
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

static json_t *make_report(const char *name, const struct hv_probe *probe)
{
    json_t *driver =
        json_pack("{s:s, s:b, s:s, s:I, s:I, s:I, s:s}", "name", name, "usable", probe->usable,
                  "accelerator", probe->accelerator, "shell_us", (json_int_t)probe->shell_us,
                  "start_us", (json_int_t)probe->start_us, "guest_ops_per_ms",
                  (json_int_t)probe->guest_ops_per_ms, "detail", probe->detail);
    json_t *finding = json_pack("{s:s+, s:s, s:s, s:s}", "check", "driver ", name, "status",
                                probe->usable ? "ok" : "fail", "detail", probe->detail, "fix", "");
    return json_pack("{s:[o], s:[o]}", "findings", finding, "drivers", driver);
}

static void on_probe(void *arg, const struct hv_probe *probe)
{
    struct doctor *doctor = arg;
    doctor->measuring = false;
    if (doctor->abandoned) {
        free(doctor);
        return;
    }
    un_autojson json_t *report = make_report(hv_driver_ops(doctor->driver)->name, probe);
    answer_all(doctor, report);
}

void doctor_report(void *arg, void (*cb)(void *arg, const json_t *report), void *cb_arg)
{
    struct doctor *doctor = arg;
    struct asker *asker = calloc(1, sizeof *asker);
    if (!asker) {
        cb(cb_arg, NULL);
        return;
    }
    asker->cb = cb;
    asker->arg = cb_arg;
    un_list_push(&doctor->askers, &asker->node);
    if (!doctor->measuring) {
        doctor->measuring = true;
        hv_driver_ops(doctor->driver)->probe(doctor->driver, on_probe, doctor);
    }
}
