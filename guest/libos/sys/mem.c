/* mem.c - the system calls of memory: arguments checked, descriptors looked up (mm.h does the work). */
#include <linux/fcntl.h>
#include <linux/mman.h>

#include "file.h"
#include "mm.h"
#include "sys_core.h"
#include "task.h"

/* What MAP_SHARED_VALIDATE lets through: all that do something, or are hints, in the kernel whose version
 * uname tells (include/linux/mman.h, LEGACY_MAP_MASK). */
#define MAP_KNOWN                                                                                  \
    (MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_DENYWRITE | MAP_EXECUTABLE | MAP_UNINITIALIZED |   \
     MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK |        \
     MAP_HUGETLB | MAP_32BIT | MAP_HUGE_2MB | MAP_HUGE_1GB | MAP_FIXED_NOREPLACE)

int64_t sys_mmap(uint64_t addr, uint64_t len, int prot, int flags, int fd, uint64_t offset)
{
    struct file *file = NULL;
    if (!(flags & MAP_ANONYMOUS)) {
        file = fd_get(fd);
        if (!file) {
            return -EBADF;
        }
        if (len == 0) {
            return -EINVAL;
        }
        if ((flags & MAP_TYPE) == MAP_SHARED_VALIDATE && flags & ~MAP_KNOWN) {
            return -EOPNOTSUPP;
        }
        int mode = (int)file->flags & O_ACCMODE;
        if (mode == O_WRONLY || (flags & MAP_SHARED && prot & PROT_WRITE && mode != O_RDWR)) {
            return -EACCES;
        }
        if (file_is_zero(file)) {
            file = NULL;
            offset = 0;
        } else if (!file_is_regular(file)) {
            return -ENODEV;
        }
    }
    return mm_mmap(addr, len, prot, flags, file, file ? offset : 0);
}

int64_t sys_munmap(uint64_t addr, uint64_t len)
{
    return mm_munmap(addr, len);
}

int64_t sys_mprotect(uint64_t addr, uint64_t len, int prot)
{
    return mm_mprotect(addr, len, prot);
}

int64_t sys_pkey_mprotect(uint64_t addr, uint64_t len, int prot, int key)
{
    return key == -1 ? mm_mprotect(addr, len, prot) : -EINVAL;
}

int64_t sys_mremap(uint64_t addr, uint64_t old_len, uint64_t new_len, int flags, uint64_t to)
{
    return mm_mremap(addr, old_len, new_len, flags, to);
}

int64_t sys_brk(uint64_t addr)
{
    return mm_brk(addr);
}

int64_t sys_madvise(uint64_t addr, uint64_t len, int advice)
{
    return mm_madvise(addr, len, advice);
}

int64_t sys_mincore(uint64_t addr, uint64_t len, uint8_t *vec)
{
    return mm_mincore(addr, len, vec);
}

/* All memory is resident, and nothing is written back. */
int64_t sys_msync(uint64_t addr, uint64_t len, int flags)
{
    bool both = flags & MS_ASYNC && flags & MS_SYNC;
    if (addr & PAGE_MASK || flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) || both) {
        return -EINVAL;
    }
    return mm_mapped(addr, len) ? 0 : -ENOMEM;
}

int64_t sys_mlock(void)
{
    return 0;
}

int64_t sys_mlock2(void)
{
    return 0;
}

int64_t sys_munlock(void)
{
    return 0;
}

int64_t sys_mlockall(void)
{
    return 0;
}

int64_t sys_munlockall(void)
{
    return 0;
}

int64_t sys_membarrier(int command)
{
    return command == 0 ? 0 : -EINVAL; /* no command is supported, says the query */
}
