/* deploy.h - what deploy and check share: a function's configuration out of the words of a command line.
 */
#ifndef UNID_CLI_VERBS_DEPLOY_H
#define UNID_CLI_VERBS_DEPLOY_H

#include "cli/collect/gather.h"

/* Options and arguments into `config`, an object. An exit status, reported. */
int deploy_read_config(const struct cli_call *call, json_t *config);
/* The operand that names a program or image; "-" when there is none and --rootfs says enough. An exit status,
 * reported. */
int deploy_operand(const struct cli_call *call, size_t at, const char **ret);
/* Puts the image that `what` names or is into `config`, and what goes with it; what is a file here is
 * pushed, with what it needs, which then stands in `g`. An exit status, reported. */
int deploy_find_image(const struct cli_call *call, const char *what, json_t *config,
                      struct gathered *g);

#endif
