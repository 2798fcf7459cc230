/* watch.c - see watch.h. */
#include "api/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/reply.h"
#include "common/clock.h"
#include "common/id.h"
#include "common/json.h"
#include "scheduler/record/news.h"

static const char *const kind_names[WATCH_KINDS] = {"function", "invocation", "instance",
                                                    "trigger",  "deadletter", "image"};

struct entry {
    char *text; /* of the event, whole; NULL: it could not be kept */
    size_t len;
    enum watch_kind kind;
};

struct watch {
    struct api *api;
    char run[UN_ID_SIZE]; /* of this daemon: the first part of an event's id */
    struct entry *ring;   /* event `seq` is at seq % LIMIT_WATCH_RING; NULL: not filled now */
    uint64_t first, next; /* [first, next) are in the ring */
    size_t bytes;
    uint64_t told[WATCH_KINDS]; /* events in all */
    uint64_t left[WATCH_KINDS]; /* of them, those before `first` */
    struct un_list clients;
    unsigned client_count;
    uint64_t missed;
    struct un_timer beat; /* while there are clients; then once, for emptying the ring */
};

struct client {
    struct un_list node;
    struct watch *w;
    struct http_exchange *ex;
    bool kinds[WATCH_KINDS];
    uint64_t at;                /* the next event for it */
    uint64_t seen[WATCH_KINDS]; /* events before `at`, as told[] counts */
    bool blocked, sending;
};

/* --- the ring --------------------------------------------------------------------------------- */

static struct entry *entry_at(struct watch *w, uint64_t seq)
{
    return &w->ring[seq % LIMIT_WATCH_RING];
}

static void drop_first(struct watch *w)
{
    struct entry *e = entry_at(w, w->first);

    w->bytes -= e->len;
    w->left[e->kind]++;
    free(un_steal(&e->text));
    e->len = 0;
    w->first++;
}

static void empty_ring(struct watch *w)
{
    while (w->ring && w->first < w->next) {
        drop_first(w);
    }
    free(un_steal(&w->ring));
}

bool watch_wanted(struct watch *w, enum watch_kind kind)
{
    if (w && w->ring) {
        return true;
    }
    if (w) {
        w->told[kind]++;
        w->left[kind]++;
        w->first = ++w->next;
    }
    return false;
}

/* --- clients ---------------------------------------------------------------------------------- */

static void client_free(struct client *c)
{
    struct watch *w = c->w;

    un_list_remove(&c->node);
    w->client_count--;
    if (w->client_count == 0) {
        (void)un_timer_arm_in(&w->beat, LIMIT_WATCH_KEEP_MS * 1000ull);
    }
    free(c);
}

static void send_bytes(struct client *c, const void *data, size_t len)
{
    if (!http_respond_data(c->ex, data, len)) {
        c->blocked = true;
    }
}

/* Tells of what has left the ring before the client got it. */
static void send_overflow(struct client *c)
{
    struct watch *w = c->w;
    uint64_t missed = 0;
    char text[192];
    int n;

    for (unsigned k = 0; k < WATCH_KINDS; k++) {
        if (c->kinds[k] && w->left[k] > c->seen[k]) {
            missed += w->left[k] - c->seen[k];
        }
        c->seen[k] = w->left[k];
    }
    c->at = w->first;
    if (missed == 0) {
        return;
    }
    w->missed += missed;
    n = snprintf(text, sizeof(text), "id: %s-%llu\nevent: overflow\ndata: {\"missed\":%llu}\n\n",
                 w->run, (unsigned long long)(w->first - 1), (unsigned long long)missed);
    send_bytes(c, text, (size_t)n);
}

/* As much as the client's connection takes. */
static void pump(struct client *c)
{
    struct watch *w = c->w;

    if (c->sending) {
        return;
    }
    c->sending = true;
    while (!c->blocked && c->at < w->next) {
        struct entry *e;

        if (c->at < w->first) {
            send_overflow(c);
            continue;
        }
        e = entry_at(w, c->at);
        if (c->kinds[e->kind] && e->text) {
            send_bytes(c, e->text, e->len);
        }
        c->seen[e->kind]++;
        c->at++;
    }
    c->sending = false;
}

static void on_writable(void *arg)
{
    struct client *c = arg;

    c->blocked = false;
    pump(c);
}

static void on_gone(void *arg)
{
    client_free(arg);
}

static const struct http_handler client_handler = {.on_writable = on_writable, .on_gone = on_gone};

static void on_beat(void *arg)
{
    struct watch *w = arg;

    if (w->client_count == 0) {
        empty_ring(w);
        return;
    }
    un_list_for_each (it, &w->clients) {
        struct client *c = un_list_entry(it, struct client, node);

        if (!c->blocked) {
            send_bytes(c, ":\n\n", 3);
        }
    }
    (void)un_timer_arm_in(&w->beat, LIMIT_WATCH_BEAT_MS * 1000ull);
}

/* --- telling ---------------------------------------------------------------------------------- */

void watch_tell(struct watch *w, enum watch_kind kind, const char *change, json_t *data)
{
    un_autojson json_t *taken = data;
    un_autofree char *json = NULL;
    struct entry *e;
    char *text = NULL;
    int n = -1;

    if (data) {
        json_object_set_new(data, "change", json_string(change));
        json_object_set_new(data, "at", reply_time(un_clock_wall_us()));
    }
    json = un_json_text(data);
    if (json) {
        n = asprintf(&text, "id: %s-%llu\nevent: %s\ndata: %s\n\n", w->run,
                     (unsigned long long)w->next, kind_names[kind], json);
    }
    while (w->next - w->first >= LIMIT_WATCH_RING ||
           (w->first < w->next && w->bytes + (n > 0 ? (size_t)n : 0) > LIMIT_WATCH_RING_BYTES)) {
        drop_first(w);
    }
    e = entry_at(w, w->next++);
    *e = (struct entry){.text = n > 0 ? text : NULL, .len = n > 0 ? (size_t)n : 0, .kind = kind};
    w->bytes += e->len;
    w->told[kind]++;
    w->missed += n > 0 ? 0 : w->client_count;
    un_list_for_each_safe (it, &w->clients) {
        pump(un_list_entry(it, struct client, node));
    }
}

static json_t *invocation_json(const struct sched_news *n)
{
    const struct receipt *r = n->receipt;

    if (!r) {
        return json_pack("{s:s, s:s, s:s, s:s, s:b, s:I}", "id", n->id, "function", n->function,
                         "trigger", sched_trigger_name(n->trigger), "trigger_name",
                         n->trigger_name ? n->trigger_name : "", "queued", n->queued, "attempt",
                         (json_int_t)n->attempt);
    }
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:I, s:I, s:s, s:o, s:I}", "id", r->id, "function",
                     r->function, "version", (json_int_t)r->version, "trigger",
                     sched_trigger_name(r->trigger), "trigger_name", r->trigger_name, "attempt",
                     (json_int_t)r->attempt, "status", (json_int_t)r->status, "outcome", r->outcome,
                     "error", un_json_string(r->error), "run_us",
                     (json_int_t)(r->phases.first_byte_us + r->phases.run_us));
}

static json_t *instance_json(const struct sched_instance_info *i, bool gone)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:s}", "id", i->id, "state",
                     gone ? "gone" : i->state_name, "driver", i->driver, "memory_mib",
                     (json_int_t)i->mem_mib, "function", i->function, "version",
                     (json_int_t)i->version, "invocation_id", i->invocation_id);
}

static void on_news(void *arg, const struct sched_news *n)
{
    struct watch *w = arg;

    switch (n->kind) {
    case NEWS_ACCEPTED:
    case NEWS_FINISHED:
        if (watch_wanted(w, WATCH_INVOCATION)) {
            watch_tell(w, WATCH_INVOCATION,
                       n->kind == NEWS_FINISHED ? "finished"
                       : n->queued              ? "accepted"
                                                : "started",
                       invocation_json(n));
        }
        break;
    case NEWS_INSTANCE:
    case NEWS_INSTANCE_GONE:
        if (watch_wanted(w, WATCH_INSTANCE)) {
            bool gone = n->kind == NEWS_INSTANCE_GONE;
            watch_tell(w, WATCH_INSTANCE, gone ? "gone" : "state",
                       instance_json(n->instance, gone));
        }
        break;
    case NEWS_DEADLETTER:
        if (watch_wanted(w, WATCH_DEADLETTER)) {
            watch_tell(w, WATCH_DEADLETTER, "added", invocation_json(n));
        }
        break;
    case NEWS_ROLLED_BACK:
        if (watch_wanted(w, WATCH_FUNCTION)) {
            watch_tell(w, WATCH_FUNCTION, "rolled-back",
                       json_pack("{s:s, s:s, s:I, s:I, s:o}", "function", n->function, "alias",
                                 "live", "version", (json_int_t)n->version, "from",
                                 (json_int_t)n->from, "reason", un_json_string(n->why)));
        }
        break;
    case NEWS_DEADLETTERS_GONE:
    case NEWS_DEADLETTERS_REDRIVEN:
        if (watch_wanted(w, WATCH_DEADLETTER)) {
            watch_tell(w, WATCH_DEADLETTER,
                       n->kind == NEWS_DEADLETTERS_GONE ? "removed" : "redriven",
                       json_pack("{s:s?, s:I}", "id", n->id, "count", (json_int_t)n->count));
        }
        break;
    }
}

void watch_function(struct api *a, const char *change, const char *name, uint32_t version,
                    const char *alias)
{
    if (watch_wanted(a->watch, WATCH_FUNCTION)) {
        json_t *j = json_pack("{s:s}", "function", name);
        if (version) {
            json_object_set_new(j, "version", json_integer(version));
        }
        if (alias) {
            json_object_set_new(j, "alias", json_string(alias));
        }
        watch_tell(a->watch, WATCH_FUNCTION, change, j);
    }
}

void watch_image(struct api *a, const char *change, const char *digest, const char *tag)
{
    if (watch_wanted(a->watch, WATCH_IMAGE)) {
        watch_tell(a->watch, WATCH_IMAGE, change,
                   json_pack("{s:s*, s:s*}", "digest", digest, "tag", tag));
    }
}

void watch_trigger(struct api *a, const char *change, const char *name)
{
    if (watch_wanted(a->watch, WATCH_TRIGGER)) {
        watch_tell(a->watch, WATCH_TRIGGER, change, json_pack("{s:s}", "trigger", name));
    }
}

/* --- opening and closing ---------------------------------------------------------------------- */

struct watch *watch_open(struct api *a)
{
    struct watch *w = calloc(1, sizeof(*w));

    if (!w) {
        return NULL;
    }
    w->api = a;
    w->first = w->next = 1;
    un_id_new(w->run);
    un_list_init(&w->clients);
    un_timer_init(&w->beat, a->loop, on_beat, w);
    sched_observe(a->scheduler, on_news, w);
    return w;
}

void watch_drain(struct watch *w)
{
    un_list_for_each_safe (it, &w->clients) {
        struct client *c = un_list_entry(it, struct client, node);
        struct http_exchange *ex = c->ex;

        client_free(c);
        http_respond_end(ex);
    }
}

void watch_close(struct watch *w)
{
    if (!w) {
        return;
    }
    sched_observe(w->api->scheduler, NULL, NULL);
    un_timer_cancel(&w->beat);
    empty_ring(w);
    free(w);
}

void watch_get_stats(const struct watch *w, struct watch_stats *ret)
{
    *ret = (struct watch_stats){
        .clients = w->client_count, .events = w->next - 1, .missed = w->missed};
}

/* --- the route -------------------------------------------------------------------------------- */

/* ?kinds=function,image; all when absent. The first word that is none, or NULL. */
static bool read_kinds(char *text, bool given, bool kinds[WATCH_KINDS])
{
    char *word;

    for (unsigned k = 0; k < WATCH_KINDS; k++) {
        kinds[k] = !given;
    }
    while (given && (word = strsep(&text, ",")) != NULL) {
        unsigned k = 0;

        while (k < WATCH_KINDS && strcmp(word, kind_names[k]) != 0) {
            k++;
        }
        if (k == WATCH_KINDS) {
            return false;
        }
        kinds[k] = true;
    }
    return true;
}

/* Where a client goes on that has seen `last`; from now on without one. */
static void find_place(struct client *c, const char *last)
{
    struct watch *w = c->w;
    size_t run = strlen(w->run);
    unsigned long long seq;
    char end;

    memcpy(c->seen, w->told, sizeof(c->seen));
    c->at = w->next;
    if (!last || !*last) {
        return;
    }
    if (strncmp(last, w->run, run) != 0 || last[run] != '-' ||
        sscanf(last + run + 1, "%llu%c", &seq, &end) != 1 || seq >= w->next) {
        /* Another run's, or none of ours: nobody knows how many there were. */
        static const char text[] = "event: overflow\ndata: {\"missed\":null}\n\n";
        send_bytes(c, text, sizeof(text) - 1);
        return;
    }
    if (seq + 1 >= w->first) {
        memcpy(c->seen, w->left, sizeof(c->seen));
        for (uint64_t s = w->first; s <= seq; s++) {
            c->seen[entry_at(w, s)->kind]++;
        }
        c->at = seq + 1;
        return;
    }
    /* Of what is gone the kinds are not known any more: all are counted. */
    char text[128];
    uint64_t missed = w->first - seq - 1;
    int n =
        snprintf(text, sizeof(text), "id: %s-%llu\nevent: overflow\ndata: {\"missed\":%llu}\n\n",
                 w->run, (unsigned long long)(w->first - 1), (unsigned long long)missed);
    send_bytes(c, text, (size_t)n);
    w->missed += missed;
    c->at = w->first;
    memcpy(c->seen, w->left, sizeof(c->seen));
}

static void begin_stream(struct client *c)
{
    char text[128];
    int n = snprintf(text, sizeof(text), "retry: 2000\nid: %s-%llu\nevent: open\ndata: {}\n\n",
                     c->w->run, (unsigned long long)(c->at - 1));

    send_bytes(c, text, (size_t)n);
}

void rest_watch(struct api_call *call)
{
    struct api *a = call->api;
    struct watch *w = a->watch;
    char kinds[96] = "";
    int given = route_query(call->match.query, "kinds", kinds, sizeof(kinds));
    struct client *c = calloc(1, sizeof(*c));

    if (!c || given < 0 || !read_kinds(kinds, given > 0, c->kinds)) {
        reply_problem(call, c ? 400 : 500,
                      c ? "kinds: must be words out of function, invocation, instance, trigger, "
                          "deadletter, image with commas between them"
                        : "no memory for the stream");
        free(c);
        return;
    }
    if (!w->ring) {
        w->ring = calloc(LIMIT_WATCH_RING, sizeof(*w->ring));
    }
    if (!w->ring || w->client_count >= LIMIT_WATCH_CLIENTS || a->draining) {
        http_respond_field(call->ex, "Retry-After", "10");
        reply_problem(call, 503, "too many clients watch already, or unid is shutting down");
        free(c);
        return;
    }
    const char *last = http_request_field(http_exchange_request(call->ex), "last-event-id");
    un_autofree char *copy = last ? strdup(last) : NULL;
    bool head_only = strcmp(http_exchange_request(call->ex)->method, "HEAD") == 0;
    c->w = w;
    c->ex = call_take_exchange(call);
    un_list_push(&w->clients, &c->node);
    if (w->client_count++ == 0) {
        (void)un_timer_arm_in(&w->beat, LIMIT_WATCH_BEAT_MS * 1000ull);
    }
    http_exchange_handle(c->ex, &client_handler, c);
    http_exchange_leave_on_eof(c->ex);
    http_respond_field(c->ex, "Content-Type", "text/event-stream");
    http_respond_field(c->ex, "Cache-Control", "no-store");
    http_respond_begin(c->ex, 200, -1);
    if (head_only) {
        struct http_exchange *ex = c->ex;
        client_free(c);
        http_respond_end(ex);
        return;
    }
    c->sending = true;
    if (!copy) {
        find_place(c, NULL);
        begin_stream(c);
    } else {
        find_place(c, copy);
    }
    c->sending = false;
    pump(c);
}
