/* start.c - from the machine's first instruction to the program's. */
#include "file.h"
#include "host.h"
#include "mm.h"
#include "task/task_internal.h"
#include "time/time.h"

_Noreturn void libos_start(void);

__attribute__((weak)) void net_set_port(uint16_t port); /* net/listen.c */

extern const struct unid_rootfs_where rootfs_where;

/* $PORT of an `http` program. */
static uint16_t port_of(const struct unid_boot *b)
{
    const char *s = (const char *)UNID_STRINGS_ADDR;
    for (uint32_t i = 0; i < b->argc + b->envc; i++, s += strlen(s) + 1) {
        uint32_t port = 0;
        if (i >= b->argc && strncmp(s, "PORT=", 5) == 0) {
            for (const char *d = s + 5; *d >= '0' && *d <= '9'; d++) {
                port = port * 10 + (uint32_t)(*d - '0');
            }
            return port <= UINT16_MAX ? (uint16_t)port : 0;
        }
    }
    return 0;
}

void libos_start(void)
{
    const struct unid_boot *b = (const struct unid_boot *)UNID_BOOT_ADDR;
    host_init();
    if (!(b->flags & UNID_BOOT_FSGSBASE)) {
        kpanic("the host does not allow WRFSBASE, without which no thread-local storage is");
    }
    clock_init(b->tsc_hz);
    mm_init(b->page_root, b->heap_start, b->heap_end);
    fpu_init();
    timers_init();
    itimers_init();
    futex_init();
    struct task *first = task_new();
    if (!first) {
        kpanic("no memory for the first task");
    }
    sched_init(first);
    const struct unid_rootfs *root = rootfs_where.phys ? phys_to_virt(rootfs_where.phys) : NULL;
    if (!root || root->magic != UNID_ROOTFS_MAGIC || root->version != UNID_ROOTFS_VERSION) {
        kpanic("the image has no root file system of version %u", UNID_ROOTFS_VERSION);
    }
    if (net_set_port) {
        net_set_port(b->interface == UNID_INTERFACE_HTTP ? port_of(b) : 0);
    }
    files_init();
    const char *argv0 = (const char *)UNID_STRINGS_ADDR;
    const char *named = (const char *)root + root->strings + root->program;
    exec_start(b->argc > 0 && argv0[0] == '/' ? argv0 : named);
}
