/* segment.h - which bridge a guest's tap is a port of. Private; the worker thread.
 *
 * The kernel goes through all ports of a bridge when one is added, goes up or goes away, so a bridge
 * takes few: NET_SEGMENT_PORTS. A segment is such a bridge. The first with a free port gets the next tap,
 * and is made if none has one. One that has no tap left is removed as soon as another has a free port,
 * so that a guest that comes and goes beside full segments does not make a bridge each time; the last
 * goes by net_link_remove_all.
 *
 *     (none) --join, none other has room--> MADE, 0 < taps <= ports
 *       ^                                   |  ^
 *       |                              leave|  |join
 *       +--- another has room --- MADE, no tap
 *
 * Each bridge has the gateway's address and MAC, so that a guest's settings do not tell which it is in; a
 * route to each guest does (net_guest_add).
 */
#ifndef UNID_NETPLUMB_SEGMENT_H
#define UNID_NETPLUMB_SEGMENT_H

#include <stdbool.h>

#include "common/error.h"
#include "netplumb/addr.h"
#include "netplumb/link.h"
#include "netplumb/rules.h"

struct net_segment {
    int bridge; /* index of the link; 0: none is made */
    uint32_t taps;
};

struct net_segments {
    const struct net_names *names;
    const struct net_range *range;
    struct net_segment *all;
    uint32_t count, ports; /* segments that there may be; taps of each */
};

/* Changes nothing yet. Keeps `names` and `range`, which must last as long; `ports`: see netplumb_spec.
 * -ENOMEM. */
int net_segments_init(struct net_segments *s, const struct net_names *names,
                      const struct net_range *range, uint32_t ports, struct un_error *err);
void net_segments_done(struct net_segments *s); /* the bridges stay; all zero is allowed */

/* Gives a segment with room for one more tap, whose bridge is there and in the rules. The tables must
 * be. -EEXIST: a foreign link has the name that the next bridge needs. */
int net_segments_join(struct net_segments *s, struct nl_sock *nl, struct net_rules *rules,
                      struct net_segment **ret, struct un_error *err);
/* A tap has left the segment. Removes what has become superfluous by that. */
int net_segments_leave(struct net_segments *s, struct nl_sock *nl, struct net_rules *rules,
                       struct net_segment *segment, struct un_error *err);
/* Puts all bridges that are made into the rules, which have none. */
int net_segments_name(const struct net_segments *s, struct net_rules *rules, struct un_error *err);
/* Whether the bridge of a segment that is made is still the one that was made. */
bool net_segments_there(const struct net_segments *s, const struct net_segment *segment);
/* Makes the bridge of such a segment again; it has no ports. On failure the old one's index stays. */
int net_segments_remake(const struct net_segments *s, struct nl_sock *nl,
                        struct net_segment *segment, struct un_error *err);
/* All links and tables have been removed. */
void net_segments_forget(struct net_segments *s);

#endif
