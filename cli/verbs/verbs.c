/* verbs.c - see verbs.h. */
#include "cli/verbs/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

const struct args_option cli_global_options[] = {
    {"host", 'H', "URL", "the daemon's address: http://HOST:PORT or unix:///PATH (UNID_HOST)"},
    {"token-file", 0, "FILE", "file with the access token (or the token itself in UNID_TOKEN)"},
    {"json", 0, NULL, "print the API's JSON instead of text for people"},
    {"help", 'h', NULL, "show help"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option no_options[] = {{NULL, 0, NULL, NULL}};

#define GATHER_OPTIONS                                                                             \
    {"with", 'w', "PATH", "take this file or directory along, at its path; may be repeated"},      \
        {"rootfs", 0, "DIR|TAR",                                                                   \
         "the root file system, or a container image; PROGRAM is a path in it; - for standard "    \
         "input"},                                                                                 \
        {"workdir", 0, "DIR", "the directory that the program starts in (default /)"},             \
    {                                                                                              \
        "program", 0, "PATH", "what runs, a path in the root file system"                          \
    }

static const struct args_option deploy_options[] = {
    {"interface", 'i', "I", "how it takes requests: filter, cgi, http, sdk; or tcp: connections"},
    {"memory", 'm', "SIZE", "memory of each VM, like 64M"},
    {"timeout", 't', "TIME", "longest run of an invocation, like 30s"},
    {"concurrency", 'c', "N", "VMs at once"},
    {"reserved", 0, "N", "VMs of these that other functions cannot keep it from having"},
    {"driver", 0, "D", "what runs it: auto, kvm, libvirt or fake"},
    {"isolation", 0, "I", "vm: a new VM for each request; reset: VMs put back to a snapshot"},
    {"snapshot", 0, "WHEN",
     "ready: when the program asks for a request; start: before its own start"},
    {"env", 'e', "K=V", "an environment variable; may be repeated"},
    {"list-calls", 0, NULL, "have receipts tell which system calls a program made"},
    GATHER_OPTIONS,
    {"publish", 0, "[ADDR:]PORT",
     "unid listens there for it (ADDR: 127.0.0.1 if not given); may be repeated"},
    {"egress", 0, "HOST:PORT",
     "where the program may connect to; HOST may be *.DOMAIN, PORT *; may be repeated"},
    {"machine", 0, NULL, "IMAGE is a machine image: a kernel, or a disk with one"},
    {"port", 'p', "N", "machine images: the port that the guest listens on (default 80)"},
    {"append", 0, "WORDS",
     "machine images: for the command line; {ip} {prefix} {netmask} {gateway} {dns} {mac} {port} "
     "stand "
     "for the guest's network"},
    {"flavor", 0, "F",
     "machine images: plain, pc, q35, firecracker, unikraft, unikraft-fc, solo5, osv, rumprun, "
     "nanos, linux or "
     "linux-pc; else what the image says"},
    {"service", 0, NULL, "machine images: keep the machine for more requests; stop it when idle"},
    {"idle-timeout", 0, "TIME", "services: how long a machine runs without requests (default 60s)"},
    {"ready-timeout", 0, "TIME",
     "machine images: how long the port may take to answer (default 30s)"},
    {"ready-console", 0, "TEXT",
     "machine images: ready when a console line has TEXT, not when the port answers"},
    {"min-instances", 0, "N", "services: machines that always run"},
    {"max-instances", 0, "N", "services: machines at most (default 1)"},
    {"initrd", 0, "FILE",
     "kernels: the initial RAM disk, a cpio archive; a file here, or a digest"},
    {"disk", 0, "FILE", "kernels: a first disk, whose changes are lost; a file here, or a digest"},
    {"volume", 0, "NAME", "services: a disk to keep data on, of unictl volume; may be repeated"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option apply_options[] = {
    {"file", 'f', "FILE", "the JSON file; - for standard input"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option delete_options[] = {
    {"file", 'f', "FILE", "the JSON file; - for standard input"},
    {"volumes", 0, NULL, "remove its volumes too, with all that is on them"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option check_options[] = {
    GATHER_OPTIONS,
    {"run", 0, NULL,
     "also run it once, in a VM, and list the system calls it made, those not there first"},
    {"data", 'd', "DATA",
     "with --run: what it reads: @FILE, - for standard input, or the text itself"},
    {"interface", 'i', "I", "with --run: how the program takes requests: filter, cgi or http"},
    {"memory", 'm', "SIZE", "with --run: memory of the VM, like 64M"},
    {"timeout", 't', "TIME", "with --run: how long it may take, like 30s"},
    {"env", 'e', "K=V", "with --run: an environment variable; may be repeated"},
    {"egress", 0, "HOST:PORT",
     "with --run: where it may connect to, as for deploy; may be repeated"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option invoke_options[] = {
    {"async", 0, NULL, "have it run later; prints the invocation's id"},
    {"max-attempts", 0, "N", "async: how often it may fail (default: unid's retry.max_attempts)"},
    {"max-age", 0, "TIME", "async: a failed attempt is the last when it is older, like 2h"},
    {"backoff", 0, "TIME", "async: the first delay is random up to this; it doubles"},
    {"backoff-max", 0, "TIME", "async: no delay is longer"},
    {"delay", 0, "TIME", "async: it does not run earlier"},
    {"on-success", 0, "TO", "async: a function or a URL that gets the answer"},
    {"on-failure", 0, "TO", "async: a function or a URL that gets the request when it is given up"},
    {"data", 'd', "DATA", "the body: @FILE, - for standard input, or the text itself"},
    {"header", 0, "K:V", "a header field of the request; may be repeated"},
    {"include", 0, NULL, "show the answer's head on standard error"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option logs_options[] = {
    {"follow", 'f', NULL, "go on with each new line"},
    {"limit", 'n', "N", "how many lines back (default 100)"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option receipts_options[] = {
    {"limit", 'n', "N", "how many (default 20)"},
    {"status", 0, "WORD", "only ok, failed, one outcome such as timed-out, or a code such as 502"},
    {"trigger", 0, "NAME", "only those of a trigger's events"},
    {"since", 0, "TIME", "only of the last so long, like 15m"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option replay_options[] = {
    {"version", 0, "VERSION", "of the function, or an alias (default: the live version)"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option watch_options[] = {
    {"kinds", 0, "KINDS",
     "only these, with commas: function,invocation,instance,trigger,deadletter,image"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option deadletter_ls_options[] = {
    {"limit", 'n', "N", "how many (default 20)"},
    {"function", 0, "NAME", "only those of a function"},
    {"trigger", 0, "NAME", "only those of a trigger's events"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option deadletter_many_options[] = {
    {"all", 0, NULL, "all of them; prints how many"},
    {"function", 0, "NAME", "with --all: only those of a function"},
    {"trigger", 0, "NAME", "with --all: only those of a trigger's events"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option bench_options[] = {
    {"requests", 'n', "N", "how many requests (default 200)"},
    {"warmup", 0, "N", "how many before them that do not count (default 10)"},
    {"data", 'd', "DATA", "the body: @FILE, or the text itself"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option push_options[] = {
    {"tag", 0, "TAG", "point this tag at the image"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option volume_options[] = {
    {"size", 0, "SIZE", "of the disk, like 1G"},
    {"from", 0, "FILE", "a raw or qcow2 disk image that it begins as; a file here, or a digest"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option trigger_options[] = {
    {"function", 'f', "NAME", "what is to run, with :VERSION or :ALIAS if wanted; may be repeated"},
    {"events", 0, "NAMES", "s3: like 's3:ObjectCreated:*'; dynamodb: INSERT, MODIFY, REMOVE"},
    {"bucket", 0, "BUCKET", "s3: only events of this bucket"},
    {"prefix", 0, "TEXT", "s3: only keys that begin so"},
    {"suffix", 0, "TEXT", "s3: only keys that end so"},
    {"endpoint", 0, "URL", "s3: the store, for --fetch and --put"},
    {"region", 0, "REGION", "s3: of the store, for signing (default us-east-1)"},
    {"access-key", 0, "KEY", "s3: instead of AWS_ACCESS_KEY_ID"},
    {"secret-key-file", 0, "FILE", "s3: instead of AWS_SECRET_ACCESS_KEY; - for standard input"},
    {"fetch", 0, NULL, "s3: the function gets the object's bytes, not the event"},
    {"put", 0, "BUCKET/PREFIX", "s3: store what the function answers there"},
    {"confirm", 0, NULL, "s3: confirm subscriptions of AWS SNS"},
    {"confirm-host", 0, "HOST", "s3: where to (default sns.REGION.amazonaws.com)"},
    {"order", 0, "WHAT", "s3, dynamodb: none, or flag or drop events out of order"},
    {"type", 0, "TEXT", "cloudevents: exactly, or with one * as 'prefix*suffix'; as the next two"},
    {"source", 0, "TEXT", "cloudevents: only of this source"},
    {"subject", 0, "TEXT", "cloudevents: only about this subject"},
    {"table", 0, "TABLE", "dynamodb: only changes of this table"},
    {"schedule", 0, "CRON", "cron: five fields like '*/5 * * * *', or '@every 90s'"},
    {"timezone", 0, "ZONE", "cron: like Europe/Berlin (default UTC)"},
    {"missed", 0, "WHAT", "cron: skip runs that were missed, make up once, or all"},
    {"max-attempts", 0, "N",
     "how often it may fail (default: unid's retry.max_attempts); 1: no retry"},
    {"max-age", 0, "TIME", "a failed attempt at an older event is the last, like 6h"},
    {"backoff", 0, "TIME", "longest pause after the first failure; doubles with each"},
    {"backoff-max", 0, "TIME", "longest pause of all"},
    {"dedupe-window", 0, "TIME", "how long events are known by their identity"},
    {"on-success", 0, "WHERE", "function or URL that gets the answer"},
    {"on-failure", 0, "WHERE", "function or URL that gets the event when it is given up"},
    {"trigger-token-file", 0, "FILE", "file with the token, instead of a new random one"},
    {"disabled", 0, NULL, "keep it, but take nothing in"},
    {NULL, 0, NULL, NULL},
};

static const struct args_option top_options[] = {
    {"all", 'a', NULL, "every function, not only those that do something"},
    {"interval", 'd', "SECONDS", "between two looks, like 5 or 0.5 (default 1)"},
    {"iterations", 'n', "N", "end after N tables; 0: never"},
    {"no-stream", 0, NULL, "end after one table, as without a terminal"},
    {NULL, 0, NULL, NULL},
};

const struct cli_verb cli_verbs[] = {
    {"deploy", "NAME [PROGRAM|IMAGE] [-- ARG...]", 1, 2, true, deploy_options, verb_deploy,
     "Make a function of a program, or a new version of it",
     "PROGRAM is a local file: a Linux program or script, which is sent with its interpreter and\n"
     "libraries and what --with names, or an image that is pushed as it is. With --rootfs it is a "
     "path\n"
     "in that root file system (- for the program that a tar archive itself names). If that is a\n"
     "container image (of docker save, or an OCI layout), it says what runs, unless PROGRAM is\n"
     "given. IMAGE is a digest or a tag. Words behind -- are the program's arguments.\n"},
    {"apply", "", 0, 0, false, apply_options, verb_apply,
     "Deploy the functions of a file, and make its volumes",
     "The file: {\"volumes\": {NAME: {\"size_mib\": N}}, \"functions\": {NAME: {...}}}. A function "
     "is what\n"
     "PUT /api/v1/functions/NAME takes; image, machine.initrd and machine.disk may be files, and "
     "with,\n"
     "rootfs and program do what they do to deploy. Paths begin where the file is. All of it is "
     "checked\n"
     "before anything is changed; what is there already stays as it is.\n"},
    {"delete", "", 0, 0, false, delete_options, verb_delete, "Remove the functions of a file",
     "Volumes stay, unless --volumes is given.\n"},
    {"check", "[PROGRAM|IMAGE] [-- ARG...]", 0, 1, true, check_options, verb_check,
     "Tell whether a program can run, without deploying it",
     "Shows the kind, the libraries, the system calls found and rewritten in each file, those "
     "known to\n"
     "be missing, what is wrong, and the memory needed. The image stays in the store, where the "
     "garbage\n"
     "collection finds it.\n"},
    {"invoke", "NAME[:VERSION|ALIAS]", 1, 1, false, invoke_options, verb_invoke,
     "Call a function; its answer goes to standard output", NULL},
    {"ls", "", 0, 0, false, no_options, verb_ls, "List functions", NULL},
    {"describe", "NAME", 1, 1, false, no_options, verb_describe,
     "Show a function: configuration, aliases, image, recent receipts", NULL},
    {"rm", "NAME...", 1, VERB_ANY, false, no_options, verb_rm,
     "Remove functions with all their versions", NULL},
    {"versions", "NAME", 1, 1, false, no_options, verb_versions, "List a function's versions",
     NULL},
    {"rollback", "NAME [VERSION]", 1, 2, false, no_options, verb_rollback,
     "Make an older version live again",
     "Without VERSION: the newest version that is older than the live one.\n"},
    {"alias set", "NAME ALIAS VERSION", 3, 3, false, no_options, verb_alias_set,
     "Point an alias at a version, or move it there",
     "unictl invoke NAME:ALIAS calls that version. \"live\" is what calls get that name none.\n"},
    {"alias ls", "NAME", 1, 1, false, no_options, verb_alias_ls, "List a function's aliases", NULL},
    {"alias rm", "NAME ALIAS", 2, 2, false, no_options, verb_alias_rm,
     "Remove an alias; its version stays", NULL},
    {"ps", "", 0, 0, false, no_options, verb_ps, "List virtual machines", NULL},
    {"top", "", 0, 0, false, top_options, verb_top,
     "Show which functions do something now, the busiest first",
     "Rates, and the mean time of requests from their admission to the answer's end, are of the\n"
     "last interval. On a terminal it goes on until it is interrupted. With --json: one JSON\n"
     "object a line.\n"},
    {"logs", "NAME", 1, 1, false, logs_options, verb_logs, "Show what a function has logged",
     "With --json: one JSON object a line.\n"},
    {"receipts", "[NAME]", 0, 1, false, receipts_options, verb_receipts,
     "List receipts of invocations, newest first", NULL},
    {"receipt", "ID", 1, 1, false, no_options, verb_receipt, "Show an invocation's receipt", NULL},
    {"replay", "ID", 1, 1, false, replay_options, verb_replay,
     "Run the request of a failed invocation again, and compare the answers",
     "The requests of failed invocations are kept for a while, as far as the settings replay.* of\n"
     "unid say.\n"},
    {"watch", "", 0, 0, false, watch_options, verb_watch, "Show what changes, as it happens",
     "With --json: one JSON object a line.\n"},
    {"deadletter ls", "", 0, 0, false, deadletter_ls_options, verb_deadletter_ls,
     "List events that were given up, newest first", NULL},
    {"deadletter show", "ID", 1, 1, false, no_options, verb_deadletter_show,
     "Show an event that was given up, with the reason and its body", NULL},
    {"deadletter redrive", "ID...", 0, VERB_ANY, false, deadletter_many_options,
     verb_deadletter_redrive, "Have events run again that were given up",
     "Their attempts and their age are counted anew.\n"},
    {"deadletter rm", "ID...", 0, VERB_ANY, false, deadletter_many_options, verb_deadletter_rm,
     "Remove events that were given up", NULL},
    {"bench", "NAME[:VERSION|ALIAS]", 1, 1, false, bench_options, verb_bench,
     "Measure a function: where the time of its requests goes",
     "Sends one request after the other on one connection, and shows percentiles of the phases\n"
     "that the receipts tell and of the time that the client sees.\n"},
    {"image ls", "", 0, 0, false, no_options, verb_image_ls, "List images", NULL},
    {"image push", "FILE", 1, 1, false, push_options, verb_image_push,
     "Store an image; prints its digest", NULL},
    {"image rm", "DIGEST...", 1, VERB_ANY, false, no_options, verb_image_rm,
     "Remove images that no function refers to",
     "The first 8 or more hexadecimal digits of a digest are enough when no other image has "
     "them.\n"},
    {"image tag", "IMAGE TAG", 2, 2, false, no_options, verb_image_tag,
     "Point a tag at an image, or move it there",
     "IMAGE is a tag, a digest, or the first 8 or more hexadecimal digits of a digest.\n"},
    {"image untag", "TAG", 1, 1, false, no_options, verb_image_untag,
     "Remove a tag; the image stays", NULL},
    {"volume create", "NAME", 1, 1, false, volume_options, verb_volume_create,
     "Make a disk that keeps data between machines; prints its name",
     "It takes room as it is written to. With --from it begins as that image, and --size is needed "
     "only\n"
     "when a raw one should be larger. A volume that was made from the same is left as it is.\n"},
    {"volume ls", "", 0, 0, false, no_options, verb_volume_ls, "List volumes", NULL},
    {"volume describe", "NAME", 1, 1, false, no_options, verb_volume_describe, "Show a volume",
     NULL},
    {"volume rm", "NAME...", 1, VERB_ANY, false, no_options, verb_volume_rm,
     "Remove volumes, with all that is on them", "What a function uses is not removed.\n"},
    {"trigger add", "s3|cloudevents|dynamodb|cron NAME", 2, 2, false, trigger_options,
     verb_trigger_add, "Run functions for events; prints where to send them, and the token",
     "A trigger of that name is replaced; its token stays. See docs/events.md.\n"},
    {"trigger ls", "", 0, 0, false, no_options, verb_trigger_ls, "List triggers", NULL},
    {"trigger show", "NAME", 1, 1, false, no_options, verb_trigger_show,
     "Show a trigger, without its secrets", NULL},
    {"trigger rm", "NAME...", 1, VERB_ANY, false, no_options, verb_trigger_rm, "Remove triggers",
     "What they have accepted already still runs.\n"},
    {"doctor", "", 0, 0, false, no_options, verb_doctor,
     "Check what unid needs, and say how to mend what is missing",
     "Looks at this machine and has the daemon measure its drivers.\n"},
    {"version", "", 0, 0, false, no_options, verb_version, "Show unictl's and the daemon's version",
     NULL},
    {"completion", "bash|zsh", 1, 1, false, no_options, verb_completion,
     "Print a shell's completion of verbs and options",
     "`make install` puts it in place; without: source <(unictl completion bash)\n"},
    {"help", "[VERB]", 0, 2, false, no_options, verb_help, "Show help", NULL},
    {NULL, NULL, 0, 0, false, NULL, NULL, NULL, NULL},
};

const struct cli_verb *cli_find_verb(int argc, char *const *argv, int *ret_words)
{
    for (const struct cli_verb *v = cli_verbs; v->name && argc > 0; v++) {
        const char *space = strchr(v->name, ' ');
        size_t first = space ? (size_t)(space - v->name) : strlen(v->name);
        if (strlen(argv[0]) != first || strncmp(argv[0], v->name, first) != 0) {
            continue;
        }
        if (!space || (argc > 1 && strcmp(argv[1], space + 1) == 0)) {
            *ret_words = space ? 2 : 1;
            return v;
        }
    }
    return NULL;
}

const char *cli_suggest_verb(int argc, char *const *argv)
{
    enum { VERBS_MAX = 64, TYPED_SIZE = 32 };
    const char *names[VERBS_MAX + 1] = {NULL};
    size_t count = 0;
    for (const struct cli_verb *v = cli_verbs; v->name && count < VERBS_MAX; v++) {
        names[count++] = v->name;
    }
    char typed[TYPED_SIZE];
    if (argc > 1 && argv[1][0] != '-' &&
        snprintf(typed, sizeof(typed), "%s %s", argv[0], argv[1]) < (int)sizeof(typed)) {
        const char *near = args_nearest(typed, names);
        if (near) {
            return near;
        }
    }
    return argc > 0 ? args_nearest(argv[0], names) : NULL;
}

int cli_help_overview(struct un_buf *out)
{
    int rc = un_buf_append_str(out, "Usage: unictl [OPTION]... VERB [OPERAND]...\n\nVerbs:\n");
    for (const struct cli_verb *v = cli_verbs; v->name && rc == 0; v++) {
        rc = un_buf_printf(out, "  %-18s %s\n", v->name, v->summary);
    }
    rc = rc ? rc : un_buf_append_str(out, "\nOptions of every verb:\n");
    for (const struct args_option *o = cli_global_options; o->name && rc == 0; o++) {
        rc = un_buf_printf(out, "  --%s%s%-*s %s\n", o->name, o->value ? " " : "",
                           (int)(18 - strlen(o->name) - (o->value ? 1 : 0)),
                           o->value ? o->value : "", o->help);
    }
    return rc ? rc
              : un_buf_append_str(out,
                                  "\nunictl VERB --help says more about a verb. Exit status: 0 "
                                  "done, 1 refused, 2 usage,\n3 no daemon, 4 the function "
                                  "failed, 5 timed out.\n");
}

static int help_options(const struct args_option *options, struct un_buf *out)
{
    int rc = 0;
    for (const struct args_option *o = options; o->name && rc == 0; o++) {
        char form[48];
        snprintf(form, sizeof(form), "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        rc = un_buf_printf(out, "  %-24s %s\n", form, o->help);
    }
    return rc;
}

int cli_help_verb(const struct cli_verb *verb, struct un_buf *out)
{
    int rc = un_buf_printf(out, "Usage: unictl %s%s%s%s\n\n%s.\n%s", verb->name,
                           verb->options->name ? " [OPTION]..." : "", *verb->operands ? " " : "",
                           verb->operands, verb->summary, verb->details ? verb->details : "");
    if (rc == 0 && verb->options->name) {
        rc = un_buf_append_str(out, "\nOptions:\n");
        rc = rc ? rc : help_options(verb->options, out);
    }
    rc = rc ? rc : un_buf_append_str(out, "\nOptions of every verb:\n");
    return rc ? rc : help_options(cli_global_options, out);
}
