/* test_store.c - the database file: group commit, isolation of jobs, durability, migrations, damage. */
#include "tests/unit/store_support.h"

#include <signal.h>
#include <sys/wait.h>

static const char *const steps_v1[] = {"CREATE TABLE t(x INTEGER PRIMARY KEY, y BLOB)", NULL};
static const char *const steps_v2[] = {"CREATE TABLE t(x INTEGER PRIMARY KEY, y BLOB)",
                                       "ALTER TABLE t ADD COLUMN z INTEGER DEFAULT 7", NULL};
static const char *const steps_bad[] = {"CREATE TABLE t(x INTEGER PRIMARY KEY, y BLOB)",
                                        "CREATE TABLE u(x); CREATE TABLE u(x)", NULL};
static const struct store_schema schema_v1 = {"test", steps_v1};
static const struct store_schema schema_v2 = {"test", steps_v2};
static const struct store_schema schema_bad = {"test", steps_bad};
static const struct store_schema *const v1[] = {&schema_v1, NULL};
static const struct store_schema *const v2[] = {&schema_v2, NULL};
static const struct store_schema *const bad[] = {&schema_bad, NULL};

static void open_v1(struct ground *g)
{
    struct un_error err = UN_ERROR_INIT;
    if (ground_open_store(g, v1, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static int set_up(void **state)
{
    struct ground *g = calloc(1, sizeof *g);
    ground_open(g);
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
#ifdef UNID_FAULT_INJECTION
    un_fault_set(NULL);
#endif
    ground_close(*state);
    free(*state);
    return 0;
}

/* A job that inserts one row, and may fail after it. */
struct insert {
    struct store_job job;
    struct ground *g;
    int64_t x;
    int fail_with;
    int rc, calls;
    unsigned *left;
};

static int insert_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct insert *i = un_container_of(job, struct insert, job);
    int rc = store_exec(db, err, "INSERT INTO t(x) VALUES(?)", "i", i->x);
    return rc < 0 || !i->fail_with ? rc : un_error_set(err, i->fail_with, "as told");
}

static void insert_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct insert *i = un_container_of(job, struct insert, job);
    i->rc = rc;
    i->calls++;
    if (--*i->left == 0) {
        ground_came(i->g);
    }
}

/* Holds the writer until told, so that what is submitted meanwhile waits together. */
struct gate {
    struct store_job job;
    int pipe[2], held[2];
};

static int gate_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct gate *gate = un_container_of(job, struct gate, job);
    char c = 0;
    return write(gate->held[1], &c, 1) == 1 && read(gate->pipe[0], &c, 1) == 1 ? 0 : -EIO;
}

static void gate_done(struct store_job *job, int rc, const struct un_error *err)
{
}

static void gate_close(struct gate *gate, struct store *s)
{
    *gate = (struct gate){.job = {.access = STORE_WRITE, .run = gate_run, .done = gate_done}};
    char c;
    assert_int_equal(pipe2(gate->pipe, O_CLOEXEC), 0);
    assert_int_equal(pipe2(gate->held, O_CLOEXEC), 0);
    store_submit(s, &gate->job);
    assert_int_equal(read(gate->held[0], &c, 1), 1);
}

static void gate_open(struct gate *gate)
{
    assert_int_equal(write(gate->pipe[1], "x", 1), 1);
}

static void gate_done_with(struct gate *gate)
{
    close(gate->pipe[0]);
    close(gate->pipe[1]);
    close(gate->held[0]);
    close(gate->held[1]);
}

enum { MANY = 50 };

static void submit_many(struct ground *g, struct insert *jobs, unsigned *left)
{
    *left = MANY;
    for (int i = 0; i < MANY; i++) {
        jobs[i].job =
            (struct store_job){.access = STORE_WRITE, .run = insert_run, .done = insert_done};
        jobs[i].g = g;
        jobs[i].x = i + 1;
        jobs[i].left = left;
        store_submit(g->store, &jobs[i].job);
    }
}

static void jobs_that_wait_together_share_a_commit(void **state)
{
    struct ground *g = *state;
    struct insert jobs[MANY] = {0};
    struct gate gate;
    struct store_stats before, after;
    unsigned left;
    open_v1(g);
    store_get_stats(g->store, &before);
    gate_close(&gate, g->store);
    submit_many(g, jobs, &left);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(jobs[i].calls, 0); /* never inside store_submit */
    }
    gate_open(&gate);
    ground_wait(g);
    store_get_stats(g->store, &after);
    assert_int_equal(after.jobs - before.jobs, MANY + 1);
    assert_int_equal(after.commits - before.commits, 2); /* the gate's, and theirs */
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), MANY);
    gate_done_with(&gate);
}

static void a_failed_job_leaves_the_others_alone(void **state)
{
    struct ground *g = *state;
    struct insert jobs[MANY] = {0};
    struct gate gate;
    unsigned left;
    open_v1(g);
    for (int i = 0; i < MANY; i += 5) {
        jobs[i].fail_with = -EDOM;
    }
    gate_close(&gate, g->store);
    submit_many(g, jobs, &left);
    gate_open(&gate);
    ground_wait(g);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(jobs[i].rc, i % 5 == 0 ? -EDOM : 0);
    }
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), MANY - MANY / 5);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t WHERE (x - 1) % 5 = 0"), 0);
    gate_done_with(&gate);
}

static void a_job_alone_that_fails_is_undone(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    struct insert job = {
        .job = {.access = STORE_WRITE, .run = insert_run}, .x = 1, .fail_with = -EDOM};
    open_v1(g);
    assert_int_equal(store_run_blocking(g->store, &job.job, &err), -EDOM);
    assert_string_equal(err.text, "as told");
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), 0);
    job.fail_with = 0;
    assert_int_equal(store_run_blocking(g->store, &job.job, &err), 0);
    assert_int_equal(store_run_blocking(g->store, &job.job, &err), -EEXIST);
}

/* A full disk in the middle of a group makes SQLite give up the transaction. */
static int rollback_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return un_error_set(err, -ENOSPC, "gave up");
}

static void what_a_lost_transaction_undid_is_not_reported_done(void **state)
{
    struct ground *g = *state;
    struct insert jobs[MANY] = {0};
    struct gate gate;
    unsigned left = 3;
    open_v1(g);
    gate_close(&gate, g->store);
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct insert){.job = {.access = STORE_WRITE,
                                          .run = i == 1 ? rollback_run : insert_run,
                                          .done = insert_done},
                                  .g = g,
                                  .x = i + 1,
                                  .left = &left};
        store_submit(g->store, &jobs[i].job);
    }
    gate_open(&gate);
    ground_wait(g);
    assert_int_equal(jobs[0].rc, -ENOSPC);
    assert_int_equal(jobs[1].rc, -ENOSPC);
    assert_int_equal(jobs[2].rc, 0);
    assert_int_equal(ground_number(g, "SELECT group_concat(x) FROM t"), 3);
    gate_done_with(&gate);
}

static void order_of_submission_is_kept_between_lazy_and_full(void **state)
{
    struct ground *g = *state;
    struct insert jobs[MANY] = {0};
    struct gate gate;
    unsigned left = MANY;
    open_v1(g);
    ground_write(g, "CREATE TABLE log(n INTEGER PRIMARY KEY, x)");
    ground_write(g,
                 "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log(x) VALUES(new.x); END");
    gate_close(&gate, g->store);
    for (int i = 0; i < MANY; i++) {
        jobs[i] = (struct insert){.job = {.access = i % 3 ? STORE_WRITE_LAZY : STORE_WRITE,
                                          .run = insert_run,
                                          .done = insert_done},
                                  .g = g,
                                  .x = MANY - i,
                                  .left = &left};
        store_submit(g->store, &jobs[i].job);
    }
    gate_open(&gate);
    ground_wait(g);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM log WHERE n + x = 51"), MANY);
    gate_done_with(&gate);
}

struct chain {
    struct store_job write, read;
    struct ground *g;
    int64_t seen;
    int rounds;
};

static int chain_write(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    return store_exec(db, err, "INSERT INTO t(x) VALUES(NULL)", "");
}

static int chain_read(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct chain *c = un_container_of(job, struct chain, read);
    struct sql_job q = {.sql = "SELECT count(*) FROM t"};
    int rc = sql_job_run(&q.job, db, err);
    c->seen = q.value;
    return rc;
}

static void chain_written(struct store_job *job, int rc, const struct un_error *err)
{
    struct chain *c = un_container_of(job, struct chain, write);
    c->rounds++;
    store_submit(c->g->store, &c->read);
}

static void chain_was_read(struct store_job *job, int rc, const struct un_error *err)
{
    struct chain *c = un_container_of(job, struct chain, read);
    if (c->seen != c->rounds || c->rounds == 100) {
        ground_came(c->g);
    } else {
        store_submit(c->g->store, &c->write);
    }
}

static void a_read_sees_what_was_reported_written(void **state)
{
    struct ground *g = *state;
    struct chain c = {.write = {.access = STORE_WRITE, .run = chain_write, .done = chain_written},
                      .read = {.access = STORE_READ, .run = chain_read, .done = chain_was_read},
                      .g = g};
    open_v1(g);
    store_submit(g->store, &c.write);
    ground_wait(g);
    assert_int_equal(c.rounds, 100);
    assert_int_equal(c.seen, 100);
}

static void a_read_job_cannot_write(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    open_v1(g);
    assert_int_equal(ground_sql(g, STORE_READ, "INSERT INTO t(x) VALUES(1)", NULL, &err), -EROFS);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), 0);
}

static void closing_runs_what_is_queued(void **state)
{
    struct ground *g = *state;
    struct insert jobs[MANY] = {0};
    unsigned left;
    open_v1(g);
    submit_many(g, jobs, &left);
    store_close(g->store);
    g->store = NULL;
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(jobs[i].calls, 1);
        assert_int_equal(jobs[i].rc, 0);
    }
    open_v1(g);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), MANY);
}

static void the_file_is_private_and_large_in_pages(void **state)
{
    struct ground *g = *state;
    struct stat st;
    open_v1(g);
    assert_int_equal(stat(g->db, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    store_close(un_steal(&g->store));
    assert_int_equal(chmod(g->db, 0644), 0); /* a copy that was put back */
    open_v1(g);
    assert_int_equal(stat(g->db, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(ground_number(g, "PRAGMA page_size"), 16384);
    assert_int_equal(ground_number(g, "PRAGMA auto_vacuum"), 2);
    assert_int_equal(ground_number(g, "PRAGMA foreign_keys"), 1);
}

static void a_second_opener_is_refused(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    struct store_spec spec = {.loop = g->loop, .path = g->db, .schemas = v1};
    struct store *second = NULL;
    open_v1(g);
    assert_int_equal(store_open(&spec, &second, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another unid"));
    assert_null(second);
}

static void migrations_go_forward_and_keep_the_data(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    open_v1(g);
    ground_write(g, "INSERT INTO t(x) VALUES(42)");
    store_close(g->store);
    g->store = NULL;
    assert_int_equal(ground_open_store(g, v2, &err), 0);
    assert_int_equal(ground_number(g, "SELECT z FROM t WHERE x = 42"), 7);
    assert_int_equal(ground_number(g, "SELECT version FROM schema_version"), 2);
}

static void a_newer_file_is_refused_untouched(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(ground_open_store(g, v2, &err), 0);
    store_close(g->store);
    g->store = NULL;
    assert_int_equal(ground_open_store(g, v1, &err), -EPROTO);
    assert_non_null(strstr(err.text, "version 2"));
    assert_int_equal(ground_open_store(g, v2, &err), 0);
}

static void a_step_that_fails_leaves_the_version_before(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    open_v1(g);
    ground_write(g, "INSERT INTO t(x) VALUES(1)");
    store_close(g->store);
    g->store = NULL;
    assert_true(ground_open_store(g, bad, &err) < 0);
    open_v1(g);
    assert_int_equal(ground_number(g, "SELECT version FROM schema_version"), 1);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM sqlite_schema WHERE name = 'u'"), 0);
}

static void overwrite(const char *path, off_t at, const char *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, at), len);
    close(fd);
}

static void a_file_that_is_no_database_is_refused_with_advice(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    char junk[4096];
    memset(junk, 'j', sizeof junk);
    overwrite(g->db, 0, junk, sizeof junk);
    assert_int_equal(ground_open_store(g, v1, &err), -EUCLEAN);
    assert_non_null(strstr(err.text, "move the file aside"));
}

static void a_truncated_file_is_refused(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    open_v1(g);
    ground_write(g, "INSERT INTO t(y) VALUES(randomblob(200000))");
    store_close(g->store);
    g->store = NULL;
    assert_int_equal(truncate(g->db, 16384 * 3), 0);
    assert_int_equal(ground_open_store(g, v1, &err), -EUCLEAN);
}

static void damage_found_later_is_told_as_such(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    char junk[16384];
    open_v1(g);
    ground_write(g, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
                    " INSERT INTO t(y) SELECT randomblob(1000) FROM n");
    int64_t root = ground_number(g, "SELECT rootpage FROM sqlite_schema WHERE name = 't'");
    store_close(g->store);
    g->store = NULL;
    memset(junk, 0xff, sizeof junk);
    overwrite(g->db, (root - 1) * 16384, junk, sizeof junk);
    open_v1(g); /* not noticed yet: reading all of a large file at each start would take too long */
    assert_int_equal(ground_sql(g, STORE_READ, "SELECT count(y) FROM t", NULL, &err), -EUCLEAN);
}

static void somebody_elses_database_is_refused(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(g->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE theirs(x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(ground_open_store(g, v1, &err), -EUCLEAN);
}

static void a_missing_directory_and_a_directory_are_told_apart(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    struct store_spec spec = {.loop = g->loop, .path = "/nonexistent/unid.db", .schemas = v1};
    struct store *s = NULL;
    assert_int_equal(store_open(&spec, &s, &err), -ENOENT);
    assert_int_equal(mkdir(g->db, 0700), 0);
    assert_int_equal(ground_open_store(g, v1, &err), -EISDIR);
    rmdir(g->db);
}

static void a_full_database_fails_the_job_and_takes_the_next(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    open_v1(g);
    ground_sql(g, STORE_WRITE, "PRAGMA max_page_count=20", NULL, &err);
    assert_int_equal(
        ground_sql(g, STORE_WRITE, "INSERT INTO t(y) VALUES(randomblob(1000000))", NULL, &err),
        -ENOSPC);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), 0);
    ground_write(g, "INSERT INTO t(y) VALUES(randomblob(1000))");
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), 1);
}

/* The child writes down what it was told is done, and is killed in the middle of its work. */
struct durable {
    struct store_job job;
    struct ground *g;
    int64_t x;
    int fd; /* where the parent listens */
};

static int durable_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct durable *d = un_container_of(job, struct durable, job);
    return store_exec(db, err, "INSERT INTO t(x, y) VALUES(?, randomblob(3000))", "i", d->x);
}

static void durable_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct durable *d = un_container_of(job, struct durable, job);
    if (rc < 0 || write(d->fd, &d->x, sizeof d->x) != sizeof d->x) {
        _exit(3);
    }
    d->x += 4;
    d->job.access = d->x % 3 ? STORE_WRITE : STORE_WRITE_LAZY;
    store_submit(d->g->store, &d->job);
}

static void child_writes_for_ever(struct ground *g, int fd)
{
    struct durable jobs[4] = {0};
    struct un_error err = UN_ERROR_INIT;
    if (un_loop_new(&g->loop, &err) < 0 || ground_open_store(g, v1, &err) < 0) {
        _exit(2);
    }
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct durable){
            .job = {.access = STORE_WRITE, .run = durable_run, .done = durable_done},
            .g = g,
            .x = i + 1,
            .fd = fd};
        store_submit(g->store, &jobs[i].job);
    }
    un_loop_run(g->loop);
    _exit(4);
}

static void what_was_reported_done_survives_kill_nine(void **state)
{
    struct ground *g = *state;
    static int64_t told[200000];
    size_t count = 0;
    for (int round = 0; round < 3; round++) {
        int fds[2];
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct ground child = *g;
            child_writes_for_ever(&child, fds[1]);
        }
        close(fds[1]);
        size_t stop = count + 150 + 37 * (size_t)round;
        while (count < UN_ARRAY_SIZE(told) && read(fds[0], &told[count], 8) == 8) {
            if (++count == stop) {
                kill(pid, SIGKILL);
            }
        }
        close(fds[0]);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        open_v1(g);
        for (size_t i = 0; i < count; i++) {
            char sql[80];
            snprintf(sql, sizeof sql, "SELECT count(*) FROM t WHERE x = %lld", (long long)told[i]);
            assert_int_equal(ground_number(g, sql), 1);
        }
        ground_write(g, "DELETE FROM t");
        count = 0;
        store_close(g->store);
        g->store = NULL;
    }
}

static void freed_pages_go_back_to_the_file_system_when_idle(void **state)
{
    struct ground *g = *state;
    struct store_stats full, shrunk;
    open_v1(g);
    for (int i = 0; i < 40; i++) {
        ground_write(g, "INSERT INTO t(y) VALUES(zeroblob(1000000))");
    }
    ground_write(g, "DELETE FROM t");
    store_get_stats(g->store, &full);
    /* The housekeeping comes after a second without writes; what is waited for is the file. */
    for (int i = 0; i < 1200; i++) {
        store_get_stats(g->store, &shrunk);
        if (full.file_bytes > 16000000 && shrunk.file_bytes < 20000000 &&
            ground_number(g, "PRAGMA freelist_count") <= 16 * 64) {
            break;
        }
        usleep(50000);
    }
    assert_in_range(ground_number(g, "PRAGMA page_count"), 1, 1100);
}

#ifdef UNID_FAULT_INJECTION
static void a_commit_that_fails_fails_its_whole_group(void **state)
{
    struct ground *g = *state;
    struct insert jobs[MANY] = {0};
    struct gate gate;
    unsigned left;
    open_v1(g);
    un_fault_set("store.commit=ENOSPC@2"); /* the gate's is the first */
    gate_close(&gate, g->store);
    submit_many(g, jobs, &left);
    gate_open(&gate);
    ground_wait(g);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(jobs[i].rc, -ENOSPC);
    }
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), 0);
    ground_write(g, "INSERT INTO t(x) VALUES(1)");
    gate_done_with(&gate);
}

static void failures_of_the_system_reach_the_job(void **state)
{
    struct ground *g = *state;
    struct un_error err = UN_ERROR_INIT;
    int64_t value;
    un_fault_set("store.open=EACCES");
    assert_int_equal(ground_open_store(g, v1, &err), -EACCES);
    un_fault_set("store.migrate=ENOSPC");
    assert_int_equal(ground_open_store(g, v1, &err), -ENOSPC);
    un_fault_set("store.thread=EAGAIN");
    assert_int_equal(ground_open_store(g, v1, &err), -EAGAIN);
    un_fault_set(NULL);
    open_v1(g);
    un_fault_set("store.thread=EAGAIN");
    assert_int_equal(ground_sql(g, STORE_READ, "SELECT 1", &value, &err), -EAGAIN);
    un_fault_set("store.read=EIO");
    assert_int_equal(ground_sql(g, STORE_READ, "SELECT 1", &value, &err), -EIO);
    un_fault_set("store.begin=EIO");
    assert_int_equal(ground_sql(g, STORE_WRITE, "SELECT 1", &value, &err), -EIO);
    un_fault_set("store.step=ENOSPC");
    assert_int_equal(ground_sql(g, STORE_WRITE, "INSERT INTO t(x) VALUES(1)", &value, &err),
                     -ENOSPC);
    un_fault_set("store.room=ENOSPC");
    assert_int_equal(store_check_room(g->store, 1, &err), -ENOSPC);
    un_fault_set(NULL);
    assert_int_equal(store_check_room(g->store, 1, &err), 0);
    assert_int_equal(store_check_room(g->store, UINT64_MAX, &err), -ENOSPC);
    assert_int_equal(ground_number(g, "SELECT count(*) FROM t"), 0);
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(jobs_that_wait_together_share_a_commit),
        TEST(a_failed_job_leaves_the_others_alone),
        TEST(a_job_alone_that_fails_is_undone),
        TEST(what_a_lost_transaction_undid_is_not_reported_done),
        TEST(order_of_submission_is_kept_between_lazy_and_full),
        TEST(a_read_sees_what_was_reported_written),
        TEST(a_read_job_cannot_write),
        TEST(closing_runs_what_is_queued),
        TEST(the_file_is_private_and_large_in_pages),
        TEST(a_second_opener_is_refused),
        TEST(migrations_go_forward_and_keep_the_data),
        TEST(a_newer_file_is_refused_untouched),
        TEST(a_step_that_fails_leaves_the_version_before),
        TEST(a_file_that_is_no_database_is_refused_with_advice),
        TEST(a_truncated_file_is_refused),
        TEST(damage_found_later_is_told_as_such),
        TEST(somebody_elses_database_is_refused),
        TEST(a_missing_directory_and_a_directory_are_told_apart),
        TEST(a_full_database_fails_the_job_and_takes_the_next),
        TEST(what_was_reported_done_survives_kill_nine),
        TEST(freed_pages_go_back_to_the_file_system_when_idle),
#ifdef UNID_FAULT_INJECTION
        TEST(a_commit_that_fails_fails_its_whole_group),
        TEST(failures_of_the_system_reach_the_job),
#endif
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
