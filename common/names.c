/* names.c - see names.h. The table is made from <asm/unistd_64.h> when building. */
#include "common/names.h"

#include <stddef.h>

#include "common/cleanup.h"

static const char *const names[] = {
#include "common/syscall_table.h"
};

const char *un_syscall_name(uint32_t number)
{
    return number < UN_ARRAY_SIZE(names) ? names[number] : NULL;
}

const char *un_fault_name(uint32_t vector)
{
    static const char *const faults[] = {"divide error",
                                         "debug exception",
                                         "non-maskable interrupt",
                                         "breakpoint",
                                         "overflow",
                                         "bound range exceeded",
                                         "invalid opcode",
                                         "device not available",
                                         "double fault",
                                         "coprocessor segment overrun",
                                         "invalid task state segment",
                                         "segment not present",
                                         "stack fault",
                                         "general protection",
                                         "page fault",
                                         "reserved",
                                         "x87 floating-point error",
                                         "alignment check",
                                         "machine check",
                                         "SIMD floating-point error",
                                         "virtualization exception",
                                         "control protection exception"};
    return vector < UN_ARRAY_SIZE(faults) ? faults[vector] : "fault";
}
