/* volume.c - unictl volume create, ls, describe, rm. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cli/push.h"
#include "cli/show.h"
#include "common/cleanup.h"
#include "common/limits.h"

enum { MIB = 1 << 20 };

static int read_size(const struct cli_call *call, json_t *config)
{
    const char *text = args_get(&call->args, "size");
    uint64_t bytes = 0;
    struct un_error err = UN_ERROR_INIT;
    if (!text) {
        return args_has(&call->args, "from")
                   ? CLI_DONE
                   : cli_usage(call, "--size is missing; without --from it must be given");
    }
    if (args_size(text, &bytes, &err) < 0) {
        return cli_usage(call, "--size: %s", err.text);
    }
    if (bytes % MIB || bytes == 0 || bytes / MIB > LIMIT_VOLUME_MIB) {
        return cli_usage(call, "--size: '%s' is not a whole number of MiB from 1M to 16T", text);
    }
    return json_object_set_new(config, "size_mib", json_integer((json_int_t)(bytes / MIB))) < 0
               ? cli_fail(CLI_REFUSED, "out of memory")
               : CLI_DONE;
}

static int read_from(const struct cli_call *call, json_t *config)
{
    const char *from = args_get(&call->args, "from");
    char digest[PUSH_DIGEST_SIZE];
    int status = from ? push_named(call, from, digest) : CLI_DONE;
    if (from && status == CLI_DONE &&
        json_object_set_new(config, "image", json_string(digest)) < 0) {
        status = cli_fail(CLI_REFUSED, "out of memory");
    }
    return status;
}

int verb_volume_create(struct cli_call *call)
{
    un_autojson json_t *config = json_object();
    un_autojson json_t *volume = NULL;
    un_autofree char *path = api_path("/api/v1/volumes/%s", call->args.operands[0]);
    int status = config ? read_size(call, config) : cli_fail(CLI_REFUSED, "out of memory");
    status = status == CLI_DONE ? read_from(call, config) : status;
    status = status == CLI_DONE ? api_call(call, "PUT", path, config, &volume) : status;
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(volume);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s\n", api_str(volume, "name"));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* --- showing ---------------------------------------------------------------------------------- */

static const char *const volume_heads[] = {"NAME",    "FORMAT",  ">SIZE", ">ALLOCATED",
                                           "USED BY", "CREATED", NULL};

/* The function that uses it; NULL: none does. */
static const char *user_of(const json_t *v)
{
    return json_string_value(json_array_get(json_object_get(v, "used_by"), 0));
}

/* In binary units, as --size takes it; what is not a whole number of MiB as docker shows sizes. */
static const char *exact_size(uint64_t bytes, char *buf)
{
    static const char units[] = "MGT";
    unsigned unit = 0;
    uint64_t n = bytes / MIB;
    if (bytes % MIB || n == 0) {
        return table_size(bytes, buf);
    }
    for (; n % 1024 == 0 && units[unit + 1]; unit++) {
        n /= 1024;
    }
    snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 "%ciB", n, units[unit]);
    return buf;
}

static void fill_volume(const json_t *v, struct show_row *row)
{
    row->cell[0] = api_str(v, "name");
    row->cell[1] = api_str(v, "format");
    row->cell[2] = exact_size(api_uint(v, "size"), row->text[2]);
    row->cell[3] = table_size(api_uint(v, "allocated"), row->text[3]);
    row->cell[4] = user_of(v);
    row->cell[5] = show_ago(api_str(v, "created_at"), row->text[5]);
}

int verb_volume_ls(struct cli_call *call)
{
    un_autojson json_t *list = NULL;
    int status = api_call(call, "GET", "/api/v1/volumes", NULL, &list);
    return status != CLI_DONE ? status : show_list(call, list, volume_heads, fill_volume);
}

int verb_volume_describe(struct cli_call *call)
{
    un_autojson json_t *v = NULL;
    un_autofree char *path = api_path("/api/v1/volumes/%s", call->args.operands[0]);
    int status = api_call(call, "GET", path, NULL, &v);
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(v);
    }
    un_autobuf struct un_buf out = {0};
    char text[TABLE_CELL_SIZE], more[128];
    int rc = show_line(&out, "Name:", api_str(v, "name"));
    rc = rc ? rc : show_line(&out, "Format:", api_str(v, "format"));
    rc = rc ? rc : show_line(&out, "Size:", exact_size(api_uint(v, "size"), text));
    rc = rc ? rc : show_line(&out, "Allocated:", table_size(api_uint(v, "allocated"), text));
    rc = rc ? rc : show_line(&out, "From image:", api_str(v, "image"));
    rc = rc ? rc : show_line(&out, "Used by:", user_of(v));
    snprintf(more, sizeof(more), "%s (%s)", api_str(v, "created_at"),
             show_ago(api_str(v, "created_at"), text));
    rc = rc ? rc : show_line(&out, "Created:", more);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

static int volume_path(const struct cli_call *call, const char *name, char **ret)
{
    *ret = api_path("/api/v1/volumes/%s", name); /* NULL: api_call reports it */
    return CLI_DONE;
}

int verb_volume_rm(struct cli_call *call)
{
    return api_remove_each(call, volume_path);
}
