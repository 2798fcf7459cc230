/* ring0.c - see ring0.h. Linux, Documentation/virt/kvm/api.rst. */
#include "hypervisor/libvirt/ring0.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

enum { MEM_BYTES = 0x2000, CODE_AT = 0x1000, FAST_US = 20000 };

/* In real mode. 100,000 rounds: 0.1 ms natively, 50 ms and more by an emulator. */
static const uint8_t code[] = {
    0x0f, 0xae, 0x16, 0x00, 0x18,       /* ldmxcsr 0x1800 */
    0x66, 0xb9, 0xa0, 0x86, 0x01, 0x00, /* mov $100000, %ecx */
    0x66, 0x49,                         /* dec %ecx */
    0x75, 0xfc,                         /* jnz .-2 */
    0xf4,                               /* hlt */
};
static const uint8_t mxcsr[] = {0x80, 0x1f, 0, 0}; /* its value after a reset */

static bool set_registers(int vcpu)
{
    struct kvm_sregs s;
    struct kvm_regs r = {.rip = CODE_AT, .rflags = 2};
    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0) {
        return false;
    }
    s.cs.base = s.cs.selector = 0;
    s.ds.base = s.ds.selector = 0;
    s.cr4 |= 1 << 9; /* OSFXSR */
    return ioctl(vcpu, KVM_SET_SREGS, &s) == 0 && ioctl(vcpu, KVM_SET_REGS, &r) == 0;
}

static bool run(int vcpu, size_t run_size)
{
    struct kvm_run *shared = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (shared == MAP_FAILED) {
        return false;
    }
    uint64_t from = un_clock_mono_us();
    bool halted = ioctl(vcpu, KVM_RUN, 0) == 0 && shared->exit_reason == KVM_EXIT_HLT;
    uint64_t us = un_clock_mono_us() - from;
    munmap(shared, run_size);
    return halted && us < FAST_US;
}

bool lv_ring0_is_fast(void)
{
    un_autoclose int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    un_autoclose int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int run_size = vm < 0 ? -1 : ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size <= 0) {
        return false;
    }
    uint8_t *mem =
        mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        return false;
    }
    memcpy(mem + CODE_AT, code, sizeof(code));
    memcpy(mem + 0x1800, mxcsr, sizeof(mxcsr));
    struct kvm_userspace_memory_region slot = {.memory_size = MEM_BYTES,
                                               .userspace_addr = (uintptr_t)mem};
    bool fast = false;
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0) {
        un_autoclose int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
        fast = vcpu >= 0 && set_registers(vcpu) && run(vcpu, (size_t)run_size);
    }
    munmap(mem, MEM_BYTES);
    return fast;
}
