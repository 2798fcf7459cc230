/* virtio.c - see virtio.h. */
#include "virtio.h"

/* QEMU's microvm puts its transports here, 512 bytes apart. */
bool device_find(struct device *d, uint32_t kind, unsigned *slot)
{
    for (; *slot < 32; ++*slot) {
        d->base = (volatile uint8_t *)(uintptr_t)(0xfeb00000 + *slot * 0x200);
        if (device_get(d, MAGIC) == 0x74726976 && device_get(d, DEVICE) == kind) {
            ++*slot;
            return true;
        }
    }
    return false;
}

void device_begin(struct device *d, uint32_t features)
{
    d->legacy = device_get(d, VERSION) == 1;
    device_set(d, STATUS, 0);
    device_set(d, STATUS, 1 | 2); /* acknowledge, driver */
    device_set(d, DRIVER_FEATURES_SEL, 0);
    device_set(d, DRIVER_FEATURES, features);
    if (d->legacy) {
        device_set(d, GUEST_PAGE_SIZE, 4096);
    } else {
        device_set(d, DRIVER_FEATURES_SEL, 1);
        device_set(d, DRIVER_FEATURES, 1); /* VERSION_1 */
        device_set(d, STATUS, 1 | 2 | 8);  /* features ok */
    }
}

bool device_queue(struct device *d, uint32_t number, struct queue *q)
{
    device_set(d, QUEUE_SEL, number);
    if (device_get(d, QUEUE_NUM_MAX) < QUEUE_SIZE) {
        return false;
    }
    device_set(d, QUEUE_NUM, QUEUE_SIZE);
    if (d->legacy) {
        device_set(d, QUEUE_ALIGN, 4096);
        device_set(d, QUEUE_PFN, (uint32_t)((uintptr_t)q / 4096));
        return true;
    }
    const struct {
        unsigned at;
        const volatile void *what;
    } parts[] = {{QUEUE_DESC, q->desc}, {QUEUE_AVAIL, &q->avail}, {QUEUE_USED, &q->used}};
    for (unsigned i = 0; i < 3; i++) {
        device_set(d, parts[i].at, (uint32_t)(uintptr_t)parts[i].what);
        device_set(d, parts[i].at + 4, 0);
    }
    device_set(d, QUEUE_READY, 1);
    return true;
}

void device_go(struct device *d)
{
    device_set(d, STATUS, device_get(d, STATUS) | 4); /* driver ok */
}

void queue_offer(struct queue *q, uint16_t id)
{
    q->avail.ring[q->avail.index % QUEUE_SIZE] = id;
    barrier();
    q->avail.index++;
    barrier();
}
