/* flow.h - where control goes in a file's code: what instructions lead to, jump tables, and which
 * instructions it may come to at all.
 *
 * Code and data stand side by side in some programs, and data decodes as well as code does. So an
 * instruction that a decoder arrives at need not be one: where nothing that names an address leads
 * to it, it is never executed. That takes for granted what the rewriter does too: that all
 * addresses which somebody may jump to are known (rewrite.h).
 */
#ifndef UNID_PREPARE_FLOW_H
#define UNID_PREPARE_FLOW_H

#include <Zydis/Zydis.h>

#include "prepare/code.h"

void flow_decoder(ZydisDecoder *ret);
/* Whether control never passes on to what follows. */
bool flow_ends(const ZydisDecodedInstruction *info);
/* Notes where an instruction leads to, and what address it computes. `sure`: it is no data. */
void flow_note(struct code *c, uint64_t addr, const ZydisDecodedInstruction *info, bool sure);
/* Follows the roots: fills `reached`. */
void flow_follow_roots(struct code *c);
/* Adds the targets that jump tables tell of. */
void flow_read_tables(struct code *c);
/* Follows all targets, and those that are found so: fills `flow`, when all targets of the file's own
 * tables and of its instructions were added. -ENOMEM. */
int flow_follow_targets(struct code *c, struct un_error *err);

#endif
