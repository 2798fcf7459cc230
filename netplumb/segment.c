/* segment.c - see segment.h. */
#include "netplumb/segment.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

int net_segments_init(struct net_segments *s, const struct net_names *names,
                      const struct net_range *range, uint32_t ports, struct un_error *err)
{
    ports = ports ? ports : NET_SEGMENT_PORTS;
    uint32_t count = (range->size - 1) / ports + 1;
    struct net_segment *all = calloc(count, sizeof(*all));
    if (!all) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *s = (struct net_segments){
        .names = names, .range = range, .all = all, .count = count, .ports = ports};
    return 0;
}

void net_segments_done(struct net_segments *s)
{
    free(s->all);
    s->all = NULL;
}

void net_segments_forget(struct net_segments *s)
{
    memset(s->all, 0, s->count * sizeof(*s->all));
}

static void name_of(const struct net_segments *s, const struct net_segment *segment,
                    char ret[NET_NAME_SIZE])
{
    net_names_bridge(s->names, (uint32_t)(segment - s->all), ret);
}

/* Rules first: no guest is ever without them. */
static int make(const struct net_segments *s, struct nl_sock *nl, struct net_rules *rules,
                struct net_segment *segment, struct un_error *err)
{
    char name[NET_NAME_SIZE];
    name_of(s, segment, name);
    int rc = net_rules_add_bridge(rules, s->names, name, err);
    if (rc < 0) {
        return rc;
    }
    rc = net_bridge_make(nl, s->names, name, s->range, &segment->bridge, err);
    if (rc < 0) {
        net_rules_remove_bridge(rules, s->names, name, NULL);
    }
    return rc;
}

static int drop(const struct net_segments *s, struct nl_sock *nl, struct net_rules *rules,
                struct net_segment *segment, struct un_error *err)
{
    char name[NET_NAME_SIZE];
    name_of(s, segment, name);
    int rc = net_link_remove(nl, name, err);
    if (rc < 0) {
        return rc; /* it is tried again when the next tap leaves */
    }
    segment->bridge = 0;
    return net_rules_remove_bridge(rules, s->names, name, err);
}

static bool has_room(const struct net_segments *s, const struct net_segment *segment)
{
    return segment->bridge && segment->taps < s->ports;
}

int net_segments_join(struct net_segments *s, struct nl_sock *nl, struct net_rules *rules,
                      struct net_segment **ret, struct un_error *err)
{
    struct net_segment *found = NULL, *unmade = NULL, *end = s->all + s->count;
    for (struct net_segment *it = s->all; it < end && !found; it++) {
        if (has_room(s, it)) {
            found = it;
        } else if (!it->bridge && !unmade) {
            unmade = it;
        }
    }
    if (!found && !unmade) { /* there are no more guests than ports */
        return un_error_set(err, -ENOSPC, "all %u bridges are full", s->count);
    }
    int rc = found ? 0 : make(s, nl, rules, unmade, err);
    if (rc < 0) {
        return rc;
    }
    *ret = found ? found : unmade;
    (*ret)->taps++;
    return 0;
}

int net_segments_leave(struct net_segments *s, struct nl_sock *nl, struct net_rules *rules,
                       struct net_segment *segment, struct un_error *err)
{
    uint32_t with_room = 0;
    int rc = 0;
    segment->taps--;
    for (const struct net_segment *it = s->all; it < s->all + s->count; it++) {
        with_room += has_room(s, it);
    }
    /* The later ones first, as the earlier ones are filled first. */
    for (uint32_t i = s->count; i > 0 && with_room > 1 && rc == 0; i--) {
        struct net_segment *it = &s->all[i - 1];
        if (it->bridge && it->taps == 0) {
            rc = drop(s, nl, rules, it, err);
            with_room--;
        }
    }
    return rc;
}

int net_segments_name(const struct net_segments *s, struct net_rules *rules, struct un_error *err)
{
    char name[NET_NAME_SIZE];
    int rc = 0;
    for (const struct net_segment *it = s->all; it < s->all + s->count && rc == 0; it++) {
        if (it->bridge) {
            name_of(s, it, name);
            rc = net_rules_add_bridge(rules, s->names, name, err);
        }
    }
    return rc;
}

bool net_segments_there(const struct net_segments *s, const struct net_segment *segment)
{
    char name[NET_NAME_SIZE];
    name_of(s, segment, name);
    return (int)if_nametoindex(name) == segment->bridge;
}

int net_segments_remake(const struct net_segments *s, struct nl_sock *nl,
                        struct net_segment *segment, struct un_error *err)
{
    char name[NET_NAME_SIZE];
    name_of(s, segment, name);
    return net_bridge_make(nl, s->names, name, s->range, &segment->bridge, err);
}
