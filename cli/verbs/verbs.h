/* verbs.h - the one table of unictl's verbs, and what a handler gets.
 *
 * To add a verb: write its handler in a file here, declare it below, and add its row to verbs.c.
 * Help, parsing and dispatch follow from the row.
 */
#ifndef UNID_CLI_VERBS_VERBS_H
#define UNID_CLI_VERBS_VERBS_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/args.h"
#include "cli/client.h"

/* Exit status; the numbers are part of unictl's interface. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_REFUSED = 1, /* by the daemon; also a local failure such as an unreadable file */
    CLI_USAGE = 2,
    CLI_NO_DAEMON = 3,
    CLI_FUNCTION_FAILED = 4,
    CLI_TIMED_OUT = 5
};

enum { VERB_ANY = -1 };

struct cli_call;

struct cli_verb {
    const char *name;                  /* one word, or two with one space ("image ls") */
    const char *operands;              /* as usage shows them */
    int least, most;                   /* how many operands; VERB_ANY: no upper bound */
    bool takes_rest;                   /* words behind "--" belong to the function */
    const struct args_option *options; /* its own; never NULL */
    int (*run)(struct cli_call *call); /* gives an enum cli_exit */
    const char *summary;               /* one line for `unictl help` */
    const char *details;               /* more for `unictl VERB --help`, or NULL */
};

/* What a handler works on; all borrowed until it returns. */
struct cli_call {
    const struct cli_verb *verb;
    struct args args;
    struct client *client;
    bool json;  /* --json */
    bool quiet; /* what goes well is told by the verb alone */
};

extern const struct args_option cli_global_options[];

/* Ended by an entry without a name, in the order of help. */
extern const struct cli_verb cli_verbs[];

/* The verb that argv begins with; `*ret_words` is 1 or 2. NULL when there is none. */
const struct cli_verb *cli_find_verb(int argc, char *const *argv, int *ret_words);
/* What an unknown verb was probably meant to be, or NULL. Borrowed from the table. */
const char *cli_suggest_verb(int argc, char *const *argv);

/* Texts for people. 0, -ENOMEM. */
int cli_help_overview(struct un_buf *out);
int cli_help_verb(const struct cli_verb *verb, struct un_buf *out);
/* Prints the help of a verb, or of all with NULL. An exit status. */
int cli_show_help(const struct cli_verb *verb);

int verb_bench(struct cli_call *call);
int verb_check(struct cli_call *call);
int verb_completion(struct cli_call *call);
int verb_deadletter_ls(struct cli_call *call);
int verb_deadletter_redrive(struct cli_call *call);
int verb_deadletter_rm(struct cli_call *call);
int verb_deadletter_show(struct cli_call *call);
int verb_deploy(struct cli_call *call);
int verb_apply(struct cli_call *call);
int verb_delete(struct cli_call *call);
int verb_describe(struct cli_call *call);
int verb_doctor(struct cli_call *call);
int verb_replay(struct cli_call *call);
int verb_watch(struct cli_call *call);
int verb_top(struct cli_call *call);
int verb_volume_create(struct cli_call *call);
int verb_volume_describe(struct cli_call *call);
int verb_volume_ls(struct cli_call *call);
int verb_volume_rm(struct cli_call *call);
int verb_help(struct cli_call *call);
int verb_image_ls(struct cli_call *call);
int verb_image_push(struct cli_call *call);
int verb_image_rm(struct cli_call *call);
int verb_image_tag(struct cli_call *call);
int verb_image_untag(struct cli_call *call);
int verb_invoke(struct cli_call *call);
int verb_logs(struct cli_call *call);
int verb_ls(struct cli_call *call);
int verb_ps(struct cli_call *call);
int verb_receipt(struct cli_call *call);
int verb_receipts(struct cli_call *call);
int verb_rm(struct cli_call *call);
int verb_rollback(struct cli_call *call);
int verb_alias_set(struct cli_call *call);
int verb_alias_ls(struct cli_call *call);
int verb_alias_rm(struct cli_call *call);
int verb_trigger_add(struct cli_call *call);
int verb_trigger_ls(struct cli_call *call);
int verb_trigger_rm(struct cli_call *call);
int verb_trigger_show(struct cli_call *call);
int verb_version(struct cli_call *call);
int verb_versions(struct cli_call *call);

#endif
