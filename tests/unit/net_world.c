/* net_world.c - see net_world.h. */
#include "net_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bytes.h"

bool have_namespace;
/* Other runs of these tests may go on beside: dnsmasq's files are below /run. */
static char state_dir[64];

void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    struct world *w = arg;
    w->link = link;
    w->rc = rc;
    un_error_copy(&w->err, err);
    w->waiting--;
    un_loop_stop(w->loop);
}

void on_done(void *arg)
{
    struct world *w = arg;
    w->waiting--;
    un_loop_stop(w->loop);
}

void wait_for(struct world *w)
{
    while (w->waiting) {
        un_loop_run(w->loop);
    }
}

struct net_link *attach(struct world *w)
{
    w->waiting++;
    assert_int_equal(net_attach(w->np, w->wish, on_attach, w, &w->err), 0);
    wait_for(w);
    if (w->rc < 0) {
        print_error("attach: %s\n", w->err.text);
    }
    assert_int_equal(w->rc, 0);
    return w->link;
}

static void on_open(void *arg, const struct un_endpoint *to, int fd)
{
    struct world *w = arg;
    w->conn = fd;
    un_loop_stop(w->loop);
}

static void open_as(struct world *w, const char *dir, uint32_t linger_ms, uint32_t segment_ports)
{
    *w = (struct world){.conn = -1};
    struct netplumb_spec spec = {.state_dir = dir,
                                 .range = "10.87.0.0/24",
                                 .tap_owner = getuid(),
                                 .linger_ms = linger_ms,
                                 .segment_ports = segment_ports,
                                 .on_open = on_open};
    assert_int_equal(un_loop_new(&w->loop, NULL), 0);
    spec.loop = w->loop;
    assert_int_equal(net_open(&spec, &w->np, NULL), 0);
}

void world_open_with(struct world *w, uint32_t linger_ms, uint32_t segment_ports)
{
    open_as(w, state_dir, linger_ms, segment_ports);
}

void world_open_as(struct world *w, const char *dir)
{
    open_as(w, dir, 0, 0);
}

void world_open(struct world *w)
{
    world_open_with(w, 0, 0);
}

static void stop(void *arg)
{
    un_loop_stop(arg);
}

void world_run(struct world *w, uint64_t us)
{
    struct un_timer tick;
    un_timer_init(&tick, w->loop, stop, w->loop);
    assert_int_equal(un_timer_arm_in(&tick, us), 0);
    un_loop_run(w->loop);
    un_timer_cancel(&tick);
}

void world_wait_until_none_is_idle(struct world *w)
{
    struct net_stats stats = {.idle = 1};
    for (int i = 0; i < 1000 && stats.idle; i++) {
        world_run(w, 20000);
        net_get_stats(w->np, &stats);
    }
    assert_int_equal(stats.idle, 0);
}

void wait_until_mended(struct world *w, uint64_t times)
{
    struct net_stats stats = {.mended = 0};
    for (int i = 0; i < 1000 && stats.mended < times; i++) {
        world_run(w, 20000);
        net_get_stats(w->np, &stats);
    }
    assert_true(stats.mended >= times);
}

void world_settle(struct world *w, struct net_link *link)
{
    static const struct net_wish wishes[] = {{.key = "settled"}, {.key = "settling"}};
    for (int i = 0; i < 6; i++) {
        w->waiting++;
        assert_int_equal(net_change(link, &wishes[i % 2], on_attach, w, &w->err), 0);
        wait_for(w);
        assert_int_equal(w->rc, 0);
    }
}

void world_close(struct world *w)
{
    net_close(w->np);
    un_loop_free(w->loop);
}

char *output_of(const char *command)
{
    FILE *f = popen(command, "r");
    assert_non_null(f);
    struct un_buf text = {0};
    char piece[4096];
    size_t n;
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0) {
        un_buf_append(&text, piece, n);
    }
    assert_int_equal(pclose(f), 0);
    return un_buf_steal_str(&text);
}

char *host_state(void)
{
    return output_of("ip -o link | sed 's/<.*//'; ip -o addr; ip route show "
                     "table all | sed 's/ "
                     "linkdown//'; ip rule;"
                     " nft list ruleset; find /proc/sys/net -type f ! -name '*secret' ! -name"
                     " '*fastopen_key' ! -path '*/conf/u[bt]*' ! -path '*/neigh/u[bt]*' | sort |"
                     " xargs grep -H . 2>/dev/null || true");
}

void command(const char *text)
{
    assert_int_equal(system(text), 0);
}

int tap_open(const char *name)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, TUNSETIFF, &req), 0);
    return fd;
}

static void put_ethernet(struct frame *f, const char *to, const char *from, uint16_t type)
{
    const char *const macs[] = {to, from};
    for (int m = 0; m < 2; m++) {
        unsigned b[6];
        assert_int_equal(sscanf(macs[m], "%x:%x:%x:%x:%x:%x", b, b + 1, b + 2, b + 3, b + 4, b + 5),
                         6);
        for (int i = 0; i < 6; i++) {
            f->data[6 * m + i] = (uint8_t)b[i];
        }
    }
    f->data[12] = (uint8_t)(type >> 8);
    f->data[13] = (uint8_t)type;
    f->len = 14;
}

struct frame arp_request(const char *mac, const char *ip, const char *wanted)
{
    struct frame f = {.len = 0};
    put_ethernet(&f, "ff:ff:ff:ff:ff:ff", mac, ETH_P_ARP);
    static const uint8_t head[] = {0, 1, 8, 0, 6, 4, 0, 1};
    memcpy(f.data + 14, head, sizeof(head));
    memcpy(f.data + 22, f.data + 6, 6);
    inet_pton(AF_INET, ip, f.data + 28);
    inet_pton(AF_INET, wanted, f.data + 38);
    f.len = 60;
    return f;
}

static uint16_t checksum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i += 2) {
        sum += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

struct frame ipv4(const char *to_mac, const struct net_link *from, const char *to, uint8_t proto,
                  const uint8_t *payload, size_t len)
{
    struct frame f = {.len = 0};
    put_ethernet(&f, to_mac, from->mac, ETH_P_IP);
    uint8_t *ip = f.data + 14;
    ip[0] = 0x45;
    ip[2] = (uint8_t)((20 + len) >> 8);
    ip[3] = (uint8_t)(20 + len);
    ip[8] = 64;
    ip[9] = proto;
    inet_pton(AF_INET, from->ip, ip + 12);
    inet_pton(AF_INET, to, ip + 16);
    uint16_t sum = checksum(ip, 20, 0);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
    memcpy(ip + 20, payload, len);
    f.len = 34 + len;
    return f;
}

struct frame tcp_at(const char *to_mac, const struct net_link *from, const char *to, uint8_t flags,
                    const uint32_t seq_ack[2])
{
    uint8_t seg[20] = {12345 >> 8, 12345 & 255, 4444 >> 8, 4444 & 255};
    for (int i = 0; i < 8; i++) {
        seg[4 + i] = (uint8_t)(seq_ack[i / 4] >> (24 - 8 * (i % 4)));
    }
    seg[12] = 0x50;
    seg[13] = flags;
    seg[14] = 4;
    uint8_t pseudo[12] = {0};
    inet_pton(AF_INET, from->ip, pseudo);
    inet_pton(AF_INET, to, pseudo + 4);
    pseudo[9] = IPPROTO_TCP;
    pseudo[11] = sizeof(seg);
    uint16_t sum = checksum(seg, sizeof(seg), (uint16_t)~checksum(pseudo, sizeof(pseudo), 0));
    seg[16] = (uint8_t)(sum >> 8);
    seg[17] = (uint8_t)sum;
    return ipv4(to_mac, from, to, IPPROTO_TCP, seg, sizeof(seg));
}

struct frame tcp(const char *to_mac, const struct net_link *from, const char *to, uint8_t flags)
{
    static const uint32_t ones[] = {1, 1};
    return tcp_at(to_mac, from, to, flags, ones);
}

struct frame echo_request(const char *to_mac, const struct net_link *from, const char *to)
{
    uint8_t icmp[8] = {8, 0, 0xf7, 0xfd, 0, 1, 0, 1}; /* RFC 792 */
    return ipv4(to_mac, from, to, IPPROTO_ICMP, icmp, sizeof(icmp));
}

void send_frame(int fd, struct frame f)
{
    assert_int_equal(write(fd, f.data, f.len), (ssize_t)f.len);
}

static bool comes_within(int ms, int fd, uint16_t type, size_t at, uint8_t value, struct frame *ret)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, ms) > 0) {
        struct frame f;
        ssize_t n = read(fd, f.data, sizeof(f.data));
        if (n > (ssize_t)at && f.data[12] == type >> 8 && f.data[13] == (type & 255) &&
            f.data[at] == value) {
            f.len = (size_t)n;
            if (ret) {
                *ret = f;
            }
            return true;
        }
    }
    return false;
}

bool comes(int fd, uint16_t type, size_t at, uint8_t value, struct frame *ret)
{
    return comes_within(30000, fd, type, at, value, ret);
}

bool comes_at_once(int fd, uint16_t type, size_t at, uint8_t value, struct frame *ret)
{
    return comes_within(300, fd, type, at, value, ret);
}

void gateway_mac(int fd, const struct net_link *l, char ret[NET_MAC_SIZE])
{
    struct frame f;
    /* A new port begins to forward some moments after its carrier came. */
    for (int i = 0; i < 100; i++) {
        send_frame(fd, arp_request(l->mac, l->ip, l->gateway));
        if (comes_at_once(fd, ETH_P_ARP, 21, 2, &f)) {
            snprintf(ret, NET_MAC_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", f.data[6], f.data[7],
                     f.data[8], f.data[9], f.data[10], f.data[11]);
            /* Late answers to the questions before are no answers to what is asked next. */
            send_frame(fd, echo_request(ret, l, l->gateway));
            assert_true(comes(fd, ETH_P_IP, 34, 0, NULL));
            return;
        }
    }
    fail_msg("the gateway does not answer ARP");
}

int enter_namespace(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    snprintf(state_dir, sizeof(state_dir), "/nonexistent/unid-netplumb-test-%d", (int)getpid());
    if (unshare(CLONE_NEWNET) < 0) {
        print_message("no network namespace (%s): the kernel's side is skipped\n", strerror(errno));
        return 0;
    }
    if (!net_available(&err)) {
        print_message("%s: the kernel's side is skipped\n", err.text);
        return 0;
    }
    /* With no address that the kernel makes, and tries out for a while. */
    command("ip link set lo up && ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0"
            " && ip link set br0 addrgenmode none && ip addr add fd99::1/64 dev br0 nodad"
            " && ip link set br0 up && ip tuntap add utap0 mode tap && ip link set utap0 master br0"
            " && nft add table inet filter"
            " && nft add chain inet filter input '{ type filter hook input priority 0; }'"
            " && nft add table bridge theirs");
    have_namespace = true;
    return 0;
}
