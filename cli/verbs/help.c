/* help.c - unictl help and --help. */
#include <errno.h>

#include "cli/api.h"
#include "cli/verbs/verbs.h"
#include "common/cleanup.h"

int cli_show_help(const struct cli_verb *verb)
{
    un_autobuf struct un_buf out = {0};
    int rc = verb ? cli_help_verb(verb, &out) : cli_help_overview(&out);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

/* The table of verbs for programs. */
static int print_verbs_json(void)
{
    un_autojson json_t *doc = json_pack("{s:[]}", "verbs");
    json_t *list = json_object_get(doc, "verbs");
    for (const struct cli_verb *v = cli_verbs; list && v->name; v++) {
        if (json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "verb", v->name, "operands",
                                                  v->operands, "summary", v->summary)) < 0) {
            return cli_fail_output(-ENOMEM);
        }
    }
    return list ? cli_print_json(doc) : cli_fail_output(-ENOMEM);
}

int verb_help(struct cli_call *call)
{
    if (call->json) {
        return print_verbs_json();
    }
    if (call->args.operand_count == 0) {
        return cli_show_help(NULL);
    }
    char *words[2] = {NULL};
    for (size_t i = 0; i < call->args.operand_count; i++) {
        words[i] = (char *)call->args.operands[i];
    }
    int used = 0;
    int count = (int)call->args.operand_count;
    const struct cli_verb *verb = cli_find_verb(count, words, &used);
    if (!verb || used != count) {
        return cli_usage(call, "there is no verb '%s%s%s'", words[0], count > 1 ? " " : "",
                         count > 1 ? words[1] : "");
    }
    return cli_show_help(verb);
}
