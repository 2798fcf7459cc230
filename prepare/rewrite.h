/* rewrite.h - turns an ELF file's `syscall` instructions into jumps to stubs (unid/rootfs.h).
 *
 * The file keeps its length, its headers and every address in it; only the bytes of the sites
 * change. The stubs are position-independent code of their own, which belongs behind the file's
 * last address.
 */
#ifndef UNID_PREPARE_REWRITE_H
#define UNID_PREPARE_REWRITE_H

#include "common/bytes.h"
#include "prepare/scan.h"

struct rewrite_site {
    uint64_t addr;
    enum scan_kind kind;
    int32_t number;      /* of the system call, -1 unknown */
    const char *problem; /* static text; NULL: rewritten */
};

struct rewrite {
    struct rewrite_site *sites; /* by address: every system-call instruction */
    size_t site_count;
    size_t rewritten;
    size_t refused;  /* `syscall` instructions that had to stay, or that are in doubt */
    size_t trapping; /* sysenter and int 0x80: they end the machine when they are reached */
    size_t relayed;  /* of those rewritten: by way of a hole between functions */
    struct un_buf stubs;
    uint64_t stubs_vaddr; /* page-aligned; 0 when there are no stubs */
    bool executable_stack;
};

/* Rewrites the file in place. A site that cannot be rewritten is told in `ret` and stays as it is;
 * it is for the caller to refuse the file. -EINVAL, -ENOTSUP the file is no ELF file for this machine,
 * -ENOMEM. Release `ret` with rewrite_done in any case. */
int rewrite_elf(uint8_t *data, size_t size, struct rewrite *ret, struct un_error *err);
void rewrite_done(struct rewrite *rw);

#endif
