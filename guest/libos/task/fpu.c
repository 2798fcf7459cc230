/* fpu.c - how large the floating-point state is. Offsets of the standard XSAVE format: Intel SDM
 * vol. 1, section 13.4. */
#include "task/task_internal.h"

#define XCR0_X87_SSE 0x3u
#define XCR0_AVX     0x4u
#define XCR0_AVX512  0xe0u

uint32_t fpu_size = 512, fpu_mask;

void fpu_init(void)
{
    const struct unid_boot *b = (const struct unid_boot *)UNID_BOOT_ADDR;
    if (!(b->flags & UNID_BOOT_AVX)) {
        return;
    }
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    fpu_mask = low & (XCR0_X87_SSE | XCR0_AVX | XCR0_AVX512);
    fpu_size = low & XCR0_AVX512 ? 2688 : low & XCR0_AVX ? 832 : 576;
}

void fpu_fresh(void *area)
{
    char *p = area;
    memset(p, 0, fpu_size);
    *(uint16_t *)p = 0x37f;         /* FCW, as after FNINIT */
    *(uint32_t *)(p + 24) = 0x1f80; /* MXCSR */
    if (fpu_mask) {
        *(uint64_t *)(p + 512) = XCR0_X87_SSE; /* the rest is in its first state */
    }
}
