/* fuzz_snapshot_file.c - snapshot files in the cache, which anybody may have cut or overwritten: what is
 * read without an error holds what its users rely on.
 *
 * Input: a byte of flags (below), the header, then records of four bytes: a page's number (16 bits), where
 * in it divided by 16 (8 bits), and a byte for there. The reader is included, not linked, for its sums:
 * with right ones the rest of the checks is reached.
 */
#include <stdlib.h>

#include "hypervisor/kvm/snapshot_file.c"

enum { RIGHT_HEAD = 1, RIGHT_SUMS = 2, RIGHT_SIZE = 4, SIZE_MAX_MIB = 8 };
static const char key[] = "fuzz";
static const struct snapshot_cpu cpu = {.tsc_khz = 1000, .boot_flags = UNID_BOOT_FSGSBASE};
static char dir[] = "/tmp/unid-fuzz-snapshot-XXXXXX", path[64];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void remove_all(void)
{
    unlink(path);
    rmdir(dir);
}

static void prepare(void)
{
    if (!path[0]) {
        must(mkdtemp(dir) != NULL);
        snprintf(path, sizeof(path), "%s/%s.snap", dir, key);
        atexit(remove_all);
    }
}

static void write_records(int fd, const uint8_t *data, size_t size)
{
    for (; size >= 4; data += 4, size -= 4) {
        uint64_t page = data[0] | (uint64_t)data[1] << 8;
        must(un_pwrite_all(fd, data + 3, 1, page * PAGE + data[2] * UINT64_C(16)) == 0);
    }
}

static void make_right(int fd, unsigned flags, struct header *h)
{
    if (flags & RIGHT_HEAD) {
        h->magic = MAGIC;
        h->version = FORMAT_VERSION;
        h->abi = UNID_ABI_MAJOR << 16 | UNID_ABI_MINOR;
        h->cpu = cpu_model();
        h->tsc_khz = cpu.tsc_khz;
        h->boot_flags = (uint16_t)cpu.boot_flags;
        memset(h->key, 0, sizeof(h->key));
        memcpy(h->key, key, sizeof(key));
    }
    if (flags & RIGHT_SIZE && h->mem_bytes <= (uint64_t)SIZE_MAX_MIB << 20) {
        must(ftruncate(fd, (off_t)(SNAPSHOT_MEM_AT + h->mem_bytes)) == 0);
    }
    if (flags & RIGHT_SUMS && h->mem_bytes <= (uint64_t)SIZE_MAX_MIB << 20) {
        struct snapshot_file f = {.fd = fd, .mem_bytes = h->mem_bytes & ~(PAGE - 1)};
        struct vmm_state state = {0};
        (void)read_all(fd, &state, sizeof(state), SNAPSHOT_STATE_AT);
        h->content_sum = sum_words(MAGIC, &state, sizeof(state));
        (void)read_memory(&f, &h->content_sum);
        free(f.pages);
        h->header_sum = sum_header(h);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header h = {0};
    struct snapshot_file f;
    struct un_error err = UN_ERROR_INIT;
    if (size == 0) {
        return 0;
    }
    prepare();
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0);
    unsigned flags = data[0];
    size_t head = size - 1 < sizeof(h) ? size - 1 : sizeof(h);
    memcpy(&h, data + 1, head);
    write_records(fd, data + 1 + head, size - 1 - head);
    make_right(fd, flags, &h);
    must(un_pwrite_all(fd, &h, flags & RIGHT_HEAD ? sizeof(h) : head, 0) == 0);
    close(fd);
    if (snapshot_file_read(dir, key, &cpu, &f, &err) < 0) {
        return 0;
    }
    must(f.fd >= 0 && f.mem_bytes % PAGE == 0 && f.mem_bytes >= UNID_IMAGE_MIN &&
         f.mem_bytes <= VMM_MEM_MAX);
    must(f.page_count <= SNAPSHOT_CHANNEL_PAGES);
    for (size_t i = 0; i < f.page_count; i++) {
        must(f.page_at[i] < SNAPSHOT_CHANNEL_PAGES && (i == 0 || f.page_at[i - 1] < f.page_at[i]));
    }
    snapshot_file_release(&f);
    return 0;
}
