/* call_move.c - a call that has not been sent goes to another version of its function: the version that it
 * was to run is not live any more. It is looked up again, and waits anew. */
#include "scheduler/scheduler_impl.h"

enum { MOVES_MAX = 4 };

void call_drop_images(struct sched_call *c)
{
    struct image_mapping **const all[] = {&c->image, &c->initrd, &c->disk};

    for (size_t i = 0; i < UN_ARRAY_SIZE(all); i++) {
        if (*all[i]) {
            image_unref(un_steal(all[i]));
        }
    }
}

bool call_overtaken(const struct sched_call *c)
{
    return c->version->config.machine.set && c->generation != c->line->generation &&
           call_wants_live(c);
}

/* Whether all of the request is here still. */
static bool whole(const struct sched_call *c)
{
    return (c->raw_head.len > 0 || c->stream) &&
           (c->bound_len > 0 || c->record->receipt.bytes_in == c->body.len - c->body_at);
}

static void begin_again(void *arg)
{
    struct sched_call *c = arg;

    queue_dispatch(c->s); /* the place that it has left */
    call_begin(c);
}

bool call_move(struct sched_call *c)
{
    struct scheduler *s = c->s;

    if (c->moves == MOVES_MAX || !whole(c)) {
        return false;
    }
    c->moves++;
    c->bound_len = 0;
    if (c->instance) {
        instance_end(un_steal(&c->instance), NULL);
    }
    call_enter_phase(c, PHASE_QUEUE);
    call_set_state(c, CALL_LOOKUP);
    c->began_us = un_loop_now_us(s->loop); /* it waits anew */
    interface_reader_free(un_steal(&c->reader));
    if (!c->stream) {
        un_buf_done(&c->head);
        c->head = c->raw_head;
        c->raw_head = (struct un_buf){0};
    }
    call_drop_images(c);
    line_put(s, un_steal(&c->line));
    function_unref(un_steal(&c->version));
    c->post = (struct un_post){.fn = begin_again, .arg = c};
    un_loop_post(s->loop, &c->post);
    return true;
}
