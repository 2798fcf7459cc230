/* virtio_net.c - a network card (VIRTIO 1.1, section 5.1). The queues are polled after any interrupt. */
#include "virtio.h"

enum { NET = 1, F_MAC = 1 << 5, HEAD_MAX = 12 };

static struct device card;
static size_t head_len; /* of struct virtio_net_hdr */
static struct queue rx __attribute__((aligned(4096))), tx __attribute__((aligned(4096)));
static uint16_t rx_seen, tx_seen, tx_free;
static uint8_t rx_data[QUEUE_SIZE][HEAD_MAX + FRAME_MAX], tx_data[QUEUE_SIZE][HEAD_MAX + FRAME_MAX];

bool net_init(uint8_t ret_mac[6])
{
    unsigned slot = 0;
    if (!device_find(&card, NET, &slot)) {
        return false;
    }
    device_begin(&card, F_MAC);
    head_len = card.legacy ? 10 : 12;
    console(card.legacy ? "" : "netkernel: virtio 1\n");
    if (!device_queue(&card, 0, &rx) || !device_queue(&card, 1, &tx)) {
        return false;
    }
    device_go(&card);
    for (unsigned i = 0; i < 6; i++) {
        ret_mac[i] = card.base[CONFIG + i];
    }
    tx.avail.flags = 1; /* no interrupts for what was sent */
    for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
        rx.desc[i] = (struct desc){
            .addr = (uintptr_t)rx_data[i], .len = sizeof(rx_data[i]), .flags = DESC_WRITE};
        queue_offer(&rx, i);
    }
    tx_free = QUEUE_SIZE;
    device_set(&card, QUEUE_NOTIFY, 0);
    return true;
}

size_t net_receive(uint8_t frame[FRAME_MAX])
{
    device_set(&card, INTERRUPT_ACK, device_get(&card, INTERRUPT_STATUS));
    barrier();
    if (rx.used.index == rx_seen) {
        return 0;
    }
    uint32_t id = rx.used.ring[rx_seen % QUEUE_SIZE].id,
             len = rx.used.ring[rx_seen++ % QUEUE_SIZE].len;
    len = len > head_len ? len - (uint32_t)head_len : 0;
    len = len > FRAME_MAX ? FRAME_MAX : len;
    memcpy(frame, rx_data[id] + head_len, len);
    queue_offer(&rx, (uint16_t)id);
    device_set(&card, QUEUE_NOTIFY, 0);
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
    uint16_t id = tx.avail.index % QUEUE_SIZE; /* descriptors come back in order */
    memset(tx_data[id], 0, head_len);
    memcpy(tx_data[id] + head_len, frame, len);
    tx.desc[id] = (struct desc){.addr = (uintptr_t)tx_data[id], .len = (uint32_t)(head_len + len)};
    queue_offer(&tx, id);
    device_set(&card, QUEUE_NOTIFY, 1);
}
