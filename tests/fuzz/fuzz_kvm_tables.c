/* fuzz_kvm_tables.c - page tables of a guest, of any content, as the monitor walks them to learn what was
 * touched, and to touch it again (hypervisor/kvm/touch.c). There is no VM: what would run is refused.
 *
 * Input: records of 11 bytes: a page of tables, an entry of it (2 bytes, little-endian), and what the entry is.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/kvm/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORD = 11, PAGE = 4096, FIRST = UNID_CHANNEL_END / PAGE };
#define MEM_BYTES (UINT64_C(4) << 20)

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Memory, with nothing before and behind it. */
static uint8_t *memory(void)
{
    static uint8_t *at;
    if (!at) {
        at = mmap(NULL, MEM_BYTES + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(at != MAP_FAILED);
        at += PAGE;
    }
    must(mmap(at, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
              0) == at);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine m;
    static uint64_t touches[VMM_TOUCHES_MAX];
    m = (struct machine){.vm = -1,
                         .vcpu = -1,
                         .mem = memory(),
                         .mem_max = MEM_BYTES,
                         .mem_bytes = MEM_BYTES,
                         .cr3 = UNID_CHANNEL_END};
    for (size_t i = 0; i + RECORD <= size; i += RECORD) {
        size_t page = FIRST + data[i], entry = (data[i + 1] | (size_t)data[i + 2] << 8) % 512;
        memcpy(m.mem + page * PAGE + entry * 8, data + i + 3, 8);
    }
    ((struct unid_call *)(void *)(m.mem + UNID_CALL_ADDR))->seq = 1;
    machine_watch(&m);
    /* As if all of it had been touched. */
    for (size_t i = 0; i + RECORD <= size; i += RECORD) {
        size_t page = FIRST + data[i], entry = (data[i + 1] | (size_t)data[i + 2] << 8) % 512;
        m.mem[page * PAGE + entry * 8] |= 0x20;
    }
    size_t n = machine_touched(&m, touches);
    must(n <= VMM_TOUCHES_MAX);
    for (size_t i = 0; i < n; i++) {
        must((touches[i] & 0xffe) == 0 && (i == 0 || touches[i] >> 12 > touches[i - 1] >> 12));
    }
    must(machine_touch(&m, touches, n) <= 0);
    for (size_t at = 8 * PAGE; at < 20 * PAGE; at++) { /* behind are tables that were split */
        must(m.mem[at] == 0);
    }
    return 0;
}
