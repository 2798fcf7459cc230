/* reply.c - see reply.h. */
#include "api/reply.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/names.h"

static void send_json(struct api_call *call, unsigned status, const char *type, json_t *body)
{
    un_autofree char *text = un_json_text(body);
    json_decref(body);
    if (call->ex && text) {
        http_respond_full(un_steal(&call->ex), status, type, text, strlen(text));
    } else if (call->ex) {
        http_respond_problem(un_steal(&call->ex), 500, "no memory for the answer");
    }
    call_free(call);
}

void reply_json(struct api_call *call, unsigned status, json_t *body)
{
    send_json(call, status, "application/json", body);
}

void reply_empty(struct api_call *call, unsigned status)
{
    if (call->ex) {
        http_respond_full(un_steal(&call->ex), status, NULL, "", 0);
    }
    call_free(call);
}

void reply_problem(struct api_call *call, unsigned status, const char *detail)
{
    if (call->ex) {
        http_respond_problem(un_steal(&call->ex), status, detail);
    }
    call_free(call);
}

void reply_program_problem(struct api_call *call, unsigned status, const char *detail,
                           const char *log_tail, const struct unid_report *counted)
{
    json_t *j = json_pack("{s:s, s:s, s:i, s:o}", "type", "/problems/program-failed", "title",
                          "The program cannot be a function", "status", (int)status, "detail",
                          un_json_string(detail));
    if (j && log_tail[0]) {
        json_object_set_new(j, "log_tail", un_json_string(log_tail));
    }
    if (j && counted) {
        json_object_set_new(j, "unsupported", reply_missing_calls(counted));
        json_object_set_new(j, "calls_made", reply_calls_made(counted));
    }
    send_json(call, status, "application/problem+json", j);
}

void reply_report_problem(struct api_call *call, unsigned status, const char *detail,
                          const char *report)
{
    json_t *found = report ? json_loads(report, 0, NULL) : NULL;
    json_t *j = json_pack("{s:s, s:s, s:i, s:o, s:o*}", "type", "/problems/program-refused",
                          "title", "The program cannot run here", "status", (int)status, "detail",
                          un_json_string(detail), "report", found);
    send_json(call, status, "application/problem+json", j);
}

unsigned reply_status(int rc)
{
    switch (-rc) {
    case ENOENT:
        return 404;
    case EINVAL:
    case EBADMSG:
        return 400;
    case ENOTSUP:
        return 422;
    case EBUSY:
    case EEXIST:
        return 409;
    case EFBIG:
    case E2BIG:
        return 413;
    case ENOSPC:
    case EDQUOT:
        return 507;
    case ESHUTDOWN:
    case EAGAIN:
        return 503;
    default:
        return 500;
    }
}

void reply_error(struct api_call *call, int rc, const struct un_error *err)
{
    unsigned status = reply_status(rc);
    const char *text = err && err->text[0] ? err->text : strerror(-rc);
    if (status == 500 || status == 507) {
        const char *operation = call->match.route ? call->match.route->operation : "";
        un_log(UN_LOG_ERROR, "request failed", "operation", operation, "error", text);
    }
    reply_problem(call, status, text);
}

bool reply_if_failed(struct api_call *call, int rc, const struct un_error *err)
{
    if (rc < 0) {
        reply_error(call, rc, err);
    }
    return rc < 0;
}

void reply_add(json_t **items, json_t *item)
{
    if (json_array_append_new(*items, item) < 0) {
        json_decref(*items);
        *items = NULL;
    }
}

json_t *reply_page(json_t *items, const char *next)
{
    return json_pack("{s:o, s:s?}", "items", items, "next", next);
}

json_t *reply_time(uint64_t wall_us)
{
    char text[UN_CLOCK_TEXT_SIZE];
    return json_string(un_clock_format(wall_us, text));
}

/* --- calls of functions ----------------------------------------------------------------------- */

static json_t *hex(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
    return json_string(text);
}

static json_t *exit_json(const struct hv_exit *exit)
{
    json_t *j =
        json_pack("{s:s, s:i, s:o?}", "kind", hv_exit_name(exit->kind), "status", (int)exit->status,
                  "detail", exit->detail[0] ? un_json_string(exit->detail) : NULL);
    if (j && !exit->detail[0]) {
        json_object_del(j, "detail");
    }
    if (j && exit->kind == HV_EXIT_FAULT) {
        bool known = exit->fault_vector != ~0u;
        json_t *vector = known ? json_integer(exit->fault_vector) : json_null();
        json_t *fault = json_pack("{s:o, s:s, s:I, s:o, s:o}", "vector", vector, "name",
                                  un_fault_name(exit->fault_vector), "error_code",
                                  (json_int_t)exit->fault_error, "rip", hex(exit->fault_rip),
                                  "address", hex(exit->fault_addr));
        json_object_set_new(j, "fault", fault);
    }
    return j;
}

static const char *const titles[] = {
    [SCHED_OK] = "OK",
    [SCHED_NO_FUNCTION] = "No such function",
    [SCHED_QUEUE_FULL] = "Too many requests wait",
    [SCHED_WAIT_EXPIRED] = "Waited too long for a virtual machine",
    [SCHED_REQUEST_TOO_LARGE] = "The request is too large",
    [SCHED_LENGTH_REQUIRED] = "The request's length is required",
    [SCHED_RESPONSE_TOO_LARGE] = "The function's response is too large",
    [SCHED_FAILED] = "The function failed",
    [SCHED_TIMED_OUT] = "The function timed out",
    [SCHED_CANNOT_RUN] = "The function cannot be run here",
    [SCHED_DRAINING] = "unid is shutting down",
    [SCHED_CANCELLED] = "The invocation was cancelled",
    [SCHED_WRONG_INTERFACE] = "The function is not called in this way",
    [SCHED_INTERNAL] = "unid failed",
};

static void add_call(json_t **list, uint32_t number, uint32_t times)
{
    char unknown[32];
    const char *name = un_syscall_name(number);
    snprintf(unknown, sizeof(unknown), "syscall_%u", number);
    reply_add(list,
              json_pack("{s:s, s:I}", "name", name ? name : unknown, "times", (json_int_t)times));
}

json_t *reply_missing_calls(const struct unid_report *report)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < report->unsupported_count && i < UNID_REPORT_CALLS; i++) {
        add_call(&list, report->unsupported[i].number, report->unsupported[i].times);
    }
    return list;
}

json_t *reply_calls_made(const struct unid_report *report)
{
    bool any = false;
    json_t *list = json_array();
    for (uint32_t i = 0; i < UNID_REPORT_NUMBERS; i++) {
        if (report->made[i] > 0) {
            any = true;
            add_call(&list, i, report->made[i]);
        }
    }
    if (!any) {
        json_decref(list);
        return json_null();
    }
    return list;
}

json_t *reply_outcome(const struct sched_outcome *outcome, const char *id, unsigned *ret_status)
{
    char type[64], instance[64];
    const char *name = sched_outcome_name(outcome->kind);
    *ret_status = sched_outcome_status(outcome->kind);
    snprintf(type, sizeof(type), "/problems/%s", name);
    snprintf(instance, sizeof(instance), "/api/v1/invocations/%s", id);
    json_t *j = json_pack("{s:s, s:s, s:i, s:s, s:s, s:s}", "type", type, "title",
                          titles[outcome->kind], "status", (int)*ret_status, "instance", instance,
                          "invocation_id", id, "outcome", name);
    if (j && outcome->detail && outcome->detail[0]) {
        json_object_set_new(j, "detail", un_json_string(outcome->detail));
    }
    if (j && outcome->retry_after_s) {
        json_object_set_new(j, "retry_after_s", json_integer(outcome->retry_after_s));
    }
    if (j && outcome->kind == SCHED_FAILED) {
        json_object_set_new(j, "exit", exit_json(&outcome->exit));
    }
    if (j && outcome->report && outcome->report->unsupported_count > 0) {
        json_object_set_new(j, "unsupported", reply_missing_calls(outcome->report));
    }
    if (j && outcome->log_tail && outcome->log_tail[0]) {
        json_object_set_new(j, "log_tail", un_json_string(outcome->log_tail));
    }
    return j;
}
