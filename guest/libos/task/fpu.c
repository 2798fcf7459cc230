/* fpu.c - how large the floating-point state is, and what of it is kept over a snapshot. Offsets of the standard
 * XSAVE format: Intel SDM vol. 1, section 13.4. */
#include "task.h"
#include "task/task_internal.h"

#define XCR0_X87_SSE 0x3u
#define XCR0_AVX     0x4u
#define XCR0_AVX512  0xe0u

#define CPUID_OSXSAVE (1u << 27) /* leaf 1, ecx */

enum { AREA_MAX = 2688 }; /* with all parts of XCR0_AVX512, where any CPU has them */

uint32_t fpu_size = 512, fpu_mask;

static _Alignas(64) uint8_t kept[AREA_MAX];

static uint32_t enabled_parts(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low & (XCR0_X87_SSE | XCR0_AVX | XCR0_AVX512);
}

/* Programs look at the same bit before they use AVX. */
void fpu_init(void)
{
    uint32_t a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c & CPUID_OSXSAVE)) {
        return;
    }
    fpu_mask = enabled_parts();
    fpu_size = fpu_mask & XCR0_AVX512 ? AREA_MAX : fpu_mask & XCR0_AVX ? 832 : 576;
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

void fpu_keep(void)
{
    if (fpu_mask) {
        fpu_save(kept);
    }
}

void fpu_bring_back(void)
{
    if (fpu_mask) {
        fpu_restore(kept);
    }
}
