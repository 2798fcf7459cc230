/* keep.c - connections to a machine that serve more than one request (see service_impl.h).
 *
 * An answer is watched by llhttp for its end; a connection whose answer was whole, and which both
 * sides leave open, waits here for another request. The machine may close it at any time, so only
 * requests that can be repeated are sent over it (RFC 9112, section 9.3.1).
 *
 * A server that serves one connection after the other would leave a second client waiting as long as
 * the first connection stays open. So it stays but for a moment when another request of the machine has
 * no answer yet.
 */
#include <event2/event.h>
#include <stdlib.h>

#include "service/service_impl.h"

enum { KEPT_MOST = 64, KEPT_US = 5000000, KEPT_IN_NEED_US = 50000 };

struct kept {
    struct un_list node;
    struct machine *mc;
    struct bufferevent *bev;
    struct un_timer timer; /* it has waited for long enough */
};

/* --- where an answer ends ----------------------------------------------------------------------- */

static int on_headers_complete(llhttp_t *l)
{
    struct answer_watch *w = un_container_of(l, struct answer_watch, parser);
    /* 1: no body follows, whatever the fields say (RFC 9112, section 6.3). */
    w->in_body = !w->head_only && l->status_code / 100 != 1 && l->status_code != 204 &&
                 l->status_code != 304;
    return w->in_body ? 0 : 1;
}

static int on_message_complete(llhttp_t *l)
{
    struct answer_watch *w = un_container_of(l, struct answer_watch, parser);
    if (l->status_code / 100 == 1) {
        return 0; /* the answer follows */
    }
    w->reusable = llhttp_should_keep_alive(l) == 1;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_message_complete = on_message_complete,
};

void answer_watch_begin(struct answer_watch *w, bool head_only)
{
    llhttp_init(&w->parser, HTTP_RESPONSE, &settings);
    w->head_only = head_only;
    w->watching = true;
    w->reusable = w->in_body = false;
}

void answer_watch_feed(struct answer_watch *w, const void *data, size_t len)
{
    if (!w->watching) {
        return;
    }
    llhttp_errno_t rc = llhttp_execute(&w->parser, data, len);
    if (rc == HPE_OK) {
        return;
    }
    w->watching = false;
    /* Bytes behind the answer are nobody's. */
    if (rc != HPE_PAUSED || llhttp_get_error_pos(&w->parser) != (const char *)data + len) {
        w->reusable = false;
    }
}

uint64_t answer_watch_rest(const struct answer_watch *w)
{
    return w->watching && w->in_body && w->parser.flags & F_CONTENT_LENGTH
               ? w->parser.content_length
               : 0;
}

/* --- connections that wait ---------------------------------------------------------------------- */

/* Gives what is left when nobody waits for it any more: the connection. */
static struct bufferevent *take_out(struct kept *k)
{
    struct bufferevent *bev = k->bev;
    un_timer_cancel(&k->timer);
    un_list_remove(&k->node);
    k->mc->kept_count--;
    free(k);
    return bev;
}

static void drop(void *arg)
{
    bufferevent_free(take_out(arg));
}

static void on_data(struct bufferevent *bev, void *arg)
{
    drop(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    drop(arg);
}

static bool somebody_waits(const struct machine *mc)
{
    un_list_for_each (it, &mc->connections) {
        if (!un_list_entry(it, struct hv_vm, node)->answered) {
            return true;
        }
    }
    return false;
}

void keep_give(struct machine *mc, struct bufferevent *bev)
{
    uint64_t patience_us = somebody_waits(mc) ? KEPT_IN_NEED_US : KEPT_US;
    struct kept *k =
        mc->state == MACHINE_READY && mc->kept_count < KEPT_MOST ? calloc(1, sizeof(*k)) : NULL;
    if (!k) {
        bufferevent_free(bev);
        return;
    }
    k->mc = mc;
    k->bev = bev;
    un_list_push_front(&mc->kept, &k->node); /* the warmest is taken first */
    mc->kept_count++;
    bufferevent_setcb(bev, on_data, NULL, on_event, k);
    bufferevent_setwatermark(bev, EV_READ, 0, 0);
    un_timer_init(&k->timer, mc->sv->drv->loop, drop, k);
    if (un_timer_arm_in(&k->timer, patience_us) < 0 || bufferevent_enable(bev, EV_READ) < 0) {
        drop(k);
    }
}

struct bufferevent *keep_take(struct machine *mc)
{
    struct kept *k = un_list_first(&mc->kept, struct kept, node);
    return k ? take_out(k) : NULL;
}

void keep_drop_all(struct machine *mc)
{
    while (!un_list_empty(&mc->kept)) {
        drop(un_list_first(&mc->kept, struct kept, node));
    }
}
