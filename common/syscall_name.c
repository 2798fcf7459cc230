/* syscall_name.c - see syscall_name.h. The table is made from <asm/unistd_64.h> when building. */
#include "common/syscall_name.h"

#include <stddef.h>

#include "common/cleanup.h"

static const char *const names[] = {
#include "common/syscall_table.h"
};

const char *un_syscall_name(uint32_t number)
{
    return number < UN_ARRAY_SIZE(names) ? names[number] : NULL;
}
