/* fault.c - see fault.h. */
#include "hypervisor/fault.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PRESENT UINT64_C(1)
#define LARGE   UINT64_C(0x80)
#define ADDR    UINT64_C(0x000ffffffffff000)

/* The physical address of a virtual one; false when it is not mapped, or outside of memory. */
static bool translate(const uint8_t *mem, uint64_t mem_bytes, uint64_t cr3, uint64_t addr,
                      uint64_t *ret)
{
    uint64_t table = cr3 & ADDR;
    for (int shift = 39; shift >= 12; shift -= 9) {
        uint64_t at = table + (addr >> shift & 511) * sizeof(uint64_t), entry;
        if (mem_bytes < sizeof(entry) || at > mem_bytes - sizeof(entry)) {
            return false;
        }
        memcpy(&entry, mem + at, sizeof(entry));
        if (!(entry & PRESENT)) {
            return false;
        }
        if (shift == 12 || (shift <= 30 && entry & LARGE)) {
            uint64_t mask = (UINT64_C(1) << shift) - 1;
            *ret = (entry & ADDR & ~mask) | (addr & mask);
            return *ret < mem_bytes;
        }
        table = entry & ADDR;
    }
    return false;
}

size_t hv_fault_code(const uint8_t *mem, uint64_t mem_bytes, uint64_t cr3, uint64_t rip,
                     uint8_t ret_code[HV_CODE_MAX])
{
    size_t n = 0;
    uint64_t phys;
    while (n < HV_CODE_MAX && translate(mem, mem_bytes, cr3, rip + n, &phys)) {
        ret_code[n++] = mem[phys];
    }
    return n;
}

const char *hv_fault_system_call(const uint8_t *code, size_t len)
{
    if (len >= 2 && code[0] == 0x0f && code[1] == 0x05) {
        return "syscall";
    }
    if (len >= 2 && code[0] == 0x0f && code[1] == 0x34) {
        return "sysenter";
    }
    return len >= 2 && code[0] == 0xcd && code[1] == 0x80 ? "int 0x80" : NULL;
}

void hv_fault_describe_call(char *detail, size_t size, const char *name, uint64_t rip)
{
    if (strcmp(name, "syscall") != 0) {
        snprintf(detail, size,
                 "executed %s at %#" PRIx64 ", the 32-bit way of calling, which is not offered",
                 name, rip);
        return;
    }
    snprintf(detail, size,
             "executed a system call instruction (%s) at %#" PRIx64
             " that was not found when the program was prepared (code made at run time)",
             name, rip);
}
