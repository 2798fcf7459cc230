/* store_support.h - what the tests of store and imagestore share: a directory of their own, a real loop
 * that runs until a callback has come (or fails after a while), an open store. */
#ifndef UNID_TESTS_STORE_SUPPORT_H
#define UNID_TESTS_STORE_SUPPORT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/loop.h"
#include "common/workers.h"
#include "store/store.h"

struct ground {
    char dir[64], db[96];
    struct un_loop *loop;
    struct un_timer deadline;
    struct store *store;
    bool came; /* the callback that is being waited for */
};

static inline void ground_too_late(void *arg)
{
    print_error("no callback within 30 s\n");
    abort();
}

static inline void ground_open(struct ground *g)
{
    struct un_error err = UN_ERROR_INIT;
    strcpy(g->dir, "/tmp/unid-test-XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    snprintf(g->db, sizeof g->db, "%s/unid.db", g->dir);
    assert_int_equal(un_loop_new(&g->loop, &err), 0);
    un_timer_init(&g->deadline, g->loop, ground_too_late, g);
}

static inline void ground_came(struct ground *g)
{
    g->came = true;
    un_loop_stop(g->loop);
}

/* Runs the loop until ground_came. */
static inline void ground_wait(struct ground *g)
{
    un_timer_arm_in(&g->deadline, 30 * 1000000);
    while (!g->came) {
        un_loop_run(g->loop);
    }
    g->came = false;
    un_timer_cancel(&g->deadline);
}

static inline int ground_open_store(struct ground *g, const struct store_schema *const *schemas,
                                    struct un_error *err)
{
    struct store_spec spec = {.loop = g->loop, .path = g->db, .schemas = schemas};
    return store_open(&spec, &g->store, err);
}

static inline int ground_remove_one(const char *path, const struct stat *st, int type,
                                    struct FTW *ftw)
{
    return remove(path);
}

static inline void ground_close(struct ground *g)
{
    store_close(g->store);
    un_loop_free(g->loop);
    nftw(g->dir, ground_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* One statement run at once by a job of its own. */
struct sql_job {
    struct store_job job;
    const char *sql;
    int64_t value; /* the first column of the last row */
};

static inline int sql_job_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct sql_job *q = un_container_of(job, struct sql_job, job);
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, q->sql, "");
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        q->value = sqlite3_column_int64(stmt, 0);
        rc = 0;
    }
    return rc;
}

static inline int ground_sql(struct ground *g, enum store_access access, const char *sql,
                             int64_t *ret, struct un_error *err)
{
    struct sql_job q = {.job = {.access = access, .run = sql_job_run}, .sql = sql};
    int rc = store_run_blocking(g->store, &q.job, err);
    if (ret) {
        *ret = q.value;
    }
    return rc;
}

/* A number that the database tells; the question must not fail. */
static inline int64_t ground_number(struct ground *g, const char *sql)
{
    struct un_error err = UN_ERROR_INIT;
    int64_t value = -1;
    if (ground_sql(g, STORE_READ, sql, &value, &err) < 0) {
        fail_msg("%s: %s", sql, err.text);
    }
    return value;
}

static inline void ground_write(struct ground *g, const char *sql)
{
    struct un_error err = UN_ERROR_INIT;
    if (ground_sql(g, STORE_WRITE, sql, NULL, &err) < 0) {
        fail_msg("%s: %s", sql, err.text);
    }
}

#endif
