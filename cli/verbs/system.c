/* system.c - unictl doctor and version: about the daemon itself. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/doctor_local.h"
#include "cli/show.h"
#include "common/cleanup.h"

/* --- doctor ----------------------------------------------------------------------------------- */

static int add_finding(const json_t *f, struct un_buf *out)
{
    un_autobuf struct un_buf detail = {0}, fix = {0};
    int rc = table_append_clean(&detail, api_str(f, "detail"), false);
    rc = rc ? rc : table_append_clean(&fix, api_str(f, "fix"), false);
    rc = rc ? rc
            : un_buf_printf(out, "%-5s %-14.40s %s\n", api_str(f, "status"), api_str(f, "check"),
                            (const char *)detail.data);
    if (rc == 0 && fix.len) {
        rc = un_buf_printf(out, "%21smend: %s\n", "", (const char *)fix.data);
    }
    return rc;
}

static const char *const driver_heads[] = {
    "DRIVER", "USABLE", "ACCELERATOR", ">SHELL", ">START", ">GUEST OPS PER MS", "DETAIL", NULL};

static void fill_driver(const json_t *d, struct show_row *row)
{
    row->cell[0] = api_str(d, "name");
    row->cell[1] = json_is_true(json_object_get(d, "usable")) ? "yes" : "no";
    row->cell[2] = api_str(d, "accelerator");
    uint64_t shell = api_uint(d, "shell_us"), start = api_uint(d, "start_us");
    row->cell[3] = shell ? table_us(shell, row->text[3]) : "";
    row->cell[4] = start ? table_us(start, row->text[4]) : "";
    row->cell[5] =
        api_uint(d, "guest_ops_per_ms") ? show_number(d, "guest_ops_per_ms", row->text[5]) : "";
    row->cell[6] = api_str(d, "detail");
}

static int print_report(const struct cli_call *call, const json_t *report)
{
    if (call->json) {
        return cli_print_json(report);
    }
    un_autobuf struct un_buf out = {0};
    const json_t *drivers = json_object_get(report, "drivers");
    int rc = 0;
    size_t index;
    const json_t *f;
    json_array_foreach(json_object_get(report, "findings"), index, f)
    {
        rc = rc ? rc : add_finding(f, &out);
    }
    if (json_array_size(drivers)) {
        rc = rc ? rc : un_buf_append_str(&out, "\n");
        rc = rc ? rc : show_items(drivers, driver_heads, fill_driver, &out);
    }
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

static int diagnose_alone(const struct cli_call *call, const struct un_error *why)
{
    json_t *findings = doctor_local_findings();
    un_autojson json_t *report =
        findings ? json_pack("{s:o,s:[]}", "findings", findings, "drivers") : NULL;
    if (!report) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    int status = print_report(call, report);
    fflush(stdout);
    return status != CLI_DONE ? status : cli_fail_send(call, -ECONNREFUSED, why);
}

static bool has_check(const json_t *findings, const char *check)
{
    size_t index;
    const json_t *f;
    json_array_foreach(findings, index, f)
    {
        if (strcmp(api_str(f, "check"), check) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether the daemon runs on this machine, so that what can be seen here concerns it. */
static bool is_local(const struct cli_call *call)
{
    static const char *const local[] = {"unix://", "http://127.", "http://localhost",
                                        "http://[::1]"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(local); i++) {
        if (strncmp(client_host(call->client), local[i], strlen(local[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Adds what the daemon has not looked at itself. 0, -ENOMEM. */
static int add_local_findings(json_t *report)
{
    un_autojson json_t *local = doctor_local_findings();
    json_t *findings = json_object_get(report, "findings");
    size_t index;
    json_t *f;
    json_array_foreach(local, index, f)
    {
        if (!has_check(findings, api_str(f, "check")) && json_array_append(findings, f) < 0) {
            return -ENOMEM;
        }
    }
    return local ? 0 : -ENOMEM;
}

int verb_doctor(struct cli_call *call)
{
    /* Measuring drivers takes longer than other calls, but not without end. */
    struct client_request req = {
        .method = "GET", .path = "/api/v1/doctor", .timeout_ms = CLIENT_CONTROL_MS};
    un_autoresponse struct client_response r = {0};
    un_autojson json_t *report = NULL;
    struct un_error err = UN_ERROR_INIT;
    int rc = client_send(call->client, &req, &r, &err);
    if (rc == -ECONNREFUSED) {
        return diagnose_alone(call, &err);
    }
    if (rc < 0) {
        return cli_fail_send(call, rc, &err);
    }
    if (r.status != 200) {
        return cli_fail_response(call, &r);
    }
    if (un_json_parse(r.body.data, r.body.len, &report, &err) < 0) {
        return cli_fail(CLI_REFUSED, "the daemon's answer is no JSON: %s", err.text);
    }
    if (is_local(call) && add_local_findings(report) < 0) {
        return cli_fail(CLI_REFUSED, "cannot add what can be seen here: out of memory");
    }
    return print_report(call, report);
}

/* --- version ---------------------------------------------------------------------------------- */

int verb_version(struct cli_call *call)
{
    un_autojson json_t *doc = NULL;
    if (!call->json) {
        printf("unictl %s\n", PACKAGE_VERSION);
        fflush(stdout);
    }
    int status = api_call(call, "GET", "/api/v1/version", NULL, &doc);
    if (status != CLI_DONE) {
        return status;
    }
    if (call->json) {
        return json_object_set_new(doc, "unictl", json_string(PACKAGE_VERSION)) < 0
                   ? cli_fail(CLI_REFUSED, "the daemon's answer is no object: is that unid?")
                   : cli_print_json(doc);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "unid %s (API %s, guest contract %s, driver %s)\n",
                           api_str(doc, "version"), api_str(doc, "api"), api_str(doc, "abi"),
                           api_str(doc, "driver"));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}
