/* usernet.c - see usernet.h. */
#include "hypervisor/libvirt/usernet.h"

#include <stdio.h>
#include <string.h>

bool lv_usernet_port_is_taken(const char *said)
{
    return strstr(said, "Could not set up host forwarding rule");
}

bool lv_usernet_card_is_up(const char *status)
{
    return strstr(status, "VIRTIO_CONFIG_S_DRIVER_OK") || !strstr(status, "status:");
}

/* "  TCP[ESTABLISHED]  13  127.0.0.1 45671  10.0.2.15  8080  0  0" */
bool lv_usernet_listens(const char *connections, uint16_t host_port)
{
    for (const char *line = connections; line; line = strchr(line, '\n')) {
        unsigned port = 0;
        line += *line == '\n';
        if (sscanf(line, " TCP[ESTABLISHED] %*d 127.0.0.1 %5u", &port) == 1 && port == host_port) {
            return true;
        }
    }
    return false;
}
