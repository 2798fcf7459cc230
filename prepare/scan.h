/* scan.h - finds system-call instructions in an ELF file's code.
 *
 * A linear sweep decodes the code from every known start of a function to the next, and notes where
 * instructions start and where somebody may jump to. A place where the bytes of a system-call
 * instruction stand is then one of three: an instruction; a part of another instruction, or data,
 * which is also what control cannot come to (flow.h); or in doubt, when the bytes in front could not
 * be decoded. What is in doubt is never changed.
 */
#ifndef UNID_PREPARE_SCAN_H
#define UNID_PREPARE_SCAN_H

#include <Zydis/Zydis.h>

#include "prepare/code.h"

enum scan_kind { SCAN_SYSCALL, SCAN_SYSENTER, SCAN_INT80 };

struct scan_site {
    uint64_t addr;
    enum scan_kind kind;
    bool doubtful;
    int32_t number; /* of the system call where the instructions in front say it, else -1 */
};

struct scan {
    struct code code;
    struct scan_site *sites; /* by address */
    size_t site_count, site_room;
    size_t other; /* places with such bytes that are no instruction */
};

/* Borrows the bytes until scan_done. Errors as code_init. */
int scan_init(struct scan *s, const uint8_t *data, size_t size, struct un_error *err);
void scan_done(struct scan *s);

/* One instruction, decoded. */
struct scan_instruction {
    uint64_t addr;
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/* Decodes at `addr`, inside of its range; false when there is no instruction. */
bool scan_decode(const struct code *c, uint64_t addr, struct scan_instruction *ret);
/* The address of the instruction before `addr` by the sweep, which runs on to `addr`; false when
 * there is none in the same function. */
bool scan_before(const struct code *c, uint64_t addr, uint64_t *ret);

#endif
