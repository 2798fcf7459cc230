/* virtio.h - what the drivers of virtio-mmio devices share: registers and queues, in the legacy and the
 * modern form (Virtual I/O Device (VIRTIO) Version 1.1, sections 2.6 and 4.2).
 */
#ifndef NETKERNEL_VIRTIO_H
#define NETKERNEL_VIRTIO_H

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

enum { QUEUE_SIZE = 128, DESC_NEXT = 1, DESC_WRITE = 2 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/* In one piece as the legacy layout wants it: descriptors, available ring, and on the next page the
 * used ring. */
struct queue {
    struct desc desc[QUEUE_SIZE];
    struct {
        uint16_t flags, index, ring[QUEUE_SIZE], event;
    } avail;
    uint8_t pad[4096 - QUEUE_SIZE * 16 - (QUEUE_SIZE + 3) * 2];
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, len;
        } ring[QUEUE_SIZE];
        uint16_t event;
    } used;
};

struct device {
    volatile uint8_t *base;
    bool legacy;
};

static inline uint32_t device_get(const struct device *d, unsigned at)
{
    return *(volatile uint32_t *)(d->base + at);
}

static inline void device_set(const struct device *d, unsigned at, uint32_t v)
{
    *(volatile uint32_t *)(d->base + at) = v;
}

/* The next device of a kind from `*slot` on; begins with 0. */
bool device_find(struct device *d, uint32_t kind, unsigned *slot);
/* Resets it and takes `features` (of the first 32) as far as queues go; then queues, then device_go. */
void device_begin(struct device *d, uint32_t features);
bool device_queue(struct device *d, uint32_t number, struct queue *q);
void device_go(struct device *d);
/* Gives the device a chain of descriptors. */
void queue_offer(struct queue *q, uint16_t id);

static inline void barrier(void)
{
    __asm__ volatile("mfence" : : : "memory");
}

#endif
