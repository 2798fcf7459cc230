/* rootfs.h - the contract between the preparer of Linux programs (host) and the library OS (guest):
 * a prepared image.
 *
 * A prepared image is one ELF file for the drivers (abi.h, a paging image): the library OS, linked
 * at UNID_LIBOS_BASE, and one read-only segment in the direct map, which holds the root file system
 * as described here, page-aligned. Where that lies the preparer writes into the library OS, to
 * UNID_ROOTFS_WHERE_ADDR. boot.argv holds the program (or a name that is no path, then the root file
 * system's `program`) and its arguments; boot.envp the function's environment.
 *
 * Numbers are little-endian; offsets are in bytes from the start of the root file system. The
 * library OS trusts this structure (whoever made it made the guest's own code as well); the host
 * never reads it back.
 *
 * Rewritten programs. A `syscall` instruction became a jump to a stub; stubs of a file stand behind
 * its own bytes, in `stubs`, and belong at the file's load bias + stubs_vaddr whenever an executable
 * part of the file is mapped. A stub loads the address to go on at into rcx and jumps to the address
 * that stands at UNID_SYSCALL_VECTOR. There every register is as at the SYSCALL instruction but rcx
 * (the return address; SYSCALL would have changed it as well) and r11; the red zone is untouched.
 * The library OS preserves all registers but rax, rcx and r11, flags included.
 */
#ifndef UNID_ROOTFS_H
#define UNID_ROOTFS_H

#include "unid/abi.h"

/* The library OS's own place; a program that needs addresses here cannot be prepared. */
#define UNID_LIBOS_BASE UNID_U64(0x200000)
#define UNID_LIBOS_END  UNID_U64(0x400000)

#define UNID_SYSCALL_VECTOR    UNID_LIBOS_BASE          /* 8 bytes: where stubs jump to */
#define UNID_ROOTFS_WHERE_ADDR (UNID_LIBOS_BASE + 0x10) /* struct unid_rootfs_where */

#ifndef __ASSEMBLER__

#define UNID_ROOTFS_MAGIC   UNID_U64(0x5346544f4f524955) /* "UIROOTFS" in memory order */
#define UNID_ROOTFS_VERSION 1
#define UNID_ROOTFS_LARGE   UNID_U64(0x200000) /* what one large entry of page tables leads to */

struct unid_rootfs_where {
    uint64_t phys; /* page-aligned */
    uint64_t size;
};

struct unid_rootfs {
    uint64_t magic;
    uint32_t version;
    uint32_t inode_count; /* inode 0 is the root directory */
    uint64_t size;        /* of all, a multiple of 4 KiB */
    uint64_t inodes;      /* offset of struct unid_rootfs_inode[inode_count] */
    uint64_t dirents;     /* offset of struct unid_rootfs_dirent[dirent_count] */
    uint64_t strings;     /* offset of the names */
    uint32_t dirent_count;
    uint32_t program; /* name offset (in strings, NUL-terminated): path of the program to start,
                         unless argv[0] is an absolute path */
};

struct unid_rootfs_inode {
    uint32_t mode; /* as st_mode: S_IFREG, S_IFDIR, S_IFLNK and permission bits */
    uint32_t uid, gid;
    uint32_t links;
    uint64_t size; /* of the file, the link's text */
    int64_t mtime_s;
    uint64_t data; /* regular files: page-aligned, zeros up to the page's end; link: its text */
    uint32_t dirents, count; /* directories: first entry and number; sorted by name, bytewise */
    uint64_t stubs;          /* page-aligned offset of the stubs; 0: none */
    uint64_t stubs_size;     /* bytes, padded with int3 to the page's end */
    uint64_t stubs_vaddr;    /* page-aligned address in the ELF file's own address space */
};

struct unid_rootfs_dirent { /* without "." and ".." */
    uint32_t name;          /* offset in strings; not NUL-terminated */
    uint16_t name_len;
    uint16_t type; /* DT_REG, DT_DIR, DT_LNK */
    uint32_t inode;
};

_Static_assert(sizeof(struct unid_rootfs) == 56, "struct unid_rootfs changed size");
_Static_assert(sizeof(struct unid_rootfs_inode) == 72, "struct unid_rootfs_inode changed size");
_Static_assert(sizeof(struct unid_rootfs_dirent) == 12, "struct unid_rootfs_dirent changed size");

#endif
#endif
