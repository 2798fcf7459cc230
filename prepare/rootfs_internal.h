/* rootfs_internal.h - what rootfs.c and rootfs_write.c share; nobody else includes it. */
#ifndef UNID_PREPARE_ROOTFS_INTERNAL_H
#define UNID_PREPARE_ROOTFS_INTERNAL_H

#include "prepare/rootfs.h"

enum { ROOTFS_PAGE = 4096 };

/* A name in a directory. Node 0 is the root. */
struct node {
    uint32_t parent;
    uint32_t name; /* in rootfs.names */
    uint32_t inode;
    uint16_t name_len;
};

/* The regular file whose bytes are coming. */
struct file_under_way {
    char *path;
    uint32_t inode;
    uint64_t start, size; /* its place; bytes so far */
    bool whole;           /* kept back in `bytes` until its end */
    struct un_buf bytes;
};

struct rootfs {
    int fd;
    uint64_t offset; /* of the root file system in the file */
    uint64_t end;    /* behind what was claimed, from the root file system's start */
    struct node *nodes;
    struct unid_rootfs_inode *inodes; /* a link's `data` is an offset in `names` until the end */
    size_t node_count, inode_count, room;
    uint32_t *slots; /* hash table of nodes, 0 empty; a power of two */
    size_t slot_count;
    struct un_buf names; /* and the links' texts */
    struct file_under_way file;
    struct rootfs_elf *elfs;
    size_t elf_count;
};

/* Writes at an offset of the root file system. */
int rootfs_put(struct rootfs *fs, uint64_t at, const void *data, size_t len, struct un_error *err);

#endif
