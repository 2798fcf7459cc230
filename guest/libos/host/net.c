/* net.c - connections that the host makes for the program (unid/abi.h, UNID_OP_NET_*). */
#include "host.h"
#include "host/channel.h"

static unsigned open_count;

static int net_call(uint32_t op, unsigned handle, size_t len)
{
    struct unid_call *c = call_page();
    c->net_handle = handle;
    c->net_len = (uint32_t)len;
    host_call(op);
    return c->net_result;
}

static int net_name_call(uint32_t op, const char *name, size_t len)
{
    if (len > UNID_NET_SIZE) {
        return -ENAMETOOLONG;
    }
    memcpy((void *)UNID_NET_ADDR, name, len);
    return net_call(op, 0, len);
}

int host_net_resolve(const char *name, size_t len)
{
    return net_name_call(UNID_OP_NET_RESOLVE, name, len);
}

int host_net_open(const char *where, size_t len)
{
    int handle = net_name_call(UNID_OP_NET_OPEN, where, len);
    open_count += handle >= 0;
    return handle;
}

int64_t host_net_send(unsigned handle, const void *data, size_t len)
{
    len = len < UNID_NET_SIZE ? len : UNID_NET_SIZE;
    memcpy((void *)UNID_NET_ADDR, data, len);
    return net_call(UNID_OP_NET_SEND, handle, len);
}

int64_t host_net_recv(unsigned handle, void *to, size_t len)
{
    len = len < UNID_NET_SIZE ? len : UNID_NET_SIZE;
    int got = net_call(UNID_OP_NET_RECV, handle, len);
    if (got > 0) {
        memcpy(to, (const void *)UNID_NET_ADDR, (size_t)got <= len ? (size_t)got : len);
    }
    return got;
}

void host_net_shut(unsigned handle)
{
    net_call(UNID_OP_NET_SHUT, handle, 0);
}

void host_net_close(unsigned handle)
{
    net_call(UNID_OP_NET_CLOSE, handle, 0);
    open_count--;
}

unsigned host_net_count(void)
{
    return open_count;
}

uint64_t host_net_readable(void)
{
    return call_page()->net_readable;
}

uint64_t host_net_writable(void)
{
    return call_page()->net_writable;
}
