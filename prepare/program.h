/* program.h - prepares Linux programs: from what was pushed to what a driver runs.
 *
 * What is pushed is a program (an ELF file) or a root file system (a tar archive, whose first entry
 * .unid.json names the program). What comes out is a prepared image (unid/rootfs.h), and a report of
 * what was found. A program that would run wrong is refused, with what is wrong in the report.
 *
 * Where things are: code.c and frames.c what an ELF file says of its code, scan.c finding system
 * calls, rewrite.c rewriting them, rootfs.c building the root file system, tar.c reading archives,
 * check.c judging programs, image.c the prepared image's file.
 *
 * Blocking; any thread. Pure but for the file that is written.
 */
#ifndef UNID_PREPARE_PROGRAM_H
#define UNID_PREPARE_PROGRAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Changes whenever the same input would give another prepared image: part of cache keys. */
#define PREPARE_VERSION 1

struct prepare_spec {
    const uint8_t *data; /* what was pushed; borrowed */
    size_t size;
    const char *name;     /* path for a bare program in its root file system; NULL: "/program" */
    const char *program;  /* what runs, a path in the root file system; NULL: what it says itself */
    const uint8_t *libos; /* the library OS's ELF file; borrowed. NULL: the one of this build */
    size_t libos_size;
    int fd; /* an empty file, open for reading and writing: the prepared image */
};

struct prepare_result {
    uint64_t size; /* of the prepared image */
    /* Bytes of memory that a machine needs for the image to start at all, and with room to work. */
    uint64_t memory_least, memory_advised;
    json_t *report; /* see docs/programs.md, "The report"; also filled when the program was refused
                       (free with json_decref) */
};

/* Names this build's preparer and its library OS: a part of the keys of what is cached. */
enum { PREPARE_ID_SIZE = 64 };
void prepare_id(char ret[PREPARE_ID_SIZE]);

/* 0, or -EINVAL what was pushed cannot run (the text names the first reason, the report all),
 * -EFBIG over a limit of LIMIT_ROOTFS_*, -ENOMEM, or what writing fails with. `ret->report` may be
 * set in either case. */
int prepare_program(const struct prepare_spec *spec, struct prepare_result *ret,
                    struct un_error *err);

#endif
