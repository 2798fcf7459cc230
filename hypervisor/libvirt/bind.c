/* bind.c - see bind.h. The CPU's side is rom.S. */
#include "hypervisor/libvirt/bind.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/libvirt/rom.h"

/* Intel SDM vol. 3A, table 4-20: present, writable, accessed, dirty; the user bit is not set. */
#define PTE_SUPERVISOR UINT64_C(0x63)
#define PAGE           UINT64_C(0x1000)
#define LOW_PAGES      256u
#define VECTOR_PF      14u

static const char *const vector_names[] = {[0] = "divide error",
                                           [1] = "debug exception",
                                           [3] = "breakpoint",
                                           [4] = "overflow",
                                           [5] = "bound range",
                                           [6] = "invalid opcode",
                                           [7] = "no coprocessor",
                                           [8] = "double fault",
                                           [13] = "general protection fault",
                                           [14] = "page fault",
                                           [16] = "x87 floating point",
                                           [17] = "alignment check",
                                           [19] = "SIMD floating point"};

static void put64(uint8_t *mem, uint64_t addr, uint64_t value)
{
    memcpy(mem + addr, &value, sizeof(value));
}

static uint64_t get64(const uint8_t *mem, uint64_t addr)
{
    uint64_t value;
    memcpy(&value, mem + addr, sizeof(value));
    return value;
}

static uint32_t get32(const uint8_t *mem, uint64_t addr)
{
    uint32_t value;
    memcpy(&value, mem + addr, sizeof(value));
    return value;
}

int lv_bind(uint8_t *mem, uint64_t mem_bytes, const struct hv_layout *layout, struct un_error *err)
{
    uint64_t low = layout->low_table;
    if (mem_bytes < UNID_IMAGE_MIN || low % PAGE || low < UNID_IMAGE_MIN ||
        low > mem_bytes - PAGE || layout->cr3 > UINT32_MAX) {
        return un_error_set(err, -EINVAL, "page tables at %#" PRIx64 " and %#" PRIx64, layout->cr3,
                            low);
    }
    for (uint64_t i = 0; i < LOW_PAGES; i++) {
        put64(mem, low + 8 * i, i * PAGE | PTE_SUPERVISOR);
    }
    memcpy(mem + LV_TABLES_ADDR, lv_rom + LV_TABLES_OFFSET, LV_TABLES_SIZE);
    put64(mem, LV_MAILBOX_CR3, layout->cr3);
    put64(mem, LV_MAILBOX_RIP, layout->rip);
    put64(mem, LV_MAILBOX_RSP, layout->rsp);
    put64(mem, LV_MAILBOX_RDI, layout->rdi);
    return 0;
}

static void describe(struct hv_exit *e, uint64_t guard)
{
    const char *name = e->fault_vector < sizeof(vector_names) / sizeof(vector_names[0])
                           ? vector_names[e->fault_vector]
                           : NULL;
    if (guard && e->fault_vector == VECTOR_PF && e->fault_addr - guard < PAGE) {
        snprintf(e->detail, sizeof(e->detail),
                 "stack or heap used up: page fault at %#" PRIx64 ", instruction %#" PRIx64,
                 e->fault_addr, e->fault_rip);
    } else if (e->fault_vector == VECTOR_PF) {
        snprintf(e->detail, sizeof(e->detail), "page fault: %s %#" PRIx64 ", instruction %#" PRIx64,
                 e->fault_error & 16  ? "execution at"
                 : e->fault_error & 2 ? "write to"
                                      : "read from",
                 e->fault_addr, e->fault_rip);
    } else {
        snprintf(e->detail, sizeof(e->detail), "%s (vector %" PRIu32 "), instruction %#" PRIx64,
                 name ? name : "exception", e->fault_vector, e->fault_rip);
    }
}

bool lv_fault_read(const uint8_t *mem, uint64_t guard, struct hv_exit *ret)
{
    const uint32_t *seen = (const uint32_t *)(const void *)(mem + LV_FAULT_SEEN);
    if (!__atomic_load_n(seen, __ATOMIC_ACQUIRE)) {
        return false;
    }
    *ret = (struct hv_exit){.kind = HV_EXIT_FAULT,
                            .fault_vector = get32(mem, LV_FAULT_VECTOR),
                            .fault_error = get32(mem, LV_FAULT_ERROR),
                            .fault_rip = get64(mem, LV_FAULT_RIP)};
    if (ret->fault_vector == VECTOR_PF) {
        ret->fault_addr = get64(mem, LV_FAULT_ADDR);
    }
    describe(ret, guard);
    return true;
}
