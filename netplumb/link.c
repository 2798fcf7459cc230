/* link.c - see link.h. */
#include "netplumb/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

/* Registered ports, below those that the kernel gives by itself (ip_local_port_range(7)). */
enum { DHCP_PORT_FIRST = 20000, DHCP_PORTS = 10000 };

static inline void link_putp(struct rtnl_link **l)
{
    if (*l) {
        rtnl_link_put(*l);
    }
}
#define autolink __attribute__((cleanup(link_putp))) struct rtnl_link

int net_nl_error(struct un_error *err, int code, const char *what, const char *name)
{
    static const struct {
        int code, err;
    } codes[] = {
        {NLE_PERM, -EPERM},        {NLE_EXIST, -EEXIST},    {NLE_NOMEM, -ENOMEM},
        {NLE_NODEV, -ENODEV},      {NLE_BUSY, -EBUSY},      {NLE_OBJ_NOTFOUND, -ENOENT},
        {NLE_OPNOTSUPP, -ENOTSUP}, {NLE_NOACCESS, -EACCES},
    };
    int rc = -EIO;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].code == -code) {
            rc = codes[i].err;
        }
    }
    return un_error_set(err, rc, "%s %s: %s", what, name, nl_geterror(code));
}

/* The result of a removal: what is not there is removed. */
static int unless_gone(int code)
{
    return code == -NLE_NODEV || code == -NLE_OBJ_NOTFOUND ? 0 : code;
}

/* FNV-1a, 32 bits (http://www.isthe.com/chongo/tech/comp/fnv/): a name, not a secret. */
static uint32_t hash(const char *s)
{
    uint32_t h = UINT32_C(2166136261);
    for (; *s; s++) {
        h = (h ^ (unsigned char)*s) * UINT32_C(16777619);
    }
    return h;
}

void net_names_init(struct net_names *n, const char *state_dir)
{
    uint32_t h = hash(state_dir);
    snprintf(n->tag, sizeof(n->tag), "%08x", h);
    n->dhcp_port = (uint16_t)(DHCP_PORT_FIRST + h % DHCP_PORTS);
    snprintf(n->bridges, sizeof(n->bridges), "ub-%s", n->tag);
    snprintf(n->mark, sizeof(n->mark), "unid %s", n->tag);
}

void net_names_bridge(const struct net_names *n, uint32_t segment, char ret[NET_NAME_SIZE])
{
    snprintf(ret, NET_NAME_SIZE, "ub-%s%x", n->tag, segment & 0xffff);
}

void net_names_tap(const struct net_names *n, uint32_t guest, char ret[NET_NAME_SIZE])
{
    snprintf(ret, NET_NAME_SIZE, "ut%s%x", n->tag, guest & 0xfffff);
}

int net_socket_new(int protocol, struct nl_sock **ret, struct un_error *err)
{
    struct nl_sock *nl = nl_socket_alloc();
    if (!nl) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = nl_connect(nl, protocol);
    if (rc < 0) {
        nl_socket_free(nl);
        return net_nl_error(err, rc, "connect to", "the kernel's netlink");
    }
    *ret = nl;
    return 0;
}

static int link_change(struct nl_sock *nl, const char *name, struct rtnl_link *change,
                       struct un_error *err)
{
    autolink *orig = rtnl_link_alloc();
    if (!orig) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rtnl_link_set_name(orig, name);
    rtnl_link_set_name(change, name);
    int rc = rtnl_link_change(nl, orig, change, 0);
    return rc < 0 ? net_nl_error(err, rc, "set up", name) : 0;
}

/* Each link that is up with IPv6 has a route of its own (ff00::/8), and the kernel goes through all of
 * them when one goes up: 0.1 ms beside 500. The firewall stops IPv6 at the tap in any case, so it does not
 * matter where this cannot be written. */
static void leave_ipv6(const char *name)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    un_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) < 0) {
        un_log(UN_LOG_DEBUG, "IPv6 stays on at a link", "link", name);
    }
}

/* Marks a link as ours, gives it its master (0: none) and keeps IPv6 from it. */
static int link_claim(struct nl_sock *nl, const char *name, const char *mark, int master,
                      struct un_error *err)
{
    autolink *claim = rtnl_link_alloc();
    if (!claim ||
        rtnl_link_inet6_set_addr_gen_mode(claim, rtnl_link_inet6_str2addrgenmode("none")) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rtnl_link_set_ifalias(claim, mark);
    if (master) {
        rtnl_link_set_master(claim, master);
    }
    int rc = link_change(nl, name, claim, err);
    if (rc == 0) {
        leave_ipv6(name);
    }
    return rc;
}

static int link_up(struct nl_sock *nl, const char *name, bool up, struct un_error *err)
{
    autolink *change = rtnl_link_alloc();
    if (!change) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (up) {
        rtnl_link_set_flags(change, IFF_UP);
    } else {
        rtnl_link_unset_flags(change, IFF_UP);
    }
    return link_change(nl, name, change, err);
}

static int link_start(struct nl_sock *nl, const char *name, const char *mark, int master,
                      struct un_error *err)
{
    int rc = link_claim(nl, name, mark, master, err);
    return rc < 0 ? rc : link_up(nl, name, true, err);
}

static int add_address(struct nl_sock *nl, int index, const char *ip, unsigned prefix,
                       struct un_error *err)
{
    struct rtnl_addr *addr = rtnl_addr_alloc();
    struct nl_addr *local = NULL;
    int rc = addr ? nl_addr_parse(ip, AF_INET, &local) : -NLE_NOMEM;
    if (rc == 0) {
        nl_addr_set_prefixlen(local, (int)prefix);
        rtnl_addr_set_ifindex(addr, index);
        rc = rtnl_addr_set_local(addr, local);
    }
    if (rc == 0) {
        rc = rtnl_addr_add(nl, addr, 0);
    }
    nl_addr_put(local);
    if (addr) {
        rtnl_addr_put(addr);
    }
    return rc < 0 ? net_nl_error(err, rc, "give the bridge the address", ip) : 0;
}

/* A route to `ip`/`prefix` by the link itself. NULL: out of memory. */
static struct rtnl_route *route_of(int index, const char *ip, unsigned prefix, bool local)
{
    struct rtnl_route *route = rtnl_route_alloc();
    struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
    struct nl_addr *dst = NULL;
    int rc = route && hop ? nl_addr_parse(ip, AF_INET, &dst) : -NLE_NOMEM;
    if (rc == 0) {
        nl_addr_set_prefixlen(dst, (int)prefix);
        rtnl_route_set_family(route, AF_INET);
        rtnl_route_set_type(route, local ? RTN_LOCAL : RTN_UNICAST);
        rtnl_route_set_table(route, local ? RT_TABLE_LOCAL : RT_TABLE_MAIN);
        rtnl_route_set_scope(route, local ? RT_SCOPE_HOST : RT_SCOPE_LINK);
        rtnl_route_nh_set_ifindex(hop, index);
        rtnl_route_add_nexthop(route, hop); /* takes it */
        hop = NULL;
        rc = rtnl_route_set_dst(route, dst);
    }
    nl_addr_put(dst);
    if (hop) {
        rtnl_route_nh_free(hop);
    }
    if (rc < 0) {
        rtnl_route_put(route);
        return NULL;
    }
    return route;
}

/* Where a route leads; false for the default. */
static bool destination(struct rtnl_route *route, uint32_t *ret_addr, unsigned *ret_prefix)
{
    struct nl_addr *dst = rtnl_route_get_dst(route);
    struct in_addr in;
    if (!dst || nl_addr_get_len(dst) != sizeof(in)) {
        return false;
    }
    memcpy(&in, nl_addr_get_binary_addr(dst), sizeof(in));
    *ret_addr = ntohl(in.s_addr);
    *ret_prefix = nl_addr_get_prefixlen(dst);
    return *ret_prefix > 0;
}

static void name_link(struct rtnl_route *route, char ret[IF_NAMESIZE])
{
    struct rtnl_nexthop *hop = rtnl_route_nexthop_n(route, 0);
    snprintf(ret, IF_NAMESIZE, "no link");
    if (hop) {
        (void)if_indextoname((unsigned)rtnl_route_nh_get_ifindex(hop), ret); /* it may be gone */
    }
}

int net_range_check(struct nl_sock *nl, const struct net_names *n, const struct net_range *range,
                    char ret_wider[NET_ROUTE_SIZE], struct un_error *err)
{
    struct nl_cache *cache = NULL;
    char inner[NET_ROUTE_SIZE] = "", ip[NET_IP_SIZE], link[IF_NAMESIZE];
    unsigned widest = 33, narrowest = 0, prefix; /* of those inside; of those around */
    uint32_t addr;
    int rc = rtnl_route_alloc_cache(nl, AF_INET, 0, &cache);
    if (rc < 0) {
        return net_nl_error(err, rc, "list", "routes");
    }
    ret_wider[0] = '\0';
    for (struct nl_object *o = nl_cache_get_first(cache); o; o = nl_cache_get_next(o)) {
        struct rtnl_route *route = (struct rtnl_route *)o;
        if (!destination(route, &addr, &prefix)) {
            continue;
        }
        bool is_inside = prefix >= range->prefix && net_range_contains(range, addr);
        bool is_around = prefix < range->prefix && (addr ^ range->base) >> (32 - prefix) == 0;
        if (!(is_inside && prefix < widest) && !(is_around && prefix > narrowest)) {
            continue;
        }
        name_link(route, link);
        if (strncmp(link, n->bridges, strlen(n->bridges)) == 0) {
            continue; /* ours */
        }
        *(is_inside ? &widest : &narrowest) = prefix;
        snprintf(is_inside ? inner : ret_wider, NET_ROUTE_SIZE, "%s/%u by %s",
                 net_addr_text(addr, ip), prefix, link);
    }
    nl_cache_free(cache);
    return inner[0] ? un_error_set(err, -EADDRINUSE,
                                   "machines.range %s/%u is in use: the host has %s; set another",
                                   net_addr_text(range->base, ip), range->prefix, inner)
                    : 0;
}

/* As `ip route append local FIRST/PREFIX dev BRIDGE table local`: the kernel answers ARP for these
 * addresses, takes packets to them, by whatever link, and lets sockets be bound to them. */
static int add_local_route(struct nl_sock *nl, int index, const struct net_range *range,
                           struct un_error *err)
{
    char text[NET_IP_SIZE];
    net_addr_text(range->names_first, text);
    struct rtnl_route *route = route_of(index, text, range->names_prefix, true);
    if (!route) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = rtnl_route_add(nl, route, NLM_F_CREATE | NLM_F_APPEND);
    rtnl_route_put(route);
    return rc < 0 ? net_nl_error(err, rc, "give the bridge the virtual addresses from", text) : 0;
}

int net_bridge_make(struct nl_sock *nl, const struct net_names *n, const char *name,
                    const struct net_range *range, int *ret_index, struct un_error *err)
{
    char gateway[NET_IP_SIZE];
    net_range_gateway(range, gateway);
    autolink *bridge = rtnl_link_bridge_alloc();
    if (!bridge) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rtnl_link_set_name(bridge, name);
    /* Else it takes the lowest of its ports', and with each change of that the kernel forgets all
     * neighbours, and guests send to one that is nobody's. */
    struct nl_addr *own = NULL;
    char mac[NET_MAC_SIZE];
    net_addr_mac(range->base + 1, mac);
    if (nl_addr_parse(mac, AF_LLC, &own) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rtnl_link_set_addr(bridge, own);
    nl_addr_put(own);
    int rc = rtnl_link_add(nl, bridge, NLM_F_CREATE | NLM_F_EXCL);
    if (rc < 0) {
        return net_nl_error(err, rc, "make the bridge", name);
    }
    int index = (int)if_nametoindex(name);
    rc = link_start(nl, name, n->mark, 0, err);
    if (rc == 0) {
        rc = add_address(nl, index, gateway, range->prefix, err);
    }
    if (rc == 0) {
        rc = add_local_route(nl, index, range, err);
    }
    if (rc < 0) {
        net_link_remove(nl, name, NULL);
        return rc;
    }
    *ret_index = index;
    return 0;
}

/* A port's flags (IFLA_BRPORT_*, linux/if_link.h), for which libnl 3.7 has no calls: it sees the bridge itself and no
 * other isolated port; what it sends teaches the bridge nothing, and of what is for a MAC that the bridge does not know it
 * gets nothing. */
static int port_restrict(struct nl_sock *nl, const char *tap, int index, struct un_error *err)
{
    struct nl_msg *msg = nlmsg_alloc_simple(RTM_SETLINK, 0);
    struct ifinfomsg info = {.ifi_family = AF_BRIDGE, .ifi_index = index};
    int rc = msg ? nlmsg_append(msg, &info, sizeof(info), NLMSG_ALIGNTO) : -NLE_NOMEM;
    struct nlattr *port = rc == 0 ? nla_nest_start(msg, IFLA_PROTINFO | NLA_F_NESTED) : NULL;
    if (!port || nla_put_u8(msg, IFLA_BRPORT_ISOLATED, 1) < 0 ||
        nla_put_u8(msg, IFLA_BRPORT_LEARNING, 0) < 0 ||
        nla_put_u8(msg, IFLA_BRPORT_UNICAST_FLOOD, 0) < 0) {
        nlmsg_free(msg);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    nla_nest_end(msg, port);
    rc = nl_send_sync(nl, msg); /* frees it */
    return rc < 0 ? net_nl_error(err, rc, "isolate", tap) : 0;
}

/* As `bridge fdb replace MAC dev TAP master static`: the bridge sends there what is for the guest. It goes with the
 * port. */
static int port_name_guest(struct nl_sock *nl, const struct net_link *link, int index,
                           struct un_error *err)
{
    struct rtnl_neigh *entry = rtnl_neigh_alloc();
    struct nl_addr *mac = NULL;
    int rc = entry ? nl_addr_parse(link->mac, AF_LLC, &mac) : -NLE_NOMEM;
    if (rc == 0) {
        rtnl_neigh_set_family(entry, AF_BRIDGE);
        rtnl_neigh_set_ifindex(entry, index);
        rtnl_neigh_set_lladdr(entry, mac);
        rtnl_neigh_set_flags(entry, NTF_MASTER);
        rtnl_neigh_set_state(entry, NUD_NOARP);
        rc = rtnl_neigh_add(nl, entry, NLM_F_CREATE | NLM_F_REPLACE);
    }
    nl_addr_put(mac);
    rtnl_neigh_put(entry);
    return rc < 0 ? net_nl_error(err, rc, "tell the bridge of", link->tap) : 0;
}

static int port_make(struct nl_sock *nl, const struct net_link *link, struct un_error *err)
{
    int index = (int)if_nametoindex(link->tap);
    int rc = port_restrict(nl, link->tap, index, err);
    return rc < 0 ? rc : port_name_guest(nl, link, index, err);
}

/* Gives the tap's descriptor; the tap goes with it unless it was made persistent. */
static int tun_open(const char *tap, uid_t owner, int *ret_fd, struct un_error *err)
{
    un_autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return un_error_errno(err, -errno, "open /dev/net/tun");
    }
    struct ifreq req = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL)};
    snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", tap);
    if (ioctl(fd, TUNSETIFF, &req) < 0 || ioctl(fd, TUNSETOWNER, (unsigned long)owner) < 0) {
        return un_error_errno(err, -errno, "make the tap %s", tap);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int net_tap_make(struct nl_sock *nl, const struct net_names *n, const struct net_link *link,
                 uid_t owner, int bridge, struct un_error *err)
{
    un_autoclose int fd = -1;
    int rc = tun_open(link->tap, owner, &fd, err);
    if (rc == 0) {
        rc = link_start(nl, link->tap, n->mark, bridge, err);
    }
    if (rc == 0) {
        rc = port_make(nl, link, err);
    }
    if (rc == 0 && ioctl(fd, TUNSETPERSIST, 1UL) < 0) {
        rc = un_error_errno(err, -errno, "keep the tap %s", link->tap);
    }
    return rc;
}

int net_tap_join(struct nl_sock *nl, const struct net_names *n, const struct net_link *link,
                 int bridge, struct un_error *err)
{
    /* Its guest runs: nothing passes before it is isolated. */
    int rc = link_up(nl, link->tap, false, err);
    rc = rc < 0 ? rc : link_claim(nl, link->tap, n->mark, bridge, err);
    rc = rc < 0 ? rc : port_make(nl, link, err);
    return rc < 0 ? rc : link_up(nl, link->tap, true, err);
}

static struct rtnl_neigh *neighbour_of(int bridge, const struct net_link *link)
{
    struct rtnl_neigh *neigh = rtnl_neigh_alloc();
    struct nl_addr *ip = NULL, *mac = NULL;
    if (neigh && nl_addr_parse(link->ip, AF_INET, &ip) == 0 &&
        nl_addr_parse(link->mac, AF_LLC, &mac) == 0) {
        rtnl_neigh_set_ifindex(neigh, bridge);
        rtnl_neigh_set_dst(neigh, ip);
        rtnl_neigh_set_lladdr(neigh, mac);
        rtnl_neigh_set_state(neigh, NUD_PERMANENT);
    } else if (neigh) {
        rtnl_neigh_put(neigh);
        neigh = NULL;
    }
    nl_addr_put(ip);
    nl_addr_put(mac);
    return neigh;
}

int net_guest_add(struct nl_sock *nl, int bridge, const struct net_link *link, struct un_error *err)
{
    struct rtnl_neigh *neigh = neighbour_of(bridge, link);
    struct rtnl_route *route = route_of(bridge, link->ip, 32, false);
    int rc = neigh && route ? rtnl_neigh_add(nl, neigh, NLM_F_CREATE | NLM_F_REPLACE) : -NLE_NOMEM;
    if (rc == 0) {
        rc = rtnl_route_add(nl, route, NLM_F_CREATE | NLM_F_EXCL);
    }
    rtnl_neigh_put(neigh);
    rtnl_route_put(route);
    return rc < 0 ? net_nl_error(err, rc, "make known", link->ip) : 0;
}

int net_guest_remove(struct nl_sock *nl, int bridge, const struct net_link *link,
                     struct un_error *err)
{
    struct rtnl_neigh *neigh = neighbour_of(bridge, link);
    struct rtnl_route *route = route_of(bridge, link->ip, 32, false);
    int rc = -NLE_NOMEM;
    if (neigh && route) {
        int route_rc = unless_gone(rtnl_route_delete(nl, route, 0));
        rc = unless_gone(rtnl_neigh_delete(nl, neigh, 0));
        rc = rc < 0 ? rc : route_rc;
    }
    rtnl_neigh_put(neigh);
    rtnl_route_put(route);
    return rc < 0 ? net_nl_error(err, rc, "forget", link->ip) : 0;
}

int net_link_remove(struct nl_sock *nl, const char *name, struct un_error *err)
{
    autolink *link = rtnl_link_alloc();
    if (!link) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rtnl_link_set_name(link, name);
    int rc = unless_gone(rtnl_link_delete(nl, link));
    return rc < 0 ? net_nl_error(err, rc, "remove", name) : 0;
}

/* By name; the mark is set right after a link is made, so a link without any may be ours as well. */
static bool is_ours(const struct net_names *n, const char *name, const char *alias)
{
    size_t len = strlen(n->bridges);
    if (strncmp(name, n->bridges, len) != 0) {
        len = strlen(n->tag) + 2;
        if (strncmp(name, "ut", 2) != 0 || strncmp(name + 2, n->tag, len - 2) != 0) {
            return false;
        }
    }
    return name[len + strspn(name + len, "0123456789abcdef")] == '\0' &&
           (!alias || !*alias || strcmp(alias, n->mark) == 0);
}

int net_link_remove_all(struct nl_sock *nl, const struct net_names *n, struct un_error *err)
{
    struct nl_cache *cache = NULL;
    int rc = rtnl_link_alloc_cache(nl, AF_UNSPEC, &cache), removed = 0;
    if (rc < 0) {
        return net_nl_error(err, rc, "list", "links");
    }
    rc = 0;
    for (struct nl_object *o = nl_cache_get_first(cache); o && rc == 0; o = nl_cache_get_next(o)) {
        struct rtnl_link *link = (struct rtnl_link *)o;
        const char *name = rtnl_link_get_name(link), *alias = rtnl_link_get_ifalias(link);
        if (name && is_ours(n, name, alias)) {
            rc = net_link_remove(nl, name, err);
            removed += rc == 0;
        }
    }
    nl_cache_free(cache);
    return rc < 0 ? rc : removed;
}
