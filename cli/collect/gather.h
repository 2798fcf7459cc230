/* gather.h - a Linux program given on the command line becomes an image in the daemon's store: it is
 * collected (collect.h), with what --with and --rootfs say, and pushed.
 */
#ifndef UNID_CLI_COLLECT_GATHER_H
#define UNID_CLI_COLLECT_GATHER_H

#include <limits.h>

#include "cli/api.h"

struct gathered {
    json_t *image;          /* the daemon's JSON of it */
    char program[PATH_MAX]; /* what runs, a path in the image; "" when only a tar archive knows */
    json_t *arguments;      /* that come before the user's own */
    json_t *files;          /* [{"path", "size", "why"}]: regular files that were collected */
    json_t *warnings;       /* texts */
    char *line;             /* what a container image says of how it is started, for people; NULL */
};
void gathered_done(struct gathered *g);
#define un_autogathered __attribute__((cleanup(gathered_done)))

/* Whether what the words say is to be gathered: --rootfs or --with was given, or `what` is a script or
 * an ELF program for Linux. Other files are pushed as they are. */
bool gather_wanted(const struct cli_call *call, const char *what);

/* Does it. `config` is what the words say of the function; what they do not say is added to it when --rootfs is a
 * container image, which then also says what runs when `what` is "-". An exit status, reported. Zero-initialise `ret`,
 * release it in any case. */
int gather_push(const struct cli_call *call, const char *what, json_t *config,
                struct gathered *ret);

/* Shows files and warnings to people, on standard error. */
void gather_show(const struct gathered *g);

#endif
