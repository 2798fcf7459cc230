/* workers.c - see workers.h. */
#include "common/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/json.h"

enum { IDLE_SECONDS = 10, STACK_BYTES = 1024 * 1024 };

struct un_workers {
    struct un_loop *loop;
    char name[16];
    unsigned max_threads, threads, idle, queued;
    pthread_mutex_t lock;
    pthread_cond_t work; /* signalled for a queued job and for closing */
    pthread_cond_t gone; /* signalled when a thread ends */
    struct un_job *head, **tail;
    unsigned posted; /* jobs whose done() is still to come */
    bool closing;
};

static void finish_on_loop(void *arg)
{
    struct un_job *job = arg;
    struct un_workers *pool = job->pool;
    pthread_mutex_lock(&pool->lock);
    pool->posted--;
    pthread_mutex_unlock(&pool->lock);
    job->done(job, job->rc, &job->err);
}

static void post_result(struct un_job *job)
{
    job->post = (struct un_post){.fn = finish_on_loop, .arg = job};
    un_loop_post(job->pool->loop, &job->post);
}

/* Takes the next job, waiting for one; NULL when the thread should end. The lock is held. */
static struct un_job *next_job(struct un_workers *pool)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    while (!pool->head) {
        if (pool->closing) {
            return NULL;
        }
        pool->idle++;
        int rc = pthread_cond_timedwait(&pool->work, &pool->lock, &until);
        pool->idle--;
        if (rc == ETIMEDOUT && !pool->head) {
            return NULL;
        }
    }
    struct un_job *job = pool->head;
    pool->queued--;
    pool->head = job->next;
    if (!pool->head) {
        pool->tail = &pool->head;
    }
    return job;
}

static void *thread_main(void *arg)
{
    struct un_workers *pool = arg;
    pthread_setname_np(pthread_self(), pool->name);
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct un_job *job = next_job(pool);
        if (!job) {
            break;
        }
        pthread_mutex_unlock(&pool->lock);
        job->err = (struct un_error)UN_ERROR_INIT;
        job->rc = job->run(job, &job->err);
        (void)un_json_text(NULL); /* what one gave up is nothing to the next */
        post_result(job);
        pthread_mutex_lock(&pool->lock);
    }
    pool->threads--;
    pthread_cond_signal(&pool->gone);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start_thread(struct un_workers *pool)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) {
        return -rc;
    }
    pthread_t thread;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = pthread_create(&thread, &attr, thread_main, pool);
    pthread_attr_destroy(&attr);
    return -rc;
}

int un_workers_new(struct un_loop *loop, const char *name, unsigned max_threads,
                   struct un_workers **ret, struct un_error *err)
{
    struct un_workers *pool = calloc(1, sizeof *pool);
    if (!pool) {
        return un_error_set(err, -ENOMEM, "workers: out of memory");
    }
    pool->loop = loop;
    pool->max_threads = max_threads ? max_threads : 1;
    pool->tail = &pool->head;
    snprintf(pool->name, sizeof pool->name, "%s", name);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &attr);
    pthread_cond_init(&pool->gone, &attr);
    pthread_condattr_destroy(&attr);
    *ret = pool;
    return 0;
}

/* Takes the job back out of the queue. The lock is held. */
static void unqueue(struct un_workers *pool, struct un_job *job)
{
    struct un_job **p = &pool->head;
    while (*p != job) {
        p = &(*p)->next;
    }
    *p = job->next;
    pool->queued--;
    if (!*p) {
        pool->tail = p;
    }
}

void un_workers_submit(struct un_workers *pool, struct un_job *job)
{
    job->pool = pool;
    job->next = NULL;
    job->rc = 0;
    pthread_mutex_lock(&pool->lock);
    pool->posted++;
    *pool->tail = job;
    pool->tail = &job->next;
    pool->queued++;
    bool refused = false;
    if (pool->queued > pool->idle && pool->threads < pool->max_threads) {
        int rc = start_thread(pool);
        if (rc == 0) {
            pool->threads++;
        } else if (pool->threads == 0) {
            unqueue(pool, job);
            job->rc = un_error_errno(&job->err, -EAGAIN, "start a worker thread");
            refused = true;
        }
    } else {
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    if (refused) {
        post_result(job);
    }
}

void un_workers_free(struct un_workers *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    while (pool->threads > 0) {
        pthread_cond_wait(&pool->gone, &pool->lock);
    }
    unsigned posted = pool->posted;
    pthread_mutex_unlock(&pool->lock);
    while (posted > 0) {
        un_loop_run_ready(pool->loop);
        pthread_mutex_lock(&pool->lock);
        posted = pool->posted;
        pthread_mutex_unlock(&pool->lock);
    }
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->gone);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
