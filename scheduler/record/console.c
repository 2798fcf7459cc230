/* console.c - what the machines of services write to their consoles, as logs of their functions.
 *
 * As an invocation's log, in pieces: a piece is what has come in some seconds, a row of guest_logs under
 * an id of its own, which is no invocation's. A function may write max_log_bytes a minute; what is more
 * is left out, and a line says so. Pieces that the database does not take are given up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "scheduler/record/log_row.h"
#include "scheduler/scheduler_impl.h"

enum { FLUSH_US = 2000000, FLUSH_BYTES = 64 * 1024, WINDOW_US = 60000000 };

struct console {
    struct un_list node;
    char function[64];
    char id[UN_ID_SIZE]; /* of the piece */
    struct guest_log log;
    uint64_t window_us; /* when this minute began */
};

/* Pieces on their way to the disk. */
struct console_batch {
    struct store_job job;
    struct scheduler *s;
    struct un_list list; /* struct console */
    unsigned count;
    struct log_retention keep;
};

static void on_timer(void *arg)
{
    consoles_flush(arg);
}

void consoles_init(struct scheduler *s)
{
    un_list_init(&s->consoles.list);
    un_timer_init(&s->consoles.timer, s->loop, on_timer, s);
}

static void console_free(struct console *c)
{
    un_list_remove(&c->node);
    guest_log_done(&c->log);
    free(c);
}

void consoles_done(struct scheduler *s)
{
    un_timer_cancel(&s->consoles.timer);
    un_list_for_each_safe (it, &s->consoles.list) {
        console_free(un_list_entry(it, struct console, node));
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

static int write_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct console_batch *b = un_container_of(job, struct console_batch, job);
    int rc = un_fault("console.write");

    if (rc < 0) {
        return un_error_errno(err, rc, "write console lines");
    }
    un_list_for_each (it, &b->list) {
        struct console *c = un_list_entry(it, struct console, node);

        rc = rc < 0 ? rc : log_row_insert(db, c->id, c->function, &c->log.lines, err);
    }
    rc = rc < 0 ? rc : log_row_prune(db, &b->keep, b->count, err);
    return rc < 0 ? rc : 0;
}

static void write_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct console_batch *b = un_container_of(job, struct console_batch, job);
    struct scheduler *s = b->s;

    if (rc < 0) {
        un_log(UN_LOG_WARN, "console lines could not be written; they are lost", "error",
               err->text);
    }
    un_list_for_each_safe (it, &b->list) {
        struct console *c = un_list_entry(it, struct console, node);

        s->consoles.pending_bytes -= c->log.lines.len;
        console_free(c);
    }
    s->consoles.batch = NULL;
    free(b);
    if (s->closing) {
        consoles_flush(s);
    } else if (s->consoles.pending_bytes > 0) {
        (void)un_timer_arm_in(&s->consoles.timer, FLUSH_US);
    }
    sched_done(s);
}

/* Moves the console's piece into the batch. */
static void take_piece(struct console_batch *b, struct console *c)
{
    struct console *piece = calloc(1, sizeof(*piece));

    if (!piece) {
        return; /* the next time */
    }
    *piece = (struct console){.log = {.lines = c->log.lines}};
    memcpy(piece->function, c->function, sizeof(piece->function));
    memcpy(piece->id, c->id, sizeof(piece->id));
    c->log.lines = (struct un_buf){0};
    un_list_init(&piece->node);
    un_list_push(&b->list, &piece->node);
    b->count++;
}

void consoles_flush(struct scheduler *s)
{
    uint64_t now = un_loop_now_us(s->loop);
    struct console_batch *b = s->consoles.batch ? NULL : calloc(1, sizeof(*b));

    if (!b) {
        return; /* write_done, or the next line, comes here again */
    }
    b->s = s;
    b->job = (struct store_job){.access = STORE_WRITE, .run = write_run, .done = write_done};
    un_list_init(&b->list);
    un_list_for_each_safe (it, &s->consoles.list) {
        struct console *c = un_list_entry(it, struct console, node);

        if (c->log.lines.len > 0) {
            take_piece(b, c);
        } else if (now >= c->window_us + WINDOW_US) {
            console_free(c);
        }
    }
    if (un_list_empty(&b->list)) {
        free(b);
        return;
    }
    b->keep = log_keep(s);
    s->consoles.batch = b;
    (void)un_timer_arm_in(&s->consoles.timer, WINDOW_US); /* lets go of those that are silent */
    sched_begin(s);
    store_submit(s->store, &b->job);
}

/* --- adding ----------------------------------------------------------------------------------- */

static struct console *console_get(struct scheduler *s, const char *function)
{
    struct console *c;

    un_list_for_each (it, &s->consoles.list) {
        c = un_list_entry(it, struct console, node);
        if (strcmp(c->function, function) == 0) {
            un_list_remove(&c->node);
            un_list_push_front(&s->consoles.list, &c->node);
            return c;
        }
    }
    c = un_fault("console.alloc") ? NULL : calloc(1, sizeof(*c));
    if (c) {
        snprintf(c->function, sizeof(c->function), "%s", function);
        un_list_init(&c->node);
        un_list_push_front(&s->consoles.list, &c->node);
        c->window_us = un_loop_now_us(s->loop);
    }
    return c;
}

struct telling {
    struct scheduler *s;
    const char *function;
};

static void on_line(void *arg, uint64_t at_us, const char *text)
{
    const struct telling *t = arg;
    struct log_line line = {.at_us = at_us, .text = text};

    log_tell(t->s, t->function, &line);
}

void console_add(struct scheduler *s, const char *function, const void *data, size_t len)
{
    struct telling telling = {s, function};
    struct guest_log_sink sink = {.max_bytes = s->set.max_log_bytes,
                                  .at_us = un_clock_wall_us(),
                                  .fn = on_line,
                                  .arg = &telling};
    struct console *c = console_get(s, function);
    uint64_t now = un_loop_now_us(s->loop), at;
    size_t before;

    if (!c || s->consoles.pending_bytes > LIMIT_CONSOLES_BYTES) {
        return;
    }
    if (now >= c->window_us + WINDOW_US) {
        c->window_us = now;
        guest_log_resume(&c->log);
    }
    before = c->log.lines.len;
    if (before == 0) {
        un_id_new(c->id);
        c->id[0] = '~';
    }
    guest_log_add(&c->log, data, len, &sink);
    s->consoles.pending_bytes += c->log.lines.len - before;
    if (s->consoles.batch || c->log.lines.len == before) {
        return;
    }
    at = now + (c->log.lines.len >= FLUSH_BYTES ? 0 : FLUSH_US);
    if (!un_timer_armed(&s->consoles.timer) || s->consoles.timer.at_us > at) {
        (void)un_timer_arm_at(&s->consoles.timer, at);
    }
}

void console_each(struct scheduler *s, const char *function,
                  void (*fn)(void *arg, const char *id, const char *text, size_t len), void *arg)
{
    struct un_list *const lists[] = {s->consoles.batch ? &s->consoles.batch->list : NULL,
                                     &s->consoles.list};

    for (size_t l = 0; l < UN_ARRAY_SIZE(lists); l++) {
        if (!lists[l]) {
            continue;
        }
        un_list_for_each (it, lists[l]) {
            struct console *c = un_list_entry(it, struct console, node);

            if (c->log.lines.len > 0 && strcmp(c->function, function) == 0) {
                fn(arg, c->id, (const char *)c->log.lines.data, c->log.lines.len);
            }
        }
    }
}
