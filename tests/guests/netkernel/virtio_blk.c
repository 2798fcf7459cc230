/* virtio_blk.c - disks, a sector at a time (VIRTIO 1.1, section 5.2). What was written is on the disk when
 * the request has ended, as long as a driver does not say that it can flush. */
#include "virtio.h"

enum { BLOCK = 2, T_IN = 0, T_OUT = 1 };

struct disk {
    struct device device;
    struct queue queue __attribute__((aligned(4096)));
    bool good;
};
static struct disk disks[DISKS_MAX];

unsigned disk_init(void)
{
    unsigned slot = 0, count = 0;
    while (count < DISKS_MAX && device_find(&disks[count].device, BLOCK, &slot)) {
        struct disk *d = &disks[count++];
        device_begin(&d->device, 0);
        d->queue.avail.flags = 1; /* no interrupts */
        d->good = device_queue(&d->device, 0, &d->queue);
        device_go(&d->device);
    }
    return count;
}

bool disk_transfer(unsigned number, uint64_t sector, void *data, bool write)
{
    static volatile struct {
        uint32_t type, reserved;
        uint64_t sector;
    } head;
    static volatile uint8_t status;
    struct disk *d = &disks[number];
    if (number >= DISKS_MAX || !d->good) {
        return false;
    }
    uint16_t before = d->queue.used.index;
    head.type = write ? T_OUT : T_IN;
    head.sector = sector;
    status = 0xff;
    d->queue.desc[0] = (struct desc){(uintptr_t)&head, sizeof(head), DESC_NEXT, 1};
    d->queue.desc[1] =
        (struct desc){(uintptr_t)data, SECTOR, (uint16_t)(DESC_NEXT | (write ? 0 : DESC_WRITE)), 2};
    d->queue.desc[2] = (struct desc){(uintptr_t)&status, 1, DESC_WRITE, 0};
    queue_offer(&d->queue, 0);
    device_set(&d->device, QUEUE_NOTIFY, 0);
    while (d->queue.used.index == before) {
        __asm__ volatile("pause");
    }
    barrier();
    return status == 0;
}
