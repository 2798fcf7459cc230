/* mend.c - see mend.h. */
#include "netplumb/mend.h"

#include <errno.h>

#include "common/cleanup.h"
#include "common/log.h"

enum { AGAIN_US = 1000000 };

/* The tables anew: empty, so that they refuse everything, and then what they let through. */
static int make_rules(const struct net_mend *m, struct un_error *err)
{
    int rc = net_rules_install(m->rules, m->names, m->range, err);
    rc = rc < 0 ? rc : net_segments_name(m->segments, m->rules, err);
    un_list_for_each (it, m->made) {
        const struct net_made *made = un_list_entry(it, struct net_made, node);
        rc = rc < 0 ? rc : net_rules_add_guest(m->rules, m->names, made->link, made->policy, err);
    }
    return rc;
}

/* The taps of a bridge that is new, and the routes to their guests. */
static int join_all(const struct net_mend *m, const struct net_segment *segment,
                    struct un_error *err)
{
    int rc = 0;
    un_list_for_each (it, m->made) {
        const struct net_made *made = un_list_entry(it, struct net_made, node);
        if (made->segment != segment || rc < 0) {
            continue;
        }
        rc = net_tap_join(m->nl, m->names, made->link, segment->bridge, err);
        net_guest_remove(m->nl, segment->bridge, made->link, NULL);
        rc = rc < 0 ? rc : net_guest_add(m->nl, segment->bridge, made->link, err);
        rc = rc == -ENODEV ? 0 : rc; /* the tap is gone as well, and its guest with it */
    }
    return rc;
}

int net_mend(const struct net_mend *m, struct un_error *err)
{
    int what = 0, rc = 0;
    if (m->again || !net_rules_intact(m->rules, m->names)) {
        rc = make_rules(m, err);
        what |= NET_MENDED_RULES;
    }
    for (uint32_t i = 0; i < m->segments->count && rc == 0; i++) {
        struct net_segment *segment = &m->segments->all[i];
        bool there = net_segments_there(m->segments, segment);
        if (!segment->bridge || (there && !m->again)) {
            continue;
        }
        rc = there ? 0 : net_segments_remake(m->segments, m->nl, segment, err);
        rc = rc < 0 ? rc : join_all(m, segment, err);
        what |= NET_MENDED_BRIDGES;
    }
    return rc < 0 ? rc : what;
}

/* --- when -------------------------------------------------------------------------------------- */

static int run(struct un_job *job, struct un_error *err)
{
    struct net_mender *m = un_container_of(job, struct net_mender, job);
    m->what = m->look(m->arg, err);
    return m->what < 0 ? m->what : 0;
}

static void on_looked(struct un_job *job, int rc, const struct un_error *err)
{
    struct net_mender *m = un_container_of(job, struct net_mender, job);
    m->is_busy = false;
    if (rc < 0) {
        un_log(UN_LOG_ERROR,
               "machines' network was changed by another program, and cannot be mended yet",
               "error", err->text);
    } else if (m->what) {
        m->mended++;
        un_log(UN_LOG_WARN, "machines' network was changed by another program, and has been mended",
               "firewall", m->what & NET_MENDED_RULES ? "made again" : "was there", "bridges",
               m->what & NET_MENDED_BRIDGES ? "made again" : "were there");
    }
    if (rc < 0 && !m->is_closed) {
        (void)un_timer_arm_in(&m->timer, AGAIN_US); /* out of memory: with the next news */
    }
    if (m->is_wanted) {
        net_mender_look(m);
    }
}

static void on_timer(void *arg)
{
    net_mender_look(arg);
}

void net_mender_init(struct net_mender *m)
{
    un_timer_init(&m->timer, m->loop, on_timer, m);
}

void net_mender_look(struct net_mender *m)
{
    m->is_wanted = m->is_busy;
    if (!m->is_busy && !m->is_closed) {
        m->is_busy = true;
        m->what = 0;
        m->job = (struct un_job){.run = run, .done = on_looked};
        un_workers_submit(m->worker, &m->job);
    }
}

void net_mender_close(struct net_mender *m)
{
    m->is_closed = true;
    un_timer_cancel(&m->timer);
}
