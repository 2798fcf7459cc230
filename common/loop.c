/* loop.c - see loop.h. */
#include "common/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"

/* Rounds of posts, each posted by the one before, without a turn of the loop. */
enum { ROUNDS = 8 };

struct un_loop {
    struct event_base *base;
    struct event *wake;  /* the eventfd that posts write to */
    struct event *alarm; /* the earliest timer; NULL on a virtual loop */
    int wake_fd;
    bool is_virtual;
    uint64_t virtual_us;

    pthread_mutex_t lock; /* of posts, and of these two */
    pthread_t thread;
    bool running; /* un_loop_run, on `thread` */
    struct un_post *posts, **posts_tail;
    struct un_post *batch; /* being called; loop thread */
    bool in_rounds;        /* on_wake is calling posts, and looks for more; loop thread */
    struct un_post stop;

    struct un_timer **heap; /* heap[1..heap_len], by at_us */
    size_t heap_len, heap_cap;
    uint64_t
        alarm_us; /* when the alarm comes, at the latest when the earliest timer is due; 0: never */
};

/* --- posts ------------------------------------------------------------------------------------ */

static struct un_post *take_posts(struct un_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct un_post *batch = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    return batch;
}

/* Calls what has been posted so far; what that posts waits for the next round. True if there was
 * any. */
static bool run_posts(struct un_loop *loop)
{
    if (loop->batch) {
        return false; /* a nested round from inside a post */
    }
    loop->batch = take_posts(loop);
    bool any = loop->batch != NULL;
    while (loop->batch) {
        struct un_post *post = loop->batch;
        loop->batch = post->next;
        pthread_mutex_lock(&loop->lock);
        post->queued = false;
        pthread_mutex_unlock(&loop->lock);
        post->fn(post->arg);
    }
    return any;
}

static void wake(struct un_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof one);
    (void)n; /* fails only when a wake-up is pending already */
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct un_loop *loop = arg;
    if (what & EV_READ) {
        uint64_t count;
        ssize_t n = read(fd, &count, sizeof count);
        (void)n;
    }
    loop->in_rounds = true;
    for (int i = 0; i < ROUNDS && run_posts(loop) && !event_base_got_break(loop->base); i++) {
    }
    loop->in_rounds = false;
    pthread_mutex_lock(&loop->lock);
    if (loop->posts) {
        wake(loop); /* others have their turn first */
    }
    pthread_mutex_unlock(&loop->lock);
}

static bool on_its_thread(const struct un_loop *loop)
{
    return loop->running && pthread_equal(loop->thread, pthread_self());
}

void un_loop_post(struct un_loop *loop, struct un_post *post)
{
    pthread_mutex_lock(&loop->lock);
    bool first = false;
    if (!post->queued) {
        post->queued = true;
        post->next = NULL;
        first = loop->posts == NULL;
        *loop->posts_tail = post;
        loop->posts_tail = &post->next;
    }
    if (first && on_its_thread(loop)) {
        if (!loop->in_rounds) { /* on_wake, once the event that is being handled is done */
            event_active(loop->wake, 0, 0);
        }
    } else if (first) {
        wake(loop); /* under the lock: once it is released the post may run and the loop be freed */
    }
    pthread_mutex_unlock(&loop->lock);
}

static bool remove_from(struct un_post **head, struct un_post *post)
{
    for (; *head; head = &(*head)->next) {
        if (*head == post) {
            *head = post->next;
            return true;
        }
    }
    return false;
}

void un_loop_unpost(struct un_loop *loop, struct un_post *post)
{
    pthread_mutex_lock(&loop->lock);
    if (post->queued) {
        if (!remove_from(&loop->batch, post)) {
            remove_from(&loop->posts, post);
            loop->posts_tail = &loop->posts;
            while (*loop->posts_tail) {
                loop->posts_tail = &(*loop->posts_tail)->next;
            }
        }
        post->queued = false;
    }
    pthread_mutex_unlock(&loop->lock);
}

/* --- timers ----------------------------------------------------------------------------------- */

static void heap_place(struct un_loop *loop, size_t slot, struct un_timer *t)
{
    loop->heap[slot] = t;
    t->slot = slot;
}

static void heap_up(struct un_loop *loop, size_t slot, struct un_timer *t)
{
    while (slot > 1 && loop->heap[slot / 2]->at_us > t->at_us) {
        heap_place(loop, slot, loop->heap[slot / 2]);
        slot /= 2;
    }
    heap_place(loop, slot, t);
}

static void heap_down(struct un_loop *loop, size_t slot, struct un_timer *t)
{
    for (;;) {
        size_t child = slot * 2;
        if (child > loop->heap_len) {
            break;
        }
        if (child < loop->heap_len && loop->heap[child + 1]->at_us < loop->heap[child]->at_us) {
            child++;
        }
        if (loop->heap[child]->at_us >= t->at_us) {
            break;
        }
        heap_place(loop, slot, loop->heap[child]);
        slot = child;
    }
    heap_place(loop, slot, t);
}

static void heap_remove(struct un_loop *loop, struct un_timer *t)
{
    size_t slot = t->slot;
    struct un_timer *last = loop->heap[loop->heap_len--];
    t->slot = 0;
    if (last != t) {
        heap_up(loop, slot, last);
        heap_down(loop, last->slot, last);
    }
}

/* Sees to it that the alarm comes in time. One that was set for a timer which is cancelled stays: it
 * comes for nothing, which is rarer than that timers are armed and cancelled. */
static void set_alarm(struct un_loop *loop)
{
    if (!loop->alarm || loop->heap_len == 0) {
        return;
    }
    uint64_t at = loop->heap[1]->at_us;
    if (loop->alarm_us != 0 && loop->alarm_us <= at) {
        return;
    }
    loop->alarm_us = at ? at : 1;
    uint64_t now = un_clock_mono_us();
    uint64_t in = at > now ? at - now : 0;
    struct timeval tv = {.tv_sec = (time_t)(in / 1000000), .tv_usec = (suseconds_t)(in % 1000000)};
    event_add(loop->alarm, &tv);
}

/* Calls the timers that are due at `now`; those that they arm for the same instant wait for the
 * next round, so that a timer which arms itself anew cannot hold the loop. True if there was any.
 */
static bool fire_due(struct un_loop *loop, uint64_t now)
{
    bool any = false;
    for (size_t left = loop->heap_len; left > 0; left--) {
        if (loop->heap_len == 0 || loop->heap[1]->at_us > now) {
            break;
        }
        struct un_timer *t = loop->heap[1];
        heap_remove(loop, t);
        any = true;
        t->fn(t->arg);
    }
    return any;
}

static void on_alarm(evutil_socket_t fd, short what, void *arg)
{
    struct un_loop *loop = arg;
    (void)fd;
    (void)what;
    loop->alarm_us = 0;
    fire_due(loop, un_loop_now_us(loop));
    set_alarm(loop);
}

void un_timer_init(struct un_timer *t, struct un_loop *loop, void (*fn)(void *arg), void *arg)
{
    *t = (struct un_timer){.loop = loop, .fn = fn, .arg = arg};
}

static int heap_grow(struct un_loop *loop)
{
    if (loop->heap_len + 1 < loop->heap_cap) {
        return 0;
    }
    size_t cap = loop->heap_cap ? loop->heap_cap * 2 : 64;
    struct un_timer **heap = realloc(loop->heap, cap * sizeof(struct un_timer *));
    if (!heap) {
        return -ENOMEM;
    }
    loop->heap = heap;
    loop->heap_cap = cap;
    return 0;
}

int un_timer_arm_at(struct un_timer *t, uint64_t at_us)
{
    struct un_loop *loop = t->loop;
    if (t->slot) {
        t->at_us = at_us;
        heap_up(loop, t->slot, t);
        heap_down(loop, t->slot, t);
    } else {
        int rc = heap_grow(loop);
        if (rc < 0) {
            return rc;
        }
        t->at_us = at_us;
        heap_up(loop, ++loop->heap_len, t);
    }
    set_alarm(loop);
    return 0;
}

int un_timer_arm_in(struct un_timer *t, uint64_t in_us)
{
    uint64_t at;
    if (__builtin_add_overflow(un_loop_now_us(t->loop), in_us, &at)) {
        at = UINT64_MAX;
    }
    return un_timer_arm_at(t, at);
}

void un_timer_cancel(struct un_timer *t)
{
    if (t->slot) {
        heap_remove(t->loop, t);
    }
}

bool un_timer_armed(const struct un_timer *t)
{
    return t->slot != 0;
}

/* --- the loop --------------------------------------------------------------------------------- */

static int open_events(struct un_loop *loop, struct un_error *err)
{
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        return un_error_errno(err, -errno, "event loop: eventfd");
    }
    loop->base = event_base_new();
    if (!loop->base) {
        return un_error_set(err, -ENOMEM, "event loop: event_base_new failed");
    }
    loop->wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
    if (!loop->is_virtual) {
        loop->alarm = event_new(loop->base, -1, 0, on_alarm, loop);
    }
    if (!loop->wake || (!loop->is_virtual && !loop->alarm) || event_add(loop->wake, NULL) < 0) {
        return un_error_set(err, -ENOMEM, "event loop: out of memory");
    }
    return 0;
}

static void stop_on_loop(void *arg)
{
    struct un_loop *loop = arg;
    event_base_loopbreak(loop->base);
}

static int loop_new(bool is_virtual, uint64_t start_us, struct un_loop **ret, struct un_error *err)
{
    struct un_loop *loop = calloc(1, sizeof *loop);
    if (!loop) {
        return un_error_set(err, -ENOMEM, "event loop: out of memory");
    }
    loop->is_virtual = is_virtual;
    loop->virtual_us = start_us;
    loop->wake_fd = -1;
    loop->thread = pthread_self();
    loop->posts_tail = &loop->posts;
    loop->stop = (struct un_post){.fn = stop_on_loop, .arg = loop};
    pthread_mutex_init(&loop->lock, NULL);
    int rc = open_events(loop, err);
    if (rc < 0) {
        un_loop_free(loop);
        return rc;
    }
    *ret = loop;
    return 0;
}

int un_loop_new(struct un_loop **ret, struct un_error *err)
{
    return loop_new(false, 0, ret, err);
}

int un_loop_new_virtual(uint64_t start_us, struct un_loop **ret, struct un_error *err)
{
    return loop_new(true, start_us, ret, err);
}

void un_loop_free(struct un_loop *loop)
{
    if (!loop) {
        return;
    }
    if (loop->wake) {
        event_free(loop->wake);
    }
    if (loop->alarm) {
        event_free(loop->alarm);
    }
    if (loop->base) {
        event_base_free(loop->base);
    }
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop->heap);
    free(loop);
}

struct event_base *un_loop_base(struct un_loop *loop)
{
    return loop->base;
}

static void set_thread(struct un_loop *loop, bool running)
{
    pthread_mutex_lock(&loop->lock);
    loop->thread = pthread_self();
    loop->running = running;
    pthread_mutex_unlock(&loop->lock);
}

void un_loop_run(struct un_loop *loop)
{
    set_thread(loop, true);
    event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
    set_thread(loop, false);
}

void un_loop_run_ready(struct un_loop *loop)
{
    set_thread(loop, false);
    bool more;
    do {
        event_base_loop(loop->base, EVLOOP_NONBLOCK);
        more = run_posts(loop);
        if (loop->is_virtual) {
            more |= fire_due(loop, loop->virtual_us);
        }
    } while (more);
}

void un_loop_advance(struct un_loop *loop, uint64_t us)
{
    uint64_t until = loop->virtual_us + us;
    un_loop_run_ready(loop);
    while (loop->heap_len > 0 && loop->heap[1]->at_us <= until) {
        if (loop->heap[1]->at_us > loop->virtual_us) {
            loop->virtual_us = loop->heap[1]->at_us;
        }
        un_loop_run_ready(loop);
    }
    loop->virtual_us = until;
    un_loop_run_ready(loop);
}

void un_loop_stop(struct un_loop *loop)
{
    un_loop_post(loop, &loop->stop); /* libevent is not told from another thread */
}

uint64_t un_loop_now_us(const struct un_loop *loop)
{
    return loop->is_virtual ? loop->virtual_us : un_clock_mono_us();
}

bool un_loop_is_current(const struct un_loop *loop)
{
    return pthread_equal(loop->thread, pthread_self());
}
