/* fuzz_usernet.c - whatever QEMU's monitor answers is read within its bounds, and a guest listens only where
 * a connection is said to stand. The first two bytes are the port. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/libvirt/usernet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    char *text = malloc(size - 1);
    if (!text) {
        return 0;
    }
    memcpy(text, data + 2, size - 2);
    text[size - 2] = '\0';
    uint16_t port = (uint16_t)(data[0] << 8 | data[1]);
    if (lv_usernet_listens(text, port) && !strstr(text, "TCP[ESTABLISHED]")) {
        abort();
    }
    if (!lv_usernet_card_is_up(text) && strstr(text, "VIRTIO_CONFIG_S_DRIVER_OK")) {
        abort();
    }
    free(text);
    return 0;
}
