/* deadletter.c - unictl deadletter ls, show, redrive, rm: events that were given up. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/show.h"
#include "common/cleanup.h"
#include "common/id.h"

enum { LETTERS_DEFAULT = 20, LETTERS_MAX = 1000000 };

static const char *const letter_heads[] = {"ID",    "FUNCTION", "TRIGGER", ">ATTEMPTS",
                                           ">BODY", "DIED",     "REASON",  NULL};

static void fill_letter(const json_t *l, struct show_row *row)
{
    row->cell[0] = api_str(l, "id");
    row->cell[1] = *api_str(l, "url") ? api_str(l, "url") : api_str(l, "function");
    row->cell[2] = *api_str(l, "trigger") ? api_str(l, "trigger") : NULL;
    row->cell[3] = show_number(l, "attempts", row->text[3]);
    row->cell[4] = table_size(api_uint(l, "bytes"), row->text[4]);
    row->cell[5] = show_ago(api_str(l, "died_at"), row->text[5]);
    row->cell[6] = api_str(l, "reason");
}

/* The path with --function and --trigger as its query; NULL when memory lacks. */
static char *filtered(const struct cli_call *call, const char *path)
{
    const char *function = args_get(&call->args, "function");
    const char *trigger = args_get(&call->args, "trigger");
    un_autofree char *f = function ? api_path("function=%s", function) : strdup("");
    un_autofree char *t = trigger ? api_path("trigger=%s", trigger) : strdup("");
    char *whole = NULL;
    if (!f || !t ||
        asprintf(&whole, "%s%s%s%s%s", path, *f || *t ? "?" : "", f, *f && *t ? "&" : "", t) < 0) {
        return NULL;
    }
    return whole;
}

int verb_deadletter_ls(struct cli_call *call)
{
    const char *text = args_get(&call->args, "limit");
    struct un_error err = UN_ERROR_INIT;
    uint64_t limit = LETTERS_DEFAULT;
    un_autojson json_t *list = NULL;
    if (text && args_count(text, 1, LETTERS_MAX, &limit, &err) < 0) {
        return cli_usage(call, "--limit: %s", err.text);
    }
    un_autofree char *path = filtered(call, "/api/v1/deadletters");
    int status = api_list(call, path, limit, &list);
    return status != CLI_DONE ? status : show_list(call, list, letter_heads, fill_letter);
}

static int letter_text(const json_t *l, struct un_buf *out)
{
    char size[TABLE_CELL_SIZE], more[256];
    const char *key;
    json_t *value;
    int rc = show_known(out, "Invocation:", api_str(l, "id"));
    rc = rc ? rc : show_known(out, "Function:", api_str(l, "function"));
    rc = rc ? rc : show_known(out, "Qualifier:", api_str(l, "qualifier"));
    rc = rc ? rc : show_known(out, "Trigger:", api_str(l, "trigger"));
    rc = rc ? rc : show_known(out, "URL:", api_str(l, "url"));
    rc = rc ? rc : show_known(out, "Reason:", api_str(l, "reason"));
    rc = rc ? rc : show_known(out, "Outcome:", api_str(l, "outcome"));
    snprintf(more, sizeof(more), "%" PRIu64 ", see unictl receipts", api_uint(l, "attempts"));
    rc = rc ? rc : show_known(out, "Attempts:", more);
    rc = rc ? rc : show_known(out, "Accepted:", api_str(l, "accepted_at"));
    rc = rc ? rc : show_known(out, "Died:", api_str(l, "died_at"));
    json_object_foreach(json_object_get(l, "headers"), key, value)
    {
        const char *text = json_string_value(value);
        snprintf(more, sizeof(more), "%.100s: %.150s", key, text ? text : "");
        rc = rc ? rc : show_known(out, "Header:", more);
    }
    snprintf(more, sizeof(more), "%s %s", table_size(api_uint(l, "bytes"), size),
             api_str(l, "content_type"));
    rc = rc ? rc : show_known(out, "Body:", more);
    if (rc == 0 && *api_str(l, "body")) {
        rc = un_buf_append_str(out, "\n");
        rc = rc ? rc : table_append_clean(out, api_str(l, "body"), true);
        rc = rc ? rc : un_buf_append_str(out, "\n");
    } else if (rc == 0 && *api_str(l, "body_base64")) {
        rc = un_buf_append_str(out, "\nThe body is no text; --json shows it in base64.\n");
    }
    return rc;
}

/* "/api/v1/deadletters/ID<rest>", or a usage error. */
static int letter_path(const struct cli_call *call, const char *id, const char *rest, char **ret)
{
    if (!un_id_valid(id)) {
        return cli_usage(call, "'%s' is no dead letter's id: see unictl deadletter ls", id);
    }
    *ret = NULL;
    if (asprintf(ret, "/api/v1/deadletters/%s%s", id, rest) < 0) {
        *ret = NULL;
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    return CLI_DONE;
}

int verb_deadletter_show(struct cli_call *call)
{
    un_autofree char *path = NULL;
    un_autojson json_t *letter = NULL;
    int status = letter_path(call, call->args.operands[0], "", &path);
    status = status == CLI_DONE ? api_call(call, "GET", path, NULL, &letter) : status;
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(letter);
    }
    un_autobuf struct un_buf out = {0};
    int rc = letter_text(letter, &out);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* Does one thing to each operand; goes on behind a failure. */
static int each_letter(struct cli_call *call, const char *method, const char *rest, const char *key)
{
    un_autojson json_t *done = json_pack("{s:[]}", key);
    int worst = done ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
    for (size_t i = 0; done && i < call->args.operand_count; i++) {
        const char *id = call->args.operands[i];
        un_autofree char *path = NULL;
        un_autojson json_t *answer = NULL;
        int status = letter_path(call, id, rest, &path);
        status = status == CLI_DONE ? api_call(call, method, path, NULL, &answer) : status;
        if (status == CLI_DONE) {
            json_array_append_new(json_object_get(done, key), json_string(id));
            if (!call->json) {
                printf("%s\n", id);
            }
        }
        worst = worst == CLI_DONE ? status : worst;
    }
    return worst == CLI_DONE && call->json ? cli_print_json(done) : worst;
}

/* What a verb does to dead letters, one by one or all that a filter leaves. */
struct change {
    const char *method, *rest; /* of one: behind its path */
    const char *all;           /* the path of all */
    const char *key;           /* of the answer */
};

static int change_all(struct cli_call *call, const struct change *c)
{
    un_autofree char *path = filtered(call, c->all);
    un_autojson json_t *answer = NULL;
    int status = api_call(call, c->method, path, NULL, &answer);
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(answer);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%" PRIu64 "\n", api_uint(answer, c->key));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

static int change(struct cli_call *call, const struct change *c)
{
    bool all = args_has(&call->args, "all");
    bool filter = args_get(&call->args, "function") || args_get(&call->args, "trigger");
    if (all == (call->args.operand_count > 0) || (filter && !all)) {
        return cli_usage(call, "give ids, or --all, which --function and --trigger narrow");
    }
    return all ? change_all(call, c) : each_letter(call, c->method, c->rest, c->key);
}

int verb_deadletter_redrive(struct cli_call *call)
{
    static const struct change redrive = {"POST", "/redrive", "/api/v1/deadletters/redrive",
                                          "redriven"};
    return change(call, &redrive);
}

int verb_deadletter_rm(struct cli_call *call)
{
    static const struct change rm = {"DELETE", "", "/api/v1/deadletters", "removed"};
    return change(call, &rm);
}
