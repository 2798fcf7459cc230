/* push.h - brings a local file into the daemon's image store, sending it only when it is not there.
 */
#ifndef UNID_CLI_PUSH_H
#define UNID_CLI_PUSH_H

#include "cli/api.h"

enum { PUSH_DIGEST_SIZE = 7 + 64 + 1 }; /* "sha256:" + hex + NUL */

/* The digest of what `fd` (a regular file, read from its start) holds. Negative errno. */
int push_digest(int fd, char ret[PUSH_DIGEST_SIZE], struct un_error *err);

/* Whether `s` is "sha256:" and 64 lower-case hexadecimal digits. */
bool push_is_digest(const char *s);

/* Points a tag at an image. Gives the daemon's answer (json_decref). An exit status, reported. */
int push_set_tag(const struct cli_call *call, const char *tag, const char *digest, json_t **ret);

/* Pushes `path`; `tag` may be NULL. Gives the image's JSON (json_decref). An exit status, reported.
 */
int push_file(const struct cli_call *call, const char *path, const char *tag, json_t **ret);

/* The digest of an image that is named by its digest, or is a file here, which is pushed. An exit status,
 * reported. */
int push_named(const struct cli_call *call, const char *what, char ret_digest[PUSH_DIGEST_SIZE]);

/* As push_file, of what an open regular file holds; `name` is shown. */
int push_fd(const struct cli_call *call, int fd, const char *name, json_t **ret);

#endif
