/* queue.c - how jobs reach their threads and come back (see private.h for the way).
 *
 * One writer thread lives as long as the store. Reader threads are started when a read finds none
 * idle, up to a limit, and end after ten seconds without work: their connections are memory.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/json.h"
#include "store/private.h"

enum {
    READER_IDLE_S = 10,
    WRITER_IDLE_S = 1,    /* then housekeeping */
    GROUP_JOBS_MAX = 256, /* in one transaction */
    GATHER_SHARE = 4,     /* of a commit's time, before the next */
    GATHER_MOST_US = 4000,
    THREAD_STACK = 512 * 1024, /* SQLite asks for far less; sanitizers need some */
};

static void queue_init(struct store_queue *q)
{
    q->first = NULL;
    q->end = &q->first;
    q->count = 0;
}

static void queue_push(struct store_queue *q, struct store_job *job)
{
    job->next = NULL;
    *q->end = job;
    q->end = &job->next;
    q->count++;
}

static struct store_job *queue_pop(struct store_queue *q)
{
    struct store_job *job = q->first;
    if (job) {
        q->first = job->next;
        if (!q->first) {
            q->end = &q->first;
        }
        job->next = NULL;
        q->count--;
    }
    return job;
}

/* The longest run of jobs of one kind at the head. */
static struct store_job *queue_pop_group(struct store_queue *q)
{
    struct store_queue group;
    queue_init(&group);
    enum store_access access = q->first->access;
    for (int n = 0; n < GROUP_JOBS_MAX && q->first && q->first->access == access; n++) {
        queue_push(&group, queue_pop(q));
    }
    return group.first;
}

static struct timespec deadline_in(time_t seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += seconds;
    return t;
}

/* Mutex held. */
static void complete(struct store *s, struct store_job *job)
{
    s->stats.jobs++;
    if (job->blocking) {
        job->finished = true;
    } else {
        queue_push(&s->completed, job);
        un_loop_post(s->loop, &s->post);
    }
    pthread_cond_broadcast(&s->progress);
}

static void complete_all(struct store *s, struct store_job *job)
{
    pthread_mutex_lock(&s->mutex);
    while (job) {
        struct store_job *next = job->next;
        complete(s, job);
        job = next;
    }
    pthread_mutex_unlock(&s->mutex);
}

void store_deliver(void *arg)
{
    struct store *s = arg;
    pthread_mutex_lock(&s->mutex);
    struct store_job *job = s->completed.first;
    queue_init(&s->completed);
    pthread_mutex_unlock(&s->mutex);
    while (job) {
        struct store_job *next = job->next;
        struct un_error err = job->err; /* the job may be freed, or submitted again, by done() */
        job->done(job, job->rc, &err);
        pthread_mutex_lock(&s->mutex);
        s->unfinished--;
        pthread_mutex_unlock(&s->mutex);
        job = next;
    }
}

static struct timespec deadline_in_us(uint64_t us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t ns = (uint64_t)t.tv_nsec + us * 1000;
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

/* Those that the last group answered are likely to come again at once. Without waiting for them a
 * moment, they would miss this group and half of all waiters would sit out every other commit; the
 * moment is short against what the commit takes. Mutex held. */
static void gather(struct store *s)
{
    uint64_t us = s->group_us / GATHER_SHARE;
    struct timespec until = deadline_in_us(us < GATHER_MOST_US ? us : GATHER_MOST_US);
    while (s->group_jobs > 1 && s->writes.count < s->group_jobs - s->group_jobs / 8 &&
           !s->stopping && pthread_cond_timedwait(&s->write_wake, &s->mutex, &until) == 0) {
    }
}

/* Takes the next group; NULL when the store stops. Housekeeping happens here, between jobs. */
static struct store_job *next_group(struct store *s, bool *tidy)
{
    pthread_mutex_lock(&s->mutex);
    while (!s->writes.first && !s->stopping) {
        if (*tidy) {
            pthread_cond_wait(&s->write_wake, &s->mutex);
            continue;
        }
        struct timespec until = deadline_in(WRITER_IDLE_S);
        if (pthread_cond_timedwait(&s->write_wake, &s->mutex, &until) == ETIMEDOUT &&
            !s->writes.first) {
            bool more = true;
            while (more && !s->writes.first && !s->stopping) {
                pthread_mutex_unlock(&s->mutex);
                more = store_idle_step(s);
                pthread_mutex_lock(&s->mutex);
            }
            *tidy = !more;
        }
    }
    if (s->writes.first) {
        gather(s);
    }
    unsigned before = s->writes.count;
    struct store_job *group = s->writes.first ? queue_pop_group(&s->writes) : NULL;
    s->group_jobs = before - s->writes.count;
    pthread_mutex_unlock(&s->mutex);
    return group;
}

static void *writer_main(void *arg)
{
    struct store *s = arg;
    bool tidy = true;
    struct store_job *group;
    struct store_cache cache = {0};
    store_cache_use(&cache);
    while ((group = next_group(s, &tidy))) {
        bool lazy = group->access == STORE_WRITE_LAZY;
        uint64_t begun_us = un_clock_mono_us();
        store_run_group(s, group);
        s->group_us = lazy ? 0 : un_clock_mono_us() - begun_us;
        complete_all(s, group);
        store_maybe_checkpoint(s, lazy);
        tidy = false;
    }
    store_cache_drop();
    return NULL;
}

static struct store_job *pop_read(struct store *s)
{
    struct store_job *job = queue_pop(&s->reads);
    if (job) {
        s->reads_queued--;
    }
    return job;
}

/* A job sees one state of the database, whatever is committed meanwhile. */
static int run_read(sqlite3 *db, sqlite3_stmt *rollback, struct store_job *job)
{
    int fault = un_fault("store.read");
    if (fault) {
        return un_error_errno(&job->err, fault, "database");
    }
    int rc = store_begin(db, rollback, "BEGIN", &job->err);
    if (rc == 0) {
        rc = job->run(job, db, &job->err);
        (void)un_json_text(NULL); /* what one gave up is nothing to the next */
        store_undo(rollback);
    }
    return rc;
}

static void serve_reads(struct store *s, sqlite3 *db, sqlite3_stmt *rollback,
                        const struct un_error *why_not)
{
    pthread_mutex_lock(&s->mutex);
    struct timespec until = deadline_in(READER_IDLE_S);
    for (;;) {
        struct store_job *job = pop_read(s);
        if (job) {
            pthread_mutex_unlock(&s->mutex);
            if (db) {
                job->rc = run_read(db, rollback, job);
            } else {
                job->rc = why_not->code;
                un_error_copy(&job->err, why_not);
            }
            pthread_mutex_lock(&s->mutex);
            complete(s, job);
            until = deadline_in(READER_IDLE_S);
            continue;
        }
        if (s->stopping || !db) {
            break;
        }
        s->readers_idle++;
        int waited = pthread_cond_timedwait(&s->read_wake, &s->mutex, &until);
        s->readers_idle--;
        if (waited == ETIMEDOUT && !s->reads.first) {
            break;
        }
    }
    s->readers--; /* under the lock that found no job: the next submit starts a new thread */
    pthread_mutex_unlock(&s->mutex);
}

static void *reader_main(void *arg)
{
    struct store *s = arg;
    struct un_error err = UN_ERROR_INIT;
    sqlite3 *db = NULL;
    sqlite3_stmt *rollback = NULL;
    if (store_connect(s, &db, &rollback, &err) == 0 &&
        store_simple_sql(db, "PRAGMA query_only=ON", &err) < 0) {
        store_disconnect(db, rollback);
        db = NULL;
        rollback = NULL;
    }
    serve_reads(s, db, rollback, &err);
    store_disconnect(db, rollback);
    pthread_mutex_lock(&s->mutex);
    s->readers_living--;
    pthread_cond_broadcast(&s->progress);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static int spawn(struct store *s, void *(*fn)(void *), pthread_t *thread, bool detached)
{
    int fault = un_fault("store.thread");
    if (fault) {
        return fault;
    }
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) {
        return -rc;
    }
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    if (detached) {
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    }
    rc = pthread_create(thread, &attr, fn, s);
    pthread_attr_destroy(&attr);
    if (rc == 0) {
        pthread_setname_np(*thread, detached ? "store-read" : "store-write");
    }
    return -rc;
}

/* Mutex held. */
static void submit_read(struct store *s, struct store_job *job)
{
    queue_push(&s->reads, job);
    s->reads_queued++;
    if (s->reads_queued <= s->readers_idle || s->readers == s->readers_max) {
        pthread_cond_signal(&s->read_wake);
        return;
    }
    pthread_t thread;
    s->readers++;
    s->readers_living++;
    int rc = spawn(s, reader_main, &thread, true);
    if (rc == 0) {
        return;
    }
    s->readers--;
    s->readers_living--;
    if (s->readers == 0) {
        /* Nobody would ever take it. */
        while ((job = pop_read(s))) {
            job->rc = un_error_errno(&job->err, rc, "start a thread to read the database");
            complete(s, job);
        }
    }
}

static void enqueue(struct store *s, struct store_job *job)
{
    job->store = s;
    job->rc = 0;
    job->err = (struct un_error)UN_ERROR_INIT;
    job->finished = false;
    if (job->access == STORE_READ) {
        submit_read(s, job);
    } else {
        queue_push(&s->writes, job);
        pthread_cond_signal(&s->write_wake);
    }
}

void store_submit(struct store *s, struct store_job *job)
{
    assert(job->run && job->done);
    pthread_mutex_lock(&s->mutex);
    job->blocking = false;
    s->unfinished++;
    enqueue(s, job);
    pthread_mutex_unlock(&s->mutex);
}

int store_run_blocking(struct store *s, struct store_job *job, struct un_error *err)
{
    assert(job->run);
    pthread_mutex_lock(&s->mutex);
    job->blocking = true;
    enqueue(s, job);
    while (!job->finished) {
        pthread_cond_wait(&s->progress, &s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    if (job->rc < 0) {
        un_error_copy(err, &job->err);
    }
    return job->rc;
}

static void init_condition(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

int store_threads_start(struct store *s, struct un_error *err)
{
    queue_init(&s->writes);
    queue_init(&s->reads);
    queue_init(&s->completed);
    s->post = (struct un_post){.fn = store_deliver, .arg = s};
    pthread_mutex_init(&s->mutex, NULL);
    init_condition(&s->write_wake);
    init_condition(&s->read_wake);
    init_condition(&s->progress);
    int rc = spawn(s, writer_main, &s->writer, false);
    if (rc < 0) {
        return un_error_errno(err, rc, "start the database's thread");
    }
    s->writer_started = true;
    return 0;
}

void store_threads_stop(struct store *s)
{
    if (!s->writer_started) {
        return;
    }
    pthread_mutex_lock(&s->mutex);
    while (s->unfinished > 0) {
        while (!s->completed.first) {
            pthread_cond_wait(&s->progress, &s->mutex);
        }
        pthread_mutex_unlock(&s->mutex);
        store_deliver(s); /* whose callbacks may submit more */
        pthread_mutex_lock(&s->mutex);
    }
    s->stopping = true;
    pthread_cond_broadcast(&s->write_wake);
    pthread_cond_broadcast(&s->read_wake);
    while (s->readers_living > 0) {
        pthread_cond_wait(&s->progress, &s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->writer, NULL);
    un_loop_unpost(s->loop, &s->post);
    pthread_cond_destroy(&s->write_wake);
    pthread_cond_destroy(&s->read_wake);
    pthread_cond_destroy(&s->progress);
    pthread_mutex_destroy(&s->mutex);
}
