/* libos_world.h - memory, files and a host for the library OS's parts when they are built for the
 * host (LIBOS_HOSTED): guest-physical memory is a buffer, files are bytes that a test gives. */
#ifndef UNID_TESTS_LIBOS_WORLD_H
#define UNID_TESTS_LIBOS_WORLD_H

#include "file.h"

struct world_file {
    struct file file; /* what the library OS sees; `refs` counts */
    char path[32];
    const uint8_t *data;
    uint64_t size;
    uint64_t frames; /* physical address of the file's own frames, 0: it has none */
    uint64_t stubs_vaddr, stubs_size, stubs_phys;
};

/* A machine with `mib` MiB of memory, nothing mapped. Ends the one before. */
void world_begin(unsigned mib);
void world_end(void);
/* One with room for files of 14 MiB together, of which the first begins at a boundary of 2 MiB. */
void world_begin_large(void);
/* Makes `f` a file of these bytes (borrowed). `framed`: its pages stand in the image, to be shared. */
void world_file_init(struct world_file *f, const void *data, uint64_t size, bool framed);

/* The byte that the program would read, by what the processor remembers of the tables; -1 where it could
 * not. The same for writing, and a write. */
int world_peek(uint64_t addr);
bool world_can_write(uint64_t addr);
void world_poke(uint64_t addr, uint8_t value);
uint64_t world_frame(uint64_t addr);        /* of the page, accessible or kept; 0: none */
uint64_t *world_large_entry(uint64_t addr); /* of level 2, where something is mapped */

extern unsigned world_filled; /* pieces that the host was asked to fill since world_begin */
extern bool world_flushes;    /* whether the host can be asked to flush the TLB */
extern char world_log[4096];  /* what klog wrote since world_begin */

#endif
