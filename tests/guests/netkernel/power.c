/* power.c - ends that can be told apart: power-off, a panic that the host is told of, a watchdog. */
#include "netkernel.h"

static inline void out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint32_t in32(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

/* ACPI's sleep control of QEMU's microvm (the registers of its generic event device) and of its pc, as
 * their firmware tables say: S5, and sleep enable. */
void power_off(void)
{
    *(volatile uint8_t *)0xfea00200ull = 5 << 2 | 0x20;
    __asm__ volatile("outw %0, %1" : : "a"((uint16_t)0x2000), "d"((uint16_t)0x604));
}

/* QEMU's docs/specs/pvpanic: bit 0 is "panicked". */
void power_panic(void)
{
    out8(0x505, 1);
}

/* Configuration space of bus 0. */
static uint32_t pci_read(unsigned device, unsigned reg)
{
    out32(0xcf8, 0x80000000u | device << 11 | reg);
    return in32(0xcfc);
}

static void pci_write(unsigned device, unsigned reg, uint32_t v)
{
    out32(0xcf8, 0x80000000u | device << 11 | reg);
    out32(0xcfc, v);
}

/* Intel 6300ESB I/O controller hub datasheet, watchdog timer: two preloads of 1 kHz ticks, each write to
 * be unlocked, then the lock register's enable bit. */
bool power_watchdog(void)
{
    for (unsigned device = 0; device < 32; device++) {
        if (pci_read(device, 0) != 0x25ab8086) {
            continue;
        }
        uintptr_t base = pci_read(device, 0x10) & ~15u;
        pci_write(device, 4, pci_read(device, 4) | 2);
        for (unsigned stage = 0; stage < 2; stage++) {
            *(volatile uint16_t *)(base + 12) = 0x80;
            *(volatile uint16_t *)(base + 12) = 0x86;
            *(volatile uint32_t *)(base + 4 * stage) = 100;
        }
        out32(0xcf8, 0x80000000u | device << 11 | 0x68);
        out8(0xcfc, 2); /* a register of one byte */
        return true;
    }
    return false;
}
