/* main.c - console, command line, interrupts, and the loop. */
#include "netkernel.h"

struct config config = {.ip = 0x0a00020f, .port = 80};

/* --- the machine ------------------------------------------------------------------------------- */

static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline volatile uint32_t *reg(uintptr_t addr)
{
    return (volatile uint32_t *)addr;
}

void console_write(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        while (!(in8(0x3fd) & 0x20)) {
        }
        out8(0x3f8, (uint8_t)text[i]);
    }
}

void console(const char *text)
{
    size_t n = 0;
    while (text[n]) {
        n++;
    }
    console_write(text, n);
}

enum { VECTOR = 0x20, TIMER_VECTOR = 0x60, TICK_MS = 10 };
static volatile uint64_t ticks;

void timer_interrupt(void);
__asm__(".globl timer_entry\n"
        "timer_entry: lock incq ticks(%rip)\n"
        "jmp interrupt_entry\n");
void timer_entry(void);

uint64_t now_ms(void)
{
    return ticks * TICK_MS;
}

static struct {
    uint16_t low, selector, type, middle;
    uint32_t high, zero;
} idt[256];

static void set_gate(unsigned vector, void (*entry)(void))
{
    uint64_t at = (uintptr_t)entry;
    idt[vector].low = (uint16_t)at;
    idt[vector].selector = 8;
    idt[vector].type = 0x8e00; /* present, interrupt gate */
    idt[vector].middle = (uint16_t)(at >> 16);
    idt[vector].high = (uint32_t)(at >> 32);
}

/* The APICs' registers: Intel SDM vol. 3, chapter 11; 82093AA I/O APIC datasheet. All pins of both
 * I/O APICs that QEMU's microvm has, edge-triggered, to one vector. */
static void interrupts_init(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {sizeof(idt) - 1, (uintptr_t)idt};
    set_gate(VECTOR, interrupt_entry);
    set_gate(TIMER_VECTOR, timer_entry);
    __asm__ volatile("lidt %0" : : "m"(pointer));
    out8(0x21, 0xff); /* no interrupts from the old controllers */
    out8(0xa1, 0xff);
    *reg(0xfee000f0) = 0x1ff; /* local APIC on, spurious vector 0xff */
    set_gate(0xff, interrupt_entry);
    for (uintptr_t apic = 0xfec00000; apic <= 0xfec10000; apic += 0x10000) {
        for (uint32_t pin = 0; pin < 24; pin++) {
            *reg(apic) = 0x11 + 2 * pin;
            *reg(apic + 0x10) = 0;
            *reg(apic) = 0x10 + 2 * pin;
            *reg(apic + 0x10) = VECTOR;
        }
    }
    /* QEMU's APIC timer counts at 1 GHz. */
    *reg(0xfee003e0) = 0xb;                    /* divide by 1 */
    *reg(0xfee00320) = TIMER_VECTOR | 0x20000; /* periodic */
    *reg(0xfee00380) = TICK_MS * 1000000;
}

/* --- a little of a C library -------------------------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t n)
{
    void *d = to;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
    return to;
}

void *memset(void *to, int c, size_t n)
{
    void *d = to;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] - y[i];
        }
    }
    return 0;
}

size_t put_number(char *to, uint64_t n)
{
    char digits[20];
    size_t len = 0;
    do {
        digits[len++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    for (size_t i = 0; i < len; i++) {
        to[i] = digits[len - 1 - i];
    }
    return len;
}

/* --- command line ------------------------------------------------------------------------------- */

static uint64_t number(const char **p)
{
    uint64_t n = 0;
    while (**p >= '0' && **p <= '9') {
        n = n * 10 + (uint64_t)(*(*p)++ - '0');
    }
    return n;
}

/* The word's value when it begins with `key`. */
static const char *value(const char *word, const char *key)
{
    while (*key) {
        if (*word++ != *key++) {
            return NULL;
        }
    }
    return word;
}

static uint32_t address(const char **p)
{
    uint32_t ip = 0;
    for (int i = 0; i < 4; i++) {
        ip = ip << 8 | (uint32_t)number(p);
        *p += **p == '.';
    }
    return ip;
}

static void read_word(const char *word)
{
    const char *v = value(word, "ip=");
    if (v) {
        config.ip = address(&v);
        v += *v == '/';
        config.mask = ~0u << (32 - (unsigned)number(&v) % 32) % 32;
    } else if ((v = value(word, "gw="))) {
        config.gateway = config.dns = address(&v);
    } else if ((v = value(word, "port="))) {
        config.port = (uint16_t)number(&v);
    } else if ((v = value(word, "next="))) {
        config.next = v;
    } else if ((v = value(word, "delay="))) {
        config.delay_ms = (unsigned)number(&v);
    }
    config.raw |= value(word, "tcp=") != NULL;
    config.greet |= value(word, "tcp=greet") != NULL;
    config.halt |= value(word, "halt") != NULL;
    config.dhcp |= value(word, "dhcp") != NULL;
    config.crash |= value(word, "crash") != NULL;
    config.off |= value(word, "off") != NULL;
    config.panic |= value(word, "panic") != NULL;
    config.dog |= value(word, "dog") != NULL;
}

static void read_command_line(const char *text)
{
    while (text && *text) {
        while (*text == ' ') {
            text++;
        }
        read_word(text);
        while (*text && *text != ' ') {
            text++;
        }
    }
}

/* --- the loop ----------------------------------------------------------------------------------- */

/* struct hvm_start_info: magic, version, flags, modules as 32-bit words and two 64-bit addresses, then
 * the command line's address. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line;
};

_Noreturn static void stop(void)
{
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void kernel_main(const struct start_info *info);
void kernel_main(const struct start_info *info)
{
    static uint8_t frame[FRAME_MAX];
    uint8_t mac[6];
    console("netkernel: started\n");
    if (info->magic == 0x336ec578) {
        read_command_line((const char *)(uintptr_t)info->command_line);
    }
    if (config.crash) {
        console("netkernel: crashes, as it was told\n");
        cpu_crash();
    }
    if (config.off || config.panic) {
        (config.off ? power_off : power_panic)();
        stop();
    }
    if (config.dog) {
        console(power_watchdog() ? "netkernel: hangs\n" : "netkernel: no watchdog\n");
        stop();
    }
    if (info->magic == 0x336ec578 && info->modules > 0) {
        const uint64_t *module = (const uint64_t *)(uintptr_t)info->module_list; /* at, size */
        config.initrd = (const char *)(uintptr_t)module[0];
        config.initrd_len = module[1];
    }
    interrupts_init();
    (void)disk_init();
    if (!net_init(mac)) {
        console("netkernel: no network card\n");
        stop();
    }
    if (client_init && !client_init(mac)) {
        console("netkernel: nobody gives me an address\n");
        stop();
    }
    if (config.halt) {
        console("netkernel: halts, as it was told\n");
        stop();
    }
    while (now_ms() < config.delay_ms) {
        cpu_wait();
    }
    console("netkernel: listening\n");
    for (;;) {
        size_t len;
        while ((len = net_receive(frame)) > 0) {
            net_input(frame, len, mac);
        }
        tcp_tick();
        if (config.off_at && now_ms() >= config.off_at) {
            power_off();
        }
        cpu_wait();
    }
}
