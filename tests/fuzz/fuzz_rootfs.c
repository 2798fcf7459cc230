/* fuzz_rootfs.c - any bytes as what is pushed: a root file system's archive, or a program.
 *
 * What comes out is either an error with a text, or an image in which every inode lies where it says.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/elf.h"
#include "prepare/program.h"
#include "unid/rootfs.h"

static void require(int truth)
{
    if (!truth) {
        abort();
    }
}

static void check_rootfs(const uint8_t *p, uint64_t size)
{
    struct unid_rootfs fs;
    memcpy(&fs, p, sizeof fs);
    require(fs.magic == UNID_ROOTFS_MAGIC && fs.size == size && fs.inode_count > 0);
    require(fs.inodes + fs.inode_count * sizeof(struct unid_rootfs_inode) <= size);
    require(fs.dirents + fs.dirent_count * sizeof(struct unid_rootfs_dirent) <= size);
    require(fs.strings <= size && fs.program < size - fs.strings &&
            memchr(p + fs.strings + fs.program, 0, size - fs.strings - fs.program));
    for (uint32_t i = 0; i < fs.inode_count; i++) {
        struct unid_rootfs_inode n;
        memcpy(&n, p + fs.inodes + i * sizeof n, sizeof n);
        require(n.links == 0 || S_ISREG(n.mode) || S_ISDIR(n.mode) || S_ISLNK(n.mode));
        require(S_ISDIR(n.mode) || (n.data <= size && n.size <= size - n.data));
        require(!S_ISREG(n.mode) || n.data % 4096 == 0);
        require(!S_ISDIR(n.mode) ||
                (n.count <= fs.dirent_count && n.dirents <= fs.dirent_count - n.count));
        require(n.stubs % 4096 == 0 && n.stubs_size <= size && n.stubs <= size - n.stubs_size);
    }
    for (uint32_t i = 0; i < fs.dirent_count; i++) {
        struct unid_rootfs_dirent d;
        memcpy(&d, p + fs.dirents + i * sizeof d, sizeof d);
        require(d.inode < fs.inode_count && d.name_len > 0);
        require(d.name < size - fs.strings && d.name_len <= size - fs.strings - d.name);
        require(!memchr(p + fs.strings + d.name, '/', d.name_len));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct prepare_result result;
    struct un_error err = UN_ERROR_INIT;
    struct un_elf elf;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0);
    const struct prepare_spec spec = {.data = data, .size = size, .fd = fd};
    int rc = prepare_program(&spec, &result, &err);
    if (rc < 0) {
        require(err.text[0] != '\0');
    } else {
        uint8_t *p = mmap(NULL, result.size, PROT_READ, MAP_SHARED, fd, 0);
        require(p != MAP_FAILED);
        require(un_elf_parse(p, result.size, result.size, &elf, &err) == 0);
        const struct un_elf_segment *s = &elf.segments[elf.segment_count - 1];
        check_rootfs(p + s->offset, s->file_size);
        munmap(p, result.size);
        require(result.report != NULL);
    }
    json_decref(result.report);
    close(fd);
    return 0;
}
