/* snapshot_file.h - a snapshot as a file in the cache. On worker threads.
 *
 *     0        header, one page     magic, key, sizes, machine, checksums
 *     4096     struct vmm_state
 *     2 MiB    guest memory from address 0, zero pages as holes but for a few among others; in the
 *              place of the channel, the channel as it was. So that a boundary of 2 MiB of memory is
 *              one of the file, and the host can map both by one entry.
 *
 * The cache may be deleted, cut or overwritten at any time: a file is used only after all of it was
 * read and its checksum was right. The checksum finds damage; it is no protection against somebody
 * who may write in the directory, which is unid's own.
 */
#ifndef UNID_HYPERVISOR_KVM_SNAPSHOT_FILE_H
#define UNID_HYPERVISOR_KVM_SNAPSHOT_FILE_H

#include "common/error.h"
#include "hypervisor/hv.h"
#include "hypervisor/kvm/proto.h"

#define SNAPSHOT_STATE_AT UINT64_C(4096)
#define SNAPSHOT_MEM_AT   UINT64_C(0x200000)

enum { SNAPSHOT_CHANNEL_PAGES = VMM_CHANNEL_SIZE / 4096 };

/* What is kept of a file in memory. */
struct snapshot_file {
    int fd; /* read-only */
    uint64_t mem_bytes;
    /* The longest part of guest memory that is zero and a hole in the file, in whole pages and outside of
     * the channel. */
    uint64_t hole_at, hole_bytes;
    bool low; /* there is something below the channel */
    /* The pages of the channel that are not zero, and where they are in it. */
    size_t page_count;
    uint16_t page_at[SNAPSHOT_CHANNEL_PAGES];
    uint8_t *pages; /* page_count of them; free() */
};

/* What a guest that was snapshotted was told of its CPU, and must find again. */
struct snapshot_cpu {
    uint32_t tsc_khz, boot_flags; /* as in VMM_EVENT_HELLO */
};

/* What is to be written. */
struct snapshot_source {
    int ram_fd; /* guest memory; its part of the channel is not looked at */
    uint64_t mem_bytes;
    const uint8_t *channel; /* VMM_CHANNEL_SIZE */
    const uint8_t *state;   /* sizeof(struct vmm_state) */
    struct snapshot_cpu cpu;
};

/* Writes `dir`/`key`.snap, whole or not at all. Makes the directory. */
int snapshot_file_write(const char *dir, const char *key, const struct snapshot_source *from,
                        struct un_error *err);

/* Opens, reads and checks `dir`/`key`.snap, and marks it used. -ENOENT; -EBADMSG when it is damaged
 * or was made by another version or for another machine. `ret` is to be released. */
int snapshot_file_read(const char *dir, const char *key, const struct snapshot_cpu *cpu,
                       struct snapshot_file *ret, struct un_error *err);
void snapshot_file_release(struct snapshot_file *f);

/* Deletes the longest unused files, and what a write that was cut off left, until at most
 * `max_bytes` are in use on disk. */
void snapshot_file_trim(const char *dir, uint64_t max_bytes);

#endif
