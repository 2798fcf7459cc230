/* main.c - unictl: reads the command line, finds the verb in the table, runs it.
 *
 * Speaks HTTP to unid and nothing else; everything it knows of the daemon is docs/openapi.yaml.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/verbs/verbs.h"
#include "common/cleanup.h"

enum { TOKEN_FILE_MAX = 4096 };

/* Reads the token without the newline behind it (free with free()). */
static int read_token(const char *path, char **ret)
{
    char buf[TOKEN_FILE_MAX + 1];
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, TOKEN_FILE_MAX);
    if (n < 0) {
        return cli_fail(CLI_USAGE, "cannot read the token file %s: %s", path, strerror(errno));
    }
    buf[n] = '\0';
    buf[strcspn(buf, "\r\n")] = '\0';
    *ret = strdup(buf);
    return *ret ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
}

/* An option behind the verb comes before the same one in front of it. */
static const char *setting(const struct args *front, const struct args *own, const char *name,
                           const char *variable)
{
    const char *value = args_get(own, name);
    value = value ? value : args_get(front, name);
    const char *env = variable ? getenv(variable) : NULL;
    return value ? value : env && *env ? env : NULL;
}

static int open_client(const struct args *front, struct cli_call *call)
{
    char default_host[CLIENT_HOST_SIZE];
    const char *host = setting(front, &call->args, "host", "UNID_HOST");
    const char *token_file = setting(front, &call->args, "token-file", NULL);
    const char *env_token = getenv("UNID_TOKEN");
    un_autofree char *token = NULL;
    if (token_file) {
        int status = read_token(token_file, &token);
        if (status != CLI_DONE) {
            return status;
        }
    }
    const char *use = token ? token : env_token && *env_token ? env_token : NULL;
    struct un_error err = UN_ERROR_INIT;
    int rc = client_new(host ? host : client_default_host(default_host), use, &call->client, &err);
    return rc < 0 ? cli_usage(call, "%s", err.text) : CLI_DONE;
}

static int check_operands(const struct cli_call *call)
{
    const struct cli_verb *v = call->verb;
    int count = (int)call->args.operand_count;
    if (call->args.rest_count && !v->takes_rest) {
        return cli_usage(call, "%s takes nothing behind --", v->name);
    }
    if (count < v->least) {
        return cli_usage(call, "%s needs %s", v->name, v->operands);
    }
    if (v->most != VERB_ANY && count > v->most) {
        return cli_usage(call, "%s does not take '%s'%s", v->name, call->args.operands[v->most],
                         v->takes_rest ? ": arguments of the program go behind --" : "");
    }
    return CLI_DONE;
}

static int run_verb(const struct args *front, const struct cli_verb *verb, int argc, char **argv)
{
    const struct args_option *tables[] = {verb->options, cli_global_options, NULL};
    struct cli_call call = {.verb = verb};
    struct un_error err = UN_ERROR_INIT;
    if (args_parse(argc, argv, tables, ARGS_ALL, &call.args, NULL, &err) < 0) {
        return cli_usage(&call, "%s", err.text);
    }
    call.json = args_has(front, "json") || args_has(&call.args, "json");
    int status;
    if (args_has(&call.args, "help")) {
        status = cli_show_help(verb);
    } else {
        status = check_operands(&call);
        status = status == CLI_DONE ? open_client(front, &call) : status;
        status = status == CLI_DONE ? verb->run(&call) : status;
    }
    client_free(call.client);
    args_done(&call.args);
    return status;
}

/* "ls, push, rm" for the first word of verbs of two; empty when there is none. */
static void second_words(const char *first, struct un_buf *out)
{
    size_t len = strlen(first);
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        if (strncmp(v->name, first, len) == 0 && v->name[len] == ' ' &&
            un_buf_printf(out, "%s%s", out->len ? ", " : "", v->name + len + 1) < 0) {
            return;
        }
    }
}

static int unknown_verb(int argc, char **argv)
{
    un_autobuf struct un_buf words = {0};
    second_words(argv[0], &words);
    const char *near = cli_suggest_verb(argc, argv);
    if (words.len) {
        cli_fail(CLI_USAGE, "%s is followed by one of %s%s%s%s", argv[0], (const char *)words.data,
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    } else {
        cli_fail(CLI_USAGE, "there is no verb '%s'%s%s%s", argv[0], near ? ", did you mean '" : "",
                 near ? near : "", near ? "'?" : "");
    }
    fprintf(stderr, "See: unictl help\n");
    return CLI_USAGE;
}

static int run(int argc, char **argv)
{
    static const struct args_option own[] = {
        {"version", 'V', NULL, "show the version"},
        {NULL, 0, NULL, NULL},
    };
    const struct args_option *tables[] = {cli_global_options, own, NULL};
    struct args front = {0};
    struct un_error err = UN_ERROR_INIT;
    int used = 1;
    if (args_parse(argc, argv, tables, ARGS_UNTIL_OPERAND, &front, &used, &err) < 0) {
        cli_fail(CLI_USAGE, "%s", err.text);
        fprintf(stderr, "See: unictl help\n");
        return CLI_USAGE;
    }
    int status, words = 0;
    const struct cli_verb *verb = cli_find_verb(argc - used, argv + used, &words);
    if (args_has(&front, "help")) {
        status = cli_show_help(NULL);
    } else if (args_has(&front, "version")) {
        printf("unictl %s\n", PACKAGE_VERSION);
        status = CLI_DONE;
    } else if (used >= argc) {
        status = cli_fail(CLI_USAGE, "say what to do: `unictl help` lists the verbs");
    } else if (!verb) {
        status = unknown_verb(argc - used, argv + used);
    } else {
        /* The verb's last word stands where args_parse expects a program's name. */
        int skip = used + words - 1;
        status = run_verb(&front, verb, argc - skip, argv + skip);
    }
    args_done(&front);
    return status;
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    int status = run(argc, argv);
    if (fflush(stdout) != 0 && status == CLI_DONE) {
        status = cli_fail_output(-errno);
    }
    return status;
}
