/* completion.c - unictl completion: shells' completion of verbs and options, made of the table of verbs.
 *
 * The scripts find the verb among the words so far, as main.c does, and have a list for each; where neither a verb
 * nor an option is wanted, files are completed. Bash shows names, zsh also what they are for.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "common/cleanup.h"

struct shell {
    const char *name;
    bool describes; /* items of lists are NAME:WHAT */
    const char *begin, *end;
};

static const struct shell shells[] = {
    {"bash", false,
     "# made by: unictl completion bash\n"
     "_unictl()\n{\n"
     "    local cur=${COMP_WORDS[COMP_CWORD]} verb= more= i w\n"
     "    local -a list=()\n"
     "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
     "        w=${COMP_WORDS[i]}\n",
     "    if [[ $more || $cur == -* ]]; then\n"
     "        local IFS=$'\\n'\n"
     "        COMPREPLY=($(compgen -W \"${list[*]}\" -- \"$cur\"))\n"
     "    fi\n}\n"
     "complete -o default -F _unictl unictl\n"},
    {"zsh", true,
     "#compdef unictl\n"
     "# made by: unictl completion zsh\n"
     "_unictl()\n{\n"
     "    local verb= more= i w\n"
     "    local -a list\n"
     "    for ((i = 2; i < CURRENT; i++)); do\n"
     "        w=$words[i]\n",
     "    if [[ -n $more || $PREFIX == -* ]]; then\n"
     "        _describe unictl list\n"
     "    else\n"
     "        _files\n"
     "    fi\n}\n"
     "_unictl \"$@\"\n"},
};

/* One item of a list, in single quotes. */
static int add_item(const struct shell *sh, const char *before, const char *name, size_t len,
                    const char *what, struct un_buf *out)
{
    int rc = un_buf_printf(out, " '%s%.*s%s", before, (int)len, name, sh->describes ? ":" : "");
    for (const char *c = sh->describes ? what : ""; *c && rc == 0; c++) {
        rc = un_buf_printf(out, *c == '\'' ? "'\\''" : *c == ':' ? "\\:" : "%c", *c);
    }
    return rc ? rc : un_buf_append_str(out, "'");
}

static int add_options(const struct shell *sh, const struct args_option *options,
                       struct un_buf *out)
{
    int rc = 0;
    for (const struct args_option *o = options; o->name && rc == 0; o++) {
        rc = add_item(sh, "--", o->name, strlen(o->name), o->help, out);
    }
    return rc;
}

/* How long the first of two words is; 0: the verb has one. */
static size_t group_len(const struct cli_verb *v)
{
    const char *space = strchr(v->name, ' ');
    return space ? (size_t)(space - v->name) : 0;
}

/* Whether the verb is the first of its group in the table, where a group stands together. */
static bool begins_group(const struct cli_verb *v)
{
    size_t len = group_len(v);
    return len && (v == cli_verbs || strncmp(v->name, v[-1].name, len + 1) != 0);
}

/* What stands in front of the lists: the words that are followed by another, and the end of the loop. */
static int add_loop(struct un_buf *out)
{
    int rc = un_buf_append_str(out, "        case $w in\n");
    for (const struct args_option *o = cli_global_options; o->name && rc == 0; o++) {
        if (o->value) {
            rc = un_buf_printf(out, "        --%s) ((i++)) ;;\n", o->name);
        }
        if (o->value && o->letter) {
            rc = rc ? rc : un_buf_printf(out, "        -%c) ((i++)) ;;\n", o->letter);
        }
    }
    rc = rc ? rc
            : un_buf_append_str(out, "        -*) ;;\n        *)\n"
                                     "            verb+=${verb:+ }$w\n            case $verb in\n");
    for (const struct cli_verb *v = cli_verbs; v->name && rc == 0; v++) {
        if (begins_group(v)) {
            rc = un_buf_printf(out, "            %.*s) ;;\n", (int)group_len(v), v->name);
        }
    }
    return rc ? rc
              : un_buf_append_str(out, "            *) break ;;\n            esac ;;\n"
                                       "        esac\n    done\n    case $verb in\n");
}

/* The first words, and the options that may stand in front of them. */
static int add_first_words(const struct shell *sh, struct un_buf *out)
{
    int rc = un_buf_append_str(out, "    '') more=1 list=(");
    for (const struct cli_verb *v = cli_verbs; v->name && rc == 0; v++) {
        size_t len = group_len(v);
        if (!len || begins_group(v)) {
            rc = add_item(sh, "", v->name, len ? len : strlen(v->name), v->summary, out);
        }
    }
    rc = rc ? rc : add_options(sh, cli_global_options, out);
    return rc ? rc : un_buf_append_str(out, ") ;;\n");
}

static int add_second_words(const struct shell *sh, const struct cli_verb *first,
                            struct un_buf *out)
{
    size_t len = group_len(first);
    int rc = un_buf_printf(out, "    %.*s) more=1 list=(", (int)len, first->name);
    for (const struct cli_verb *v = first; v->name && rc == 0; v++) {
        if (strncmp(v->name, first->name, len + 1) == 0) {
            const char *word = v->name + len + 1;
            rc = add_item(sh, "", word, strlen(word), v->summary, out);
        }
    }
    return rc ? rc : un_buf_append_str(out, ") ;;\n");
}

static int add_verb(const struct shell *sh, const struct cli_verb *v, struct un_buf *out)
{
    int rc = begins_group(v) ? add_second_words(sh, v, out) : 0;
    rc = rc ? rc : un_buf_printf(out, "    '%s') list=(", v->name);
    rc = rc ? rc : add_options(sh, v->options, out);
    rc = rc ? rc : add_options(sh, cli_global_options, out);
    return rc ? rc : un_buf_append_str(out, ") ;;\n");
}

int verb_completion(struct cli_call *call)
{
    un_autobuf struct un_buf out = {0};
    const struct shell *sh = NULL;
    for (size_t i = 0; i < UN_ARRAY_SIZE(shells); i++) {
        sh = strcmp(call->args.operands[0], shells[i].name) == 0 ? &shells[i] : sh;
    }
    if (!sh) {
        return cli_usage(call, "'%s' is no shell whose completion is known: bash, zsh",
                         call->args.operands[0]);
    }
    int rc = un_buf_append_str(&out, sh->begin);
    rc = rc ? rc : add_loop(&out);
    rc = rc ? rc : add_first_words(sh, &out);
    for (const struct cli_verb *v = cli_verbs; v->name && rc == 0; v++) {
        rc = add_verb(sh, v, &out);
    }
    rc = rc ? rc : un_buf_append_str(&out, "    esac\n");
    rc = rc ? rc : un_buf_append_str(&out, sh->end);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}
