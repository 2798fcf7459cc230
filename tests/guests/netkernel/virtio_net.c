/* virtio_net.c - a network card over virtio-mmio, in its legacy and its modern form (Virtual I/O
 * Device (VIRTIO) Version 1.1, sections 4.2 and 5.1). The queues are polled after any interrupt.
 */
#include "netkernel.h"

enum {
    MAGIC = 0x000,
    VERSION = 0x004,
    DEVICE = 0x008,
    DEVICE_FEATURES = 0x010,
    DEVICE_FEATURES_SEL = 0x014,
    DRIVER_FEATURES = 0x020,
    DRIVER_FEATURES_SEL = 0x024,
    GUEST_PAGE_SIZE = 0x028,
    QUEUE_SEL = 0x030,
    QUEUE_NUM_MAX = 0x034,
    QUEUE_NUM = 0x038,
    QUEUE_ALIGN = 0x03c,
    QUEUE_PFN = 0x040,
    QUEUE_READY = 0x044,
    QUEUE_NOTIFY = 0x050,
    INTERRUPT_STATUS = 0x060,
    INTERRUPT_ACK = 0x064,
    STATUS = 0x070,
    QUEUE_DESC = 0x080,
    QUEUE_AVAIL = 0x090,
    QUEUE_USED = 0x0a0,
    CONFIG = 0x100
};

enum { SIZE = 128, F_MAC = 1 << 5, DESC_WRITE = 2, HEAD_MAX = 12 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/* In one piece as the legacy layout wants it: descriptors, available ring, and on the next page the
 * used ring. */
struct queue {
    struct desc desc[SIZE];
    struct {
        uint16_t flags, index, ring[SIZE], event;
    } avail;
    uint8_t pad[4096 - SIZE * 16 - (SIZE + 3) * 2];
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, len;
        } ring[SIZE];
        uint16_t event;
    } used;
};

static volatile uint8_t *base;
static size_t head_len; /* of struct virtio_net_hdr */
static struct queue rx __attribute__((aligned(4096))), tx __attribute__((aligned(4096)));
static uint16_t rx_seen, tx_seen, tx_free;
static uint8_t rx_data[SIZE][HEAD_MAX + FRAME_MAX], tx_data[SIZE][HEAD_MAX + FRAME_MAX];

static uint32_t get(unsigned at)
{
    return *(volatile uint32_t *)(base + at);
}

static void set(unsigned at, uint32_t v)
{
    *(volatile uint32_t *)(base + at) = v;
}

/* QEMU's microvm puts its transports here, 512 bytes apart. */
static bool find(void)
{
    for (unsigned i = 0; i < 32; i++) {
        base = (volatile uint8_t *)(uintptr_t)(0xfeb00000 + i * 0x200);
        if (get(MAGIC) == 0x74726976 && get(DEVICE) == 1) {
            return true;
        }
    }
    return false;
}

static bool queue_init(uint32_t number, struct queue *q, bool legacy)
{
    set(QUEUE_SEL, number);
    if (get(QUEUE_NUM_MAX) < SIZE) {
        return false;
    }
    set(QUEUE_NUM, SIZE);
    if (legacy) {
        set(QUEUE_ALIGN, 4096);
        set(QUEUE_PFN, (uint32_t)((uintptr_t)q / 4096));
        return true;
    }
    const struct {
        unsigned at;
        const volatile void *what;
    } parts[] = {{QUEUE_DESC, q->desc}, {QUEUE_AVAIL, &q->avail}, {QUEUE_USED, &q->used}};
    for (unsigned i = 0; i < 3; i++) {
        set(parts[i].at, (uint32_t)(uintptr_t)parts[i].what);
        set(parts[i].at + 4, 0);
    }
    set(QUEUE_READY, 1);
    return true;
}

static void barrier(void)
{
    __asm__ volatile("mfence" : : : "memory");
}

static void offer(struct queue *q, uint16_t id)
{
    q->avail.ring[q->avail.index % SIZE] = id;
    barrier();
    q->avail.index++;
    barrier();
}

bool net_init(uint8_t ret_mac[6])
{
    if (!find()) {
        return false;
    }
    bool legacy = get(VERSION) == 1;
    head_len = legacy ? 10 : 12;
    set(STATUS, 0);
    set(STATUS, 1 | 2); /* acknowledge, driver */
    set(DRIVER_FEATURES_SEL, 0);
    set(DRIVER_FEATURES, F_MAC);
    if (legacy) {
        set(GUEST_PAGE_SIZE, 4096);
    } else {
        set(DRIVER_FEATURES_SEL, 1);
        set(DRIVER_FEATURES, 1); /* VERSION_1 */
        set(STATUS, 1 | 2 | 8);  /* features ok */
    }
    if (!queue_init(0, &rx, legacy) || !queue_init(1, &tx, legacy)) {
        return false;
    }
    set(STATUS, get(STATUS) | 4); /* driver ok */
    for (unsigned i = 0; i < 6; i++) {
        ret_mac[i] = base[CONFIG + i];
    }
    tx.avail.flags = 1; /* no interrupts for what was sent */
    for (uint16_t i = 0; i < SIZE; i++) {
        rx.desc[i] = (struct desc){
            .addr = (uintptr_t)rx_data[i], .len = sizeof(rx_data[i]), .flags = DESC_WRITE};
        offer(&rx, i);
    }
    tx_free = SIZE;
    set(QUEUE_NOTIFY, 0);
    return true;
}

size_t net_receive(uint8_t frame[FRAME_MAX])
{
    set(INTERRUPT_ACK, get(INTERRUPT_STATUS));
    barrier();
    if (rx.used.index == rx_seen) {
        return 0;
    }
    uint32_t id = rx.used.ring[rx_seen % SIZE].id, len = rx.used.ring[rx_seen % SIZE].len;
    rx_seen++;
    len = len > head_len ? len - (uint32_t)head_len : 0;
    len = len > FRAME_MAX ? FRAME_MAX : len;
    memcpy(frame, rx_data[id] + head_len, len);
    offer(&rx, (uint16_t)id);
    set(QUEUE_NOTIFY, 0);
    return len ? len : net_receive(frame);
}

void net_send(const uint8_t *frame, size_t len)
{
    barrier();
    tx_free = (uint16_t)(tx_free + (uint16_t)(tx.used.index - tx_seen));
    tx_seen = tx.used.index;
    if (tx_free == 0) {
        return; /* TCP sends it again */
    }
    tx_free--;
    uint16_t id = tx.avail.index % SIZE; /* descriptors come back in order */
    memset(tx_data[id], 0, head_len);
    memcpy(tx_data[id] + head_len, frame, len);
    tx.desc[id] = (struct desc){.addr = (uintptr_t)tx_data[id], .len = (uint32_t)(head_len + len)};
    offer(&tx, id);
    set(QUEUE_NOTIFY, 1);
}
