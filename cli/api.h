/* api.h - calls of unid's REST interface, and how what came of them is told to people and scripts.
 *
 * Everything that ends a verb early is reported here, once: on stderr for people, and with --json
 * the problem also as the one document on stdout. Functions that give an exit status have reported.
 */
#ifndef UNID_CLI_API_H
#define UNID_CLI_API_H

#include <jansson.h>
#include <stdint.h>

#include "cli/verbs/verbs.h"
#include "common/json.h"

/* "unictl: ..." on stderr; the caller returns `exit`, which is given back. Foreign text is cleaned.
 */
int cli_fail(enum cli_exit exit, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "unictl: warning: ..." on stderr. */
void cli_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* As cli_fail with CLI_USAGE, and points to the verb's help. */
int cli_usage(const struct cli_call *call, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Reports what client_send gave (negative). */
int cli_fail_send(const struct cli_call *call, int rc, const struct un_error *err);
/* Reports an answer of status 400 and above. */
int cli_fail_response(const struct cli_call *call, const struct client_response *r);
/* What exit status an HTTP error status means: 504 timed out, 502 the function failed, else
 * refused. */
enum cli_exit cli_exit_of_status(long status);

/* Makes a call with an optional JSON body and gives the JSON of its answer (NULL after 204). `path`
 * is encoded; NULL (out of memory while it was made) is reported. */
int api_call(const struct cli_call *call, const char *method, const char *path, const json_t *body,
             json_t **ret);
/* As api_call, but the JSON of a refusal is given in `ret_problem` (NULL: it had none) instead of printed
 * with --json; the message for people is printed as ever. */
int api_call_problem(const struct cli_call *call, const char *method, const char *path,
                     const json_t *body, json_t **ret, json_t **ret_problem);
/* GET of one thing; `*ret` stays NULL when there is none (404). */
int api_find(const struct cli_call *call, const char *path, json_t **ret);
/* Follows a listing's pages up to `limit` items (0: all) and gives one {"items": [...], "next":
 * ...}. */
int api_list(const struct cli_call *call, const char *path, uint64_t limit, json_t **ret);

/* printf into a new string (free with free()) where each %s is percent-encoded; only %s is known.
 */
char *api_path(const char *fmt, ...);

/* "/api/v1/functions/NAME<rest>" for an operand, or a usage error when it is no function's name. */
int api_function_path(const struct cli_call *call, const char *name, const char *rest, char **ret);

/* Deletes what each operand names and says which went: each name on a line, or {"removed": [...]}, behind the problems
 * of those that did not. `find` gives
 * the path (free with free()) of one, or an exit status, reported. The first failure is the exit status; the
 * others are tried all the same. */
int api_remove_each(const struct cli_call *call,
                    int (*find)(const struct cli_call *call, const char *name, char **ret));

/* Prints to stdout: a JSON document; a text. CLI_DONE, or reported failure. */
int cli_print_json(const json_t *value);
int cli_print(const struct un_buf *text);
/* Writes bytes to stdout. 0 or a negative errno with `err` filled. */
int cli_write(const void *data, size_t len, struct un_error *err);
/* Reports that writing failed (quietly when the reader has gone) or that memory is short. */
int cli_fail_output(int rc);

/* Members of an object, with something harmless when absent or of another type. */
const char *api_str(const json_t *obj, const char *key); /* "" */
uint64_t api_uint(const json_t *obj, const char *key);   /* 0 */

#endif
