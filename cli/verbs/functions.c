/* functions.c - unictl ls, describe, rm, versions, rollback, alias set, ls, rm. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/show.h"
#include "common/cleanup.h"

enum { RECENT_RECEIPTS = 5, VERSION_MAX = 2147483647 };

static const char *const function_heads[] = {"NAME",         ">VERSION", "IMAGE",
                                             "INTERFACE",    ">MEMORY",  ">TIMEOUT",
                                             ">CONCURRENCY", "CREATED",  NULL};

static void fill_function(const json_t *f, struct show_row *row)
{
    row->cell[0] = api_str(f, "name");
    row->cell[1] = show_number(f, "version", row->text[1]);
    row->cell[2] = show_digest(api_str(f, "image"), row->text[2]);
    row->cell[3] = api_str(f, "interface");
    snprintf(row->text[4], TABLE_CELL_SIZE, "%" PRIu64 "MiB", api_uint(f, "memory_mib"));
    row->cell[4] = row->text[4];
    row->cell[5] = table_ms(api_uint(f, "timeout_ms"), row->text[5]);
    row->cell[6] = show_number(f, "concurrency", row->text[6]);
    row->cell[7] = show_ago(api_str(f, "created_at"), row->text[7]);
}

int verb_ls(struct cli_call *call)
{
    un_autojson json_t *list = NULL;
    int status = api_list(call, "/api/v1/functions", 0, &list);
    return status != CLI_DONE ? status : show_list(call, list, function_heads, fill_function);
}

static const char *const version_heads[] = {
    "NAME",         ">VERSION", "IMAGE",   "INTERFACE", ">MEMORY", ">TIMEOUT",
    ">CONCURRENCY", "CREATED",  "ALIASES", "FAILURE",   NULL};

static void fill_version(const json_t *f, struct show_row *row)
{
    fill_function(f, row);
    row->cell[8] = api_str(f, "aliases"); /* as name_aliases has put it there */
    row->cell[9] = api_str(f, "failure"); /* why no machine of it was ever ready */
}

/* Gives each version a text "aliases": the names of those that point to it, "live" among them. */
static int name_aliases(json_t *versions, const json_t *aliases)
{
    size_t i, j;
    json_t *version;
    const json_t *alias;
    json_array_foreach(versions, i, version)
    {
        un_autobuf struct un_buf names = {0};
        int rc = 0;
        json_array_foreach(aliases, j, alias)
        {
            if (rc == 0 && api_uint(alias, "version") == api_uint(version, "version")) {
                rc = un_buf_printf(&names, "%s%s", names.len ? "," : "", api_str(alias, "alias"));
            }
        }
        if (rc < 0 || (names.len && json_object_set_new(version, "aliases",
                                                        json_string((char *)names.data)) < 0)) {
            return cli_fail(CLI_REFUSED, "out of memory");
        }
    }
    return CLI_DONE;
}

int verb_versions(struct cli_call *call)
{
    un_autofree char *path = NULL, *aliases_path = NULL;
    un_autojson json_t *list = NULL, *aliases = NULL;
    const char *name = call->args.operands[0];
    int status = api_function_path(call, name, "/versions", &path);
    status = status == CLI_DONE ? api_call(call, "GET", path, NULL, &list) : status;
    if (status == CLI_DONE && !call->json) {
        status = api_function_path(call, name, "/aliases", &aliases_path);
        status = status == CLI_DONE ? api_call(call, "GET", aliases_path, NULL, &aliases) : status;
        status = status == CLI_DONE ? name_aliases(json_object_get(list, "items"),
                                                   json_object_get(aliases, "items"))
                                    : status;
    }
    return status != CLI_DONE ? status : show_list(call, list, version_heads, fill_version);
}

static int function_path(const struct cli_call *call, const char *name, char **ret)
{
    return api_function_path(call, name, "", ret);
}

/* Whether "NAME" or "NAME:QUALIFIER" is of this function. */
static bool is_of(const json_t *target, const char *name)
{
    const char *text = json_string_value(target);
    size_t len = strlen(name);
    return text && strncmp(text, name, len) == 0 && (!text[len] || text[len] == ':');
}

static bool has_of(const json_t *targets, const char *name)
{
    size_t i;
    const json_t *target;
    json_array_foreach(targets, i, target)
    {
        if (is_of(target, name)) {
            return true;
        }
    }
    return false;
}

static bool trigger_names(const json_t *trigger, const char *name)
{
    return has_of(json_object_get(trigger, "functions"), name) ||
           is_of(json_object_get(trigger, "on_success"), name) ||
           is_of(json_object_get(trigger, "on_failure"), name);
}

/* All triggers, without a word when they cannot be had: NULL. */
static json_t *all_triggers(const struct cli_call *call)
{
    struct client_request req = {
        .method = "GET", .path = "/api/v1/triggers?limit=1000", .timeout_ms = CLIENT_CONTROL_MS};
    un_autoresponse struct client_response r = {0};
    json_t *triggers = NULL;
    if (client_send(call->client, &req, &r, NULL) == 0 && r.status == 200) {
        (void)un_json_parse(r.body.data, r.body.len, &triggers, NULL);
    }
    return triggers;
}

/* A trigger that names a function which is gone still takes its events in. */
static void warn_of_trigger(const json_t *trigger, const char *function)
{
    const char *name = api_str(trigger, "name");
    if (has_of(json_object_get(trigger, "missing"), function)) {
        cli_warn("trigger %s still %s %s: until that is deployed again, what goes there becomes a "
                 "dead letter; see unictl trigger show %s",
                 name,
                 has_of(json_object_get(trigger, "functions"), function) ? "runs" : "sends to",
                 function, name);
    }
}

int verb_rm(struct cli_call *call)
{
    int status = api_remove_each(call, function_path);
    un_autojson json_t *triggers =
        status == CLI_DONE || status == CLI_REFUSED ? all_triggers(call) : NULL;
    size_t i;
    const json_t *trigger;
    json_array_foreach(json_object_get(triggers, "items"), i, trigger)
    {
        for (size_t k = 0; k < call->args.operand_count; k++) {
            warn_of_trigger(trigger, call->args.operands[k]);
        }
    }
    return status;
}

/* The body that names a version, out of an operand; an exit status. */
static int version_body(const struct cli_call *call, const char *text, json_t **ret)
{
    uint64_t version = 0;
    struct un_error err = UN_ERROR_INIT;
    if (args_count(text, 1, VERSION_MAX, &version, &err) < 0) {
        return cli_usage(call, "VERSION: %s", err.text);
    }
    *ret = json_pack("{s:I}", "version", (json_int_t)version);
    return *ret ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
}

int verb_rollback(struct cli_call *call)
{
    un_autofree char *path = NULL;
    un_autojson json_t *body = NULL, *function = NULL;
    int status = api_function_path(call, call->args.operands[0], "/rollback", &path);
    if (status == CLI_DONE && call->args.operand_count > 1) {
        status = version_body(call, call->args.operands[1], &body);
    }
    status = status == CLI_DONE ? api_call(call, "POST", path, body, &function) : status;
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(function);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s version %" PRIu64 " is live\n", api_str(function, "name"),
                           api_uint(function, "version"));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* --- aliases ---------------------------------------------------------------------------------- */

static int alias_path(const struct cli_call *call, char **ret)
{
    un_autofree char *rest = api_path("/aliases/%s", call->args.operands[1]);
    return rest ? api_function_path(call, call->args.operands[0], rest, ret)
                : cli_fail(CLI_REFUSED, "out of memory");
}

int verb_alias_set(struct cli_call *call)
{
    un_autofree char *path = NULL;
    un_autojson json_t *body = NULL, *alias = NULL;
    int status = version_body(call, call->args.operands[2], &body);
    status = status == CLI_DONE ? alias_path(call, &path) : status;
    status = status == CLI_DONE ? api_call(call, "PUT", path, body, &alias) : status;
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(alias);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s:%s is version %" PRIu64 "\n", call->args.operands[0],
                           api_str(alias, "alias"), api_uint(alias, "version"));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

static const char *const alias_heads[] = {"ALIAS", ">VERSION", NULL};

static void fill_alias(const json_t *alias, struct show_row *row)
{
    row->cell[0] = api_str(alias, "alias");
    row->cell[1] = show_number(alias, "version", row->text[1]);
}

int verb_alias_ls(struct cli_call *call)
{
    un_autofree char *path = NULL;
    un_autojson json_t *list = NULL;
    int status = api_function_path(call, call->args.operands[0], "/aliases", &path);
    status = status == CLI_DONE ? api_call(call, "GET", path, NULL, &list) : status;
    return status != CLI_DONE ? status : show_list(call, list, alias_heads, fill_alias);
}

int verb_alias_rm(struct cli_call *call)
{
    un_autofree char *path = NULL;
    un_autojson json_t *nothing = NULL;
    un_autobuf struct un_buf out = {0};
    int status = alias_path(call, &path);
    status = status == CLI_DONE ? api_call(call, "DELETE", path, NULL, &nothing) : status;
    if (status != CLI_DONE) {
        return status;
    }
    if (call->json) {
        un_autojson json_t *gone = json_pack("{s:[s]}", "removed", call->args.operands[1]);
        return cli_print_json(gone);
    }
    int rc = un_buf_printf(&out, "%s\n", call->args.operands[1]);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* --- describe --------------------------------------------------------------------------------- */

/* Of a machine image: whether a machine of this version has been ready. */
static int describe_readiness(const json_t *f, struct un_buf *out)
{
    const char *failure = api_str(f, "failure"), *ready = api_str(f, "ready_at");
    char text[TABLE_CELL_SIZE], more[256];
    if (!json_is_object(json_object_get(f, "machine"))) {
        return 0;
    }
    if (*failure) {
        snprintf(more, sizeof(more), "never: %.200s", failure);
    } else if (*ready) {
        snprintf(more, sizeof(more), "since %s (%s)", ready, show_ago(ready, text));
    } else {
        snprintf(more, sizeof(more), "not yet");
    }
    return show_line(out, "Ready:", more);
}

static int describe_config(const json_t *f, struct un_buf *out)
{
    char text[TABLE_CELL_SIZE + 8], more[128];
    int rc = show_line(out, "Name:", api_str(f, "name"));
    rc = rc ? rc : show_line(out, "Version:", show_number(f, "version", text));
    rc = rc ? rc : show_line(out, "Image:", api_str(f, "image"));
    snprintf(more, sizeof(more), "%s, %s", api_str(f, "kind"),
             table_size(api_uint(f, "image_size"), text));
    rc = rc ? rc : show_line(out, "Kind:", more);
    rc = rc || !*api_str(f, "program") ? rc : show_line(out, "Program:", api_str(f, "program"));
    rc = rc || !*api_str(f, "workdir") ? rc : show_line(out, "Workdir:", api_str(f, "workdir"));
    rc = rc ? rc : show_line(out, "Interface:", api_str(f, "interface"));
    rc = rc ? rc : show_line(out, "Driver:", api_str(f, "driver"));
    rc = rc ? rc : show_line(out, "Isolation:", api_str(f, "isolation"));
    rc = rc ? rc : show_line(out, "Snapshot:", api_str(f, "snapshot"));
    snprintf(more, sizeof(more), "%" PRIu64 "MiB", api_uint(f, "memory_mib"));
    rc = rc ? rc : show_line(out, "Memory:", more);
    rc = rc ? rc : show_line(out, "Timeout:", table_ms(api_uint(f, "timeout_ms"), text));
    rc = rc ? rc : show_line(out, "Concurrency:", show_number(f, "concurrency", text));
    snprintf(more, sizeof(more), "%s (%s)", api_str(f, "created_at"),
             show_ago(api_str(f, "created_at"), text));
    rc = rc ? rc : show_line(out, "Created:", more);
    return rc ? rc : describe_readiness(f, out);
}

/* Arguments, environment and egress, each on a line of its own below its label. */
static int describe_strings(const json_t *f, struct un_buf *out)
{
    const json_t *args = json_object_get(f, "args");
    json_t *env = json_object_get(f, "env");
    int rc = 0;
    size_t index;
    const json_t *word;
    json_array_foreach(args, index, word)
    {
        const char *text = json_string_value(word);
        rc = rc ? rc : show_line(out, index ? "" : "Arguments:", text ? text : "");
    }
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach(env, key, value)
    {
        un_autofree char *pair = NULL;
        const char *text = json_string_value(value);
        if (asprintf(&pair, "%s=%s", key, text ? text : "") < 0) {
            pair = NULL;
            rc = -ENOMEM;
        }
        rc = rc ? rc : show_line(out, first ? "Environment:" : "", pair);
        first = false;
    }
    json_array_foreach(json_object_get(f, "egress"), index, word)
    {
        const char *text = json_string_value(word);
        rc = rc ? rc : show_line(out, index ? "" : "Egress:", text ? text : "");
    }
    json_array_foreach(json_object_get(f, "ports"), index, word)
    {
        char text[600];
        const char *error = api_str(word, "error");
        snprintf(text, sizeof(text), "%s%s%s", api_str(word, "address"),
                 *error ? " is not open: " : "", error);
        rc = rc ? rc : show_line(out, index ? "" : "Ports:", text);
    }
    return rc;
}

/* How a machine is told about its network and reached, and how many there are. */
static int describe_way(const json_t *f, const json_t *machine, struct un_buf *out)
{
    char text[TABLE_CELL_SIZE], more[128];
    const char *flavor = api_str(f, "flavor"), *words = api_str(machine, "append");
    bool detected = !*api_str(machine, "flavor");
    snprintf(more, sizeof(more), "port %" PRIu64 ", flavor %s%s", api_uint(machine, "port"), flavor,
             detected && *flavor ? ", as the image says"
             : detected          ? "as the image says"
                                 : "");
    int rc = show_line(out, "Machine:", more);
    rc = rc || !*words ? rc : show_line(out, "Appended:", words);
    if (json_is_true(json_object_get(machine, "service"))) {
        snprintf(more, sizeof(more), "%" PRIu64 " to %" PRIu64 ", asleep after %s without requests",
                 api_uint(machine, "min_instances"), api_uint(machine, "max_instances"),
                 table_ms(api_uint(machine, "idle_timeout_ms"), text));
    } else {
        snprintf(more, sizeof(more), "one for each request");
    }
    return rc ? rc : show_line(out, "Instances:", more);
}

/* A machine, and what it gets besides its image. */
static int describe_machine(const json_t *f, struct un_buf *out)
{
    const json_t *machine = json_object_get(f, "machine");
    const char *initrd = api_str(machine, "initrd"), *disk = api_str(machine, "disk");
    int rc = json_is_object(machine) ? describe_way(f, machine, out) : 0;
    size_t index;
    const json_t *name;
    rc = rc || !*initrd ? rc : show_line(out, "Initrd:", initrd);
    rc = rc || !*disk ? rc : show_line(out, "Disk:", disk);
    json_array_foreach(json_object_get(machine, "volumes"), index, name)
    {
        const char *text = json_string_value(name);
        rc = rc ? rc : show_line(out, index ? "" : "Volumes:", text ? text : "");
    }
    return rc;
}

static int describe_aliases(const json_t *aliases, struct un_buf *out)
{
    un_autobuf struct un_buf text = {0};
    int rc = un_buf_append_str(&text, "");
    size_t index;
    const json_t *a;
    json_array_foreach(aliases, index, a)
    {
        rc = rc ? rc
                : un_buf_printf(&text, "%s%s -> %" PRIu64, index ? ", " : "", api_str(a, "alias"),
                                api_uint(a, "version"));
    }
    return rc ? rc : show_line(out, "Aliases:", text.len ? (const char *)text.data : "");
}

static int describe_triggers(const json_t *names, struct un_buf *out)
{
    size_t i;
    const json_t *name;
    int rc = 0;
    json_array_foreach(names, i, name)
    {
        const char *text = json_string_value(name);
        rc = rc ? rc : show_line(out, i ? "" : "Triggers:", text ? text : "");
    }
    return rc;
}

/* The names of the triggers that run the function or send to it. */
static int add_triggers(const struct cli_call *call, json_t *function)
{
    un_autojson json_t *triggers = all_triggers(call);
    json_t *names = json_array();
    size_t i;
    json_t *trigger;
    int rc = json_object_set_new(function, "triggers", names);
    json_array_foreach(json_object_get(triggers, "items"), i, trigger)
    {
        if (rc == 0 && trigger_names(trigger, api_str(function, "name"))) {
            rc = json_array_append(names, json_object_get(trigger, "name"));
        }
    }
    return rc < 0 ? cli_fail(CLI_REFUSED, "out of memory") : CLI_DONE;
}

static int describe_text(const struct cli_call *call, const json_t *f, struct un_buf *out)
{
    un_autofree char *url = client_function_url(call->client, api_str(f, "url"));
    if (!url) {
        return -ENOMEM;
    }
    const json_t *receipts = json_object_get(f, "receipts");
    int rc = describe_config(f, out);
    rc = rc ? rc : show_line(out, "URL:", url);
    rc = rc ? rc : describe_aliases(json_object_get(f, "aliases"), out);
    rc = rc ? rc : describe_triggers(json_object_get(f, "triggers"), out);
    rc = rc ? rc : describe_strings(f, out);
    rc = rc ? rc : describe_machine(f, out);
    if (json_array_size(receipts) == 0) {
        return rc ? rc : un_buf_append_str(out, "\nIt has not been called yet.\n");
    }
    rc = rc ? rc : un_buf_append_str(out, "\nRecent receipts:\n");
    return rc ? rc : show_items(receipts, show_receipt_heads, show_receipt_row, out);
}

int verb_describe(struct cli_call *call)
{
    const char *name = call->args.operands[0];
    un_autofree char *path = NULL, *aliases_path = NULL;
    un_autofree char *receipts_path = api_path("/api/v1/invocations?function=%s", name);
    un_autojson json_t *function = NULL, *aliases = NULL, *receipts = NULL;
    int status = api_function_path(call, name, "", &path);
    status = status == CLI_DONE ? api_function_path(call, name, "/aliases", &aliases_path) : status;
    status = status == CLI_DONE ? api_call(call, "GET", path, NULL, &function) : status;
    status = status == CLI_DONE ? api_call(call, "GET", aliases_path, NULL, &aliases) : status;
    status =
        status == CLI_DONE ? api_list(call, receipts_path, RECENT_RECEIPTS, &receipts) : status;
    if (status != CLI_DONE) {
        return status;
    }
    /* One document: the function with what belongs to it. */
    if (json_object_set(function, "aliases", json_object_get(aliases, "items")) < 0 ||
        json_object_set(function, "receipts", json_object_get(receipts, "items")) < 0) {
        return cli_fail(CLI_REFUSED, "the daemon's answer has no items: is that unid?");
    }
    status = add_triggers(call, function);
    if (status != CLI_DONE) {
        return status;
    }
    if (call->json) {
        return cli_print_json(function);
    }
    un_autobuf struct un_buf out = {0};
    int rc = describe_text(call, function, &out);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}
