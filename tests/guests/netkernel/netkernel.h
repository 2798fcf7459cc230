/* netkernel.h - a kernel for tests: PVH, virtio-net and virtio-blk over virtio-mmio, ARP, ICMP echo, and as much TCP
 * as an HTTP server for well-behaved clients on a local link needs. One CPU, one loop, no allocation.
 *
 * On its command line: ip=A.B.C.D/N (else 10.0.2.15/24, QEMU's user network) and port=N (else 80),
 * delay=MS (before it listens), halt (never listens), crash (ends before it listens), tcp=echo or tcp=greet
 * (no HTTP; greet speaks first, see raw.c), off (powers off), panic (tells the host so), dog (arms a watchdog
 * and hangs). What it answers over HTTP:
 *
 *     /           "hello from <ip>\n"          /bytes/N   N bytes
 *     /echo       the request's body           /log/TEXT  writes TEXT to the console
 *     /count      requests served before       /hang      never answers, nor anything after
 *     /crash      a triple fault            /initrd    the initial RAM disk, byte for byte
 *     /off        answers, then powers off
 *     /disk/read/D/N, /disk/write/D/N       sector N of disk D (the request's body, zeros behind it)
 *     /fetch?host=H&port=N&from=A   netclient: what H answers to "GET /", or 502 and why not; from address A.
 *     /fetch?host=H&port=N&alike    netclient: the same, by a connection that begins alike in each machine.
 *                                   With next=H&port=N on the command line that is what / answers
 *
 * With dhcp on the command line the address is asked for, else gw=A.B.C.D is the gateway and name server.
 */
#ifndef NETKERNEL_H
#define NETKERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_MAX = 1514, ETH_HEAD = 14, IP_HEAD = 20, TCP_HEAD = 20 };

/* boot.S */
void interrupt_entry(void);
void cpu_wait(void);
_Noreturn void cpu_crash(void);

/* main.c */
void console_write(const char *text, size_t len);
void console(const char *text);
uint64_t now_ms(void); /* since the start, by the local APIC's timer: good to 10 ms */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t put_number(char *to, uint64_t n);

struct config {
    const char *initrd, *next; /* NULL: none */
    uint64_t initrd_len;
    uint32_t ip; /* host byte order, as everywhere here */
    uint16_t port;
    unsigned delay_ms;
    uint64_t off_at; /* powers off then; 0: never */
    bool halt, crash, off, panic, dog, dhcp;
    uint32_t mask, gateway, dns;
    bool raw, greet;
};
extern struct config config;

/* power.c; power_watchdog is false where there is none */
void power_off(void);
void power_panic(void);
bool power_watchdog(void);

/* virtio_net.c */
bool net_init(uint8_t ret_mac[6]);               /* false: no card */
size_t net_receive(uint8_t frame[FRAME_MAX]);    /* 0: none now */
void net_send(const uint8_t *frame, size_t len); /* dropped when the queue is full */

/* virtio_blk.c */
enum { DISKS_MAX = 4, SECTOR = 512 };
unsigned disk_init(void); /* how many there are */
/* One sector to or from `data`. False: there is none. */
bool disk_transfer(unsigned number, uint64_t sector, void *data, bool write);

/* net.c */
void net_input(uint8_t *frame, size_t len, const uint8_t mac[6]);
/* Sends what stands behind the two heads of `frame` to an address. */
void ip_send(uint8_t *frame, size_t payload, const uint8_t to_mac[6], uint32_t to, uint8_t proto);
uint16_t checksum(const void *data, size_t len, uint32_t sum);

static inline uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}
static inline void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)(v >> 16));
    put16(p + 2, (uint16_t)v);
}

/* tcp.c */
void tcp_input(uint32_t from, const uint8_t from_mac[6], const uint8_t *segment, size_t len);
void tcp_tick(void); /* retransmits */

/* http.c: the content of one response, made as it is sent. */
struct response {
    char head[160];
    size_t head_len;
    uint64_t body_len;
    const char *body; /* NULL: letters */
    bool close, hang;
};
enum { REQUEST_MAX = 4096 };
void http_respond(struct response *r, const char *status, const char *body, uint64_t len);
bool http_begins(const char *text, const char *with);
uint64_t http_number(const char *text);

/* tests/guests/netclient; NULL in the kernel without it. */
__attribute__((weak)) bool client_init(const uint8_t mac[6]); /* false: nobody gives an address */
__attribute__((weak)) void client_answer(const char *query, struct response *r);

/* raw.c: the same for connections without HTTP: all bytes are a request. */
int raw_parse(const char *data, size_t len, struct response *ret);
/* What is said before anything is asked; false: nothing. */
bool raw_greeting(struct response *ret);

/* Bytes of the first request in `text` once it is complete with its body, 0 before, -1 when it is
 * none or too long. */
int http_parse(const char *text, size_t len, struct response *ret);

#endif
