/* net.c - Ethernet, ARP (RFC 826), IPv4 (RFC 791) and ICMP echo (RFC 792). Answers go to the MAC address
 * that the question came from, so nothing is ever looked up.
 */
#include "netkernel.h"

enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806, PROTO_ICMP = 1, PROTO_TCP = 6 };

static uint8_t own_mac[6];

uint16_t checksum(const void *data, size_t len, uint32_t sum)
{
    const uint8_t *p = data;
    for (size_t i = 0; i + 1 < len; i += 2) {
        sum += get16(p + i);
    }
    if (len % 2) {
        sum += (uint32_t)p[len - 1] << 8;
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

static void ethernet(uint8_t *frame, const uint8_t to[6], uint16_t type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, own_mac, 6);
    put16(frame + 12, type);
}

void ip_send(uint8_t *frame, size_t payload, const uint8_t to_mac[6], uint32_t to, uint8_t proto)
{
    ethernet(frame, to_mac, TYPE_IP);
    uint8_t *ip = frame + ETH_HEAD;
    memset(ip, 0, IP_HEAD);
    ip[0] = 0x45;
    put16(ip + 2, (uint16_t)(IP_HEAD + payload));
    ip[6] = 0x40; /* do not fragment */
    ip[8] = 64;
    ip[9] = proto;
    put32(ip + 12, config.ip);
    put32(ip + 16, to);
    put16(ip + 10, checksum(ip, IP_HEAD, 0));
    net_send(frame, ETH_HEAD + IP_HEAD + payload);
}

static void arp_input(uint8_t *frame, size_t len)
{
    uint8_t *arp = frame + ETH_HEAD;
    if (len < ETH_HEAD + 28 || get16(arp + 6) != 1 || get32(arp + 24) != config.ip) {
        return;
    }
    uint8_t asker[6];
    memcpy(asker, arp + 8, 6);
    put16(arp + 6, 2);
    memcpy(arp + 18, arp + 8, 10); /* the asker's MAC and address become the target's */
    memcpy(arp + 8, own_mac, 6);
    put32(arp + 14, config.ip);
    ethernet(frame, asker, TYPE_ARP);
    net_send(frame, ETH_HEAD + 28);
}

static void icmp_input(uint8_t *frame, uint8_t *icmp, size_t len, uint32_t from)
{
    uint8_t asker[6];
    if (len < 8 || icmp[0] != 8 || len > FRAME_MAX - ETH_HEAD - IP_HEAD) {
        return;
    }
    memcpy(asker, frame + 6, 6);
    icmp[0] = 0;
    put16(icmp + 2, 0);
    put16(icmp + 2, checksum(icmp, len, 0));
    ip_send(frame, len, asker, from, PROTO_ICMP);
}

static void ip_input(uint8_t *frame, size_t len)
{
    uint8_t *ip = frame + ETH_HEAD;
    size_t total;
    if (len < ETH_HEAD + IP_HEAD || ip[0] != 0x45 || get32(ip + 16) != config.ip ||
        (get16(ip + 6) & 0x3fff) || (total = get16(ip + 2)) < IP_HEAD || total > len - ETH_HEAD) {
        return;
    }
    uint32_t from = get32(ip + 12);
    if (ip[9] == PROTO_ICMP) {
        icmp_input(frame, ip + IP_HEAD, total - IP_HEAD, from);
    } else if (ip[9] == PROTO_TCP) {
        tcp_input(from, frame + 6, ip + IP_HEAD, total - IP_HEAD);
    }
}

void net_input(uint8_t *frame, size_t len, const uint8_t mac[6])
{
    memcpy(own_mac, mac, 6);
    if (len < ETH_HEAD) {
        return;
    }
    uint16_t type = get16(frame + 12);
    if (type == TYPE_ARP) {
        arp_input(frame, len);
    } else if (type == TYPE_IP) {
        ip_input(frame, len);
    }
}
