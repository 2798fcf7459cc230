/* registry.c - questions and changes about functions (see function.h).
 *
 * Each call is a store job in a struct registry_op. What is kept in the cache may never be older
 * than the last change that was reported: a change drops the function's entries and raises
 * `generation` when it is done, and a lookup that was under way meanwhile may answer its caller,
 * but is not kept.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "common/limits.h"
#include "imagestore/registry_internal.h"

enum { LISTENERS_MAX = 6 };

struct registry {
    struct un_loop *loop;
    struct store *store;
    struct version_cache cache;
    uint64_t generation;
    struct {
        registry_change_fn fn;
        void *arg;
    } listeners[LISTENERS_MAX];
    unsigned listener_count;
    unsigned pending; /* its user and each op */
    bool closed;
};

struct registry_op {
    struct store_job job;
    struct un_post post; /* for an answer that is known at once */
    struct registry *registry;
    /* the question */
    char name[FUNCTION_NAME_SIZE], word[FUNCTION_NAME_SIZE]; /* word: qualifier, alias, or after */
    bool valid;                                              /* name and word are well-formed */
    unsigned number;                                         /* limit, or version */
    struct function_config config;
    char why[160]; /* of a version that failed */
    uint64_t generation;
    /* the answer */
    bool created, went_back;
    struct version_list versions;
    struct un_buf aliases; /* struct function_alias */
    /* of a change */
    int (*change)(struct registry_op *op, sqlite3 *db, struct un_error *err);
    struct version_list live; /* afterwards; empty: the function is gone */
    /* tells the caller */
    void (*tell)(struct registry_op *op, int rc, const struct un_error *err);
    union {
        function_version_cb version;
        function_deploy_cb deploy;
        function_list_cb list;
        function_aliases_cb aliases;
        function_done_cb done;
        function_failed_cb failed;
    } cb;
    void *arg;
};

static const struct un_error no_memory = {.code = -ENOMEM, .text = "out of memory"};

int registry_open(struct un_loop *loop, struct store *store, struct registry **ret,
                  struct un_error *err)
{
    struct registry *r = un_fault("registry.open") ? NULL : calloc(1, sizeof *r);
    if (!r) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    r->loop = loop;
    r->store = store;
    r->pending = 1;
    version_cache_init(&r->cache, LIMIT_FUNCTION_CACHE);
    *ret = r;
    return 0;
}

static void release(struct registry *r)
{
    if (--r->pending == 0) {
        version_cache_done(&r->cache);
        free(r);
    }
}

void registry_close(struct registry *r)
{
    if (r) {
        r->closed = true;
        version_cache_done(&r->cache);
        release(r);
    }
}

void registry_on_change(struct registry *r, registry_change_fn fn, void *arg)
{
    assert(r->listener_count < LISTENERS_MAX);
    r->listeners[r->listener_count].fn = fn;
    r->listeners[r->listener_count++].arg = arg;
}

void registry_off_change(struct registry *r, registry_change_fn fn, void *arg)
{
    for (unsigned i = 0; i < r->listener_count; i++) {
        if (r->listeners[i].fn == fn && r->listeners[i].arg == arg) {
            r->listeners[i] = r->listeners[--r->listener_count];
            return;
        }
    }
}

static struct function_version *first_of(const struct version_list *list)
{
    return list->count ? list->items[0] : NULL;
}

/* Before the change's caller is told, so that what it asks next is answered by the new state. */
static void changed(struct registry *r, const struct registry_op *op)
{
    r->generation++;
    version_cache_drop(&r->cache, op->name);
    for (unsigned i = 0; i < r->listener_count && !r->closed; i++) {
        r->listeners[i].fn(r->listeners[i].arg, op->name, first_of(&op->live));
    }
}

/* --- the flow of an op ------------------------------------------------------------------------ */

static void op_free(struct registry_op *op)
{
    struct registry *r = op->registry;
    version_list_done(&op->versions);
    version_list_done(&op->live);
    un_buf_done(&op->aliases);
    function_config_done(&op->config);
    free(op);
    release(r);
}

static void op_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct registry_op *op = un_container_of(job, struct registry_op, job);
    if (rc == 0 && job->access == STORE_WRITE) {
        changed(op->registry, op);
    }
    op->tell(op, rc, err);
    op_free(op);
}

static bool copy_word(char to[FUNCTION_NAME_SIZE], const char *from)
{
    size_t len = strnlen(from, FUNCTION_NAME_SIZE);
    if (len == FUNCTION_NAME_SIZE) {
        return false;
    }
    memcpy(to, from, len + 1);
    return true;
}

/* NULL when out of memory: the caller tells its callback. `name` NULL: none is needed. */
static struct registry_op *op_new(struct registry *r, const char *name, const char *word, void *arg)
{
    struct registry_op *op = un_fault("registry.op") ? NULL : calloc(1, sizeof *op);
    if (op) {
        op->registry = r;
        op->generation = r->generation;
        op->arg = arg;
        op->valid = (!name || (function_name_valid(name) && copy_word(op->name, name))) &&
                    (!word || copy_word(op->word, word));
        r->pending++;
    }
    return op;
}

static struct registry_op *op_of(struct store_job *job)
{
    return un_container_of(job, struct registry_op, job);
}

static int no_function(struct un_error *err)
{
    return un_error_set(err, -ENOENT, "no such function");
}

static void op_read(struct registry_op *op,
                    int (*run)(struct store_job *, sqlite3 *, struct un_error *))
{
    op->job = (struct store_job){.access = STORE_READ, .run = run, .done = op_done};
    store_submit(op->registry->store, &op->job);
}

/* In the change's own transaction: what is live afterwards is what its listeners are told, whatever is changed next. */
static int change_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    struct un_error gone = UN_ERROR_INIT;
    int rc = op->change(op, db, err);
    if (rc < 0) {
        return rc;
    }
    rc = registry_sql_resolve(db, op->name, FUNCTION_LIVE, &op->live, &gone);
    if (rc < 0 && rc != -ENOENT) {
        un_error_copy(err, &gone);
        return rc;
    }
    return 0;
}

static void op_change(struct registry_op *op,
                      int (*fn)(struct registry_op *op, sqlite3 *db, struct un_error *err))
{
    op->change = fn;
    op->job = (struct store_job){.access = STORE_WRITE, .run = change_run, .done = op_done};
    store_submit(op->registry->store, &op->job);
}

static void tell_done(struct registry_op *op, int rc, const struct un_error *err)
{
    op->cb.done(op->arg, rc, err);
}

static void tell_list(struct registry_op *op, int rc, const struct un_error *err)
{
    op->cb.list(op->arg, rc, rc == 0 ? op->versions.items : NULL, rc == 0 ? op->versions.count : 0,
                err);
}

/* --- deploy ----------------------------------------------------------------------------------- */

static int deploy_run(struct registry_op *op, sqlite3 *db, struct un_error *err)
{
    if (!op->valid) {
        return un_error_set(err, -EINVAL,
                            "a function's name is 1 to 63 of a-z 0-9 -, starts with a letter and "
                            "does not end with -");
    }
    return registry_sql_deploy(db, op->name, &op->config, &op->created, err);
}

static void tell_deploy(struct registry_op *op, int rc, const struct un_error *err)
{
    op->cb.deploy(op->arg, rc, rc == 0 ? first_of(&op->live) : NULL, rc == 0 && op->created, err);
}

void function_deploy(struct registry *r, const char *name, struct function_config *config,
                     function_deploy_cb cb, void *arg)
{
    struct registry_op *op = op_new(r, name, NULL, arg);
    struct function_config taken = *config;
    function_config_init(config);
    if (!op) {
        function_config_done(&taken);
        cb(arg, -ENOMEM, NULL, false, &no_memory);
        return;
    }
    op->config = taken;
    op->cb.deploy = cb;
    op->tell = tell_deploy;
    op_change(op, deploy_run);
}

/* --- resolve ---------------------------------------------------------------------------------- */

static int resolve_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    return op->valid ? registry_sql_resolve(db, op->name, op->word, &op->versions, err)
                     : no_function(err);
}

static void tell_version(struct registry_op *op, int rc, const struct un_error *err)
{
    struct registry *r = op->registry;
    if (rc == 0 && op->generation == r->generation && !r->closed) {
        version_cache_put(&r->cache, op->word, op->versions.items[0]);
    }
    op->cb.version(op->arg, rc, rc == 0 ? op->versions.items[0] : NULL, err);
}

static void on_known(void *arg)
{
    struct registry_op *op = arg;
    op->cb.version(op->arg, 0, op->versions.items[0], NULL);
    op_free(op);
}

void function_resolve(struct registry *r, const char *name, const char *qualifier,
                      function_version_cb cb, void *arg)
{
    const char *word = qualifier ? qualifier : FUNCTION_LIVE;
    struct function_version *known = version_cache_get(&r->cache, name, word);
    struct registry_op *op = op_new(r, name, word, arg);
    struct function_version **item = op && known ? malloc(sizeof *item) : NULL;
    if (!op || (known && !item)) {
        if (op) {
            op_free(op);
        }
        cb(arg, -ENOMEM, NULL, &no_memory);
        return;
    }
    op->cb.version = cb;
    op->tell = tell_version;
    if (known) {
        item[0] = function_ref(known);
        op->versions = (struct version_list){.items = item, .count = 1, .room = 1};
        op->post = (struct un_post){.fn = on_known, .arg = op};
        un_loop_post(r->loop, &op->post);
        return;
    }
    op_read(op, resolve_run);
}

struct function_version *function_peek(struct registry *r, const char *name, const char *qualifier)
{
    return version_cache_get(&r->cache, name, qualifier ? qualifier : FUNCTION_LIVE);
}

/* --- what is missing -------------------------------------------------------------------------- */

struct missing_op {
    struct store_job job;
    const char *const *names;
    size_t count;
    function_missing_cb cb;
    void *arg;
    bool missing[];
};

static int is_missing(sqlite3 *db, const char *target, bool *ret, struct un_error *err)
{
    char name[FUNCTION_NAME_SIZE] = "";
    struct version_list found = {0};
    struct un_error why = UN_ERROR_INIT;
    size_t len = strcspn(target, ":");
    if (len >= sizeof(name)) {
        *ret = true;
        return 0;
    }
    memcpy(name, target, len);
    int rc = registry_sql_resolve(db, name, target[len] ? target + len + 1 : FUNCTION_LIVE, &found,
                                  &why);
    version_list_done(&found);
    *ret = rc == -ENOENT;
    if (rc < 0 && rc != -ENOENT) {
        un_error_copy(err, &why);
        return rc;
    }
    return 0;
}

static int missing_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct missing_op *op = un_container_of(job, struct missing_op, job);
    int rc = 0;
    for (size_t i = 0; i < op->count && rc == 0; i++) {
        rc = is_missing(db, op->names[i], &op->missing[i], err);
    }
    return rc;
}

static void missing_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct missing_op *op = un_container_of(job, struct missing_op, job);
    op->cb(op->arg, rc, rc == 0 ? op->missing : NULL, err);
    free(op);
}

void function_find_missing(struct registry *r, const char *const *names, size_t count,
                           function_missing_cb cb, void *arg)
{
    struct missing_op *op =
        un_fault("registry.op") ? NULL : calloc(1, sizeof *op + count * sizeof op->missing[0]);
    if (!op) {
        cb(arg, -ENOMEM, NULL, &no_memory);
        return;
    }
    op->names = names;
    op->count = count;
    op->cb = cb;
    op->arg = arg;
    op->job = (struct store_job){.access = STORE_READ, .run = missing_run, .done = missing_done};
    store_submit(r->store, &op->job);
}

/* --- lists ------------------------------------------------------------------------------------ */

static int list_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    /* An `after` that is too long for a name: cut, it still comes right before all that follow it.
     */
    return registry_sql_list(db, op->word, op->number, false, &op->versions, err);
}

static int list_kept_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    return registry_sql_list_kept(db, op->word, op->number, &op->versions, err);
}

static int published_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    return registry_sql_list(db, op->word, op->number, true, &op->versions, err);
}

struct list_spec {
    const char *after;
    unsigned limit;
    int (*run)(struct store_job *, sqlite3 *, struct un_error *);
};

static void list(struct registry *r, const struct list_spec *spec, function_list_cb cb, void *arg)
{
    struct registry_op *op = op_new(r, NULL, NULL, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, 0, &no_memory);
        return;
    }
    if (spec->after) {
        strncat(op->word, spec->after, sizeof op->word - 1);
    }
    op->number = spec->limit < LIMIT_PAGE_ITEMS ? spec->limit : LIMIT_PAGE_ITEMS;
    op->cb.list = cb;
    op->tell = tell_list;
    op_read(op, spec->run);
}

void function_list(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                   void *arg)
{
    list(r, &(struct list_spec){after, limit, list_run}, cb, arg);
}

void function_list_kept(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                        void *arg)
{
    list(r, &(struct list_spec){after, limit, list_kept_run}, cb, arg);
}

void function_list_published(struct registry *r, const char *after, unsigned limit,
                             function_list_cb cb, void *arg)
{
    list(r, &(struct list_spec){after, limit, published_run}, cb, arg);
}

static int versions_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    return op->valid ? registry_sql_versions(db, op->name, &op->versions, err) : no_function(err);
}

void function_versions(struct registry *r, const char *name, function_list_cb cb, void *arg)
{
    struct registry_op *op = op_new(r, name, NULL, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, 0, &no_memory);
        return;
    }
    op->cb.list = cb;
    op->tell = tell_list;
    op_read(op, versions_run);
}

static int read_aliases(sqlite3 *db, int64_t function_id, struct un_buf *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT alias, version FROM function_aliases WHERE function_id = ?"
                           " ORDER BY alias",
                           "i", function_id);
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        struct function_alias a = {.version = (uint32_t)sqlite3_column_int64(stmt, 1)};
        strncat(a.alias, (const char *)sqlite3_column_text(stmt, 0), sizeof a.alias - 1);
        rc = un_buf_append(ret, &a, sizeof a);
        if (rc < 0) {
            return un_error_set(err, rc, "out of memory");
        }
    }
    return rc;
}

static int aliases_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct registry_op *op = op_of(job);
    int64_t id;
    int rc = op->valid ? registry_sql_function_id(db, op->name, &id, err) : no_function(err);
    return rc < 0 ? rc : read_aliases(db, id, &op->aliases, err);
}

static void tell_aliases(struct registry_op *op, int rc, const struct un_error *err)
{
    const struct function_alias *list = (const struct function_alias *)op->aliases.data;
    op->cb.aliases(op->arg, rc, rc == 0 ? list : NULL, rc == 0 ? op->aliases.len / sizeof *list : 0,
                   err);
}

void function_aliases(struct registry *r, const char *name, function_aliases_cb cb, void *arg)
{
    struct registry_op *op = op_new(r, name, NULL, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, 0, &no_memory);
        return;
    }
    op->cb.aliases = cb;
    op->tell = tell_aliases;
    op_read(op, aliases_run);
}

/* --- changes ---------------------------------------------------------------------------------- */

/* A change that gives nothing but its success. */
static void change(struct registry *r, const char *name, const char *word, uint32_t number,
                   int (*fn)(struct registry_op *op, sqlite3 *db, struct un_error *err),
                   function_done_cb cb, void *arg)
{
    struct registry_op *op = op_new(r, name, word, arg);
    if (!op) {
        cb(arg, -ENOMEM, &no_memory);
        return;
    }
    op->number = number;
    op->cb.done = cb;
    op->tell = tell_done;
    op_change(op, fn);
}

static int set_alias_run(struct registry_op *op, sqlite3 *db, struct un_error *err)
{
    if (!op->valid) {
        return no_function(err);
    }
    if (!function_alias_valid(op->word)) {
        return un_error_set(err, -EINVAL,
                            "an alias is 1 to 63 of a-z 0-9 -, starts with a letter "
                            "and does not end with -");
    }
    return registry_sql_set_alias(db, op->name, op->word, op->number, err);
}

void function_set_alias(struct registry *r, const char *name, const char *alias, uint32_t version,
                        function_done_cb cb, void *arg)
{
    /* An alias too long to copy is left empty, which is not valid either. */
    bool fits = strnlen(alias, FUNCTION_NAME_SIZE) < FUNCTION_NAME_SIZE;
    change(r, name, fits ? alias : NULL, version, set_alias_run, cb, arg);
}

static int remove_alias_run(struct registry_op *op, sqlite3 *db, struct un_error *err)
{
    if (!op->valid) {
        return no_function(err);
    }
    if (strcmp(op->word, FUNCTION_LIVE) == 0) {
        return un_error_set(err, -EBUSY,
                            "\"" FUNCTION_LIVE "\" is what requests get that name no version: it "
                            "can be moved to another one, but not removed");
    }
    return registry_sql_remove_alias(db, op->name, op->word, err);
}

void function_remove_alias(struct registry *r, const char *name, const char *alias,
                           function_done_cb cb, void *arg)
{
    bool fits = strnlen(alias, FUNCTION_NAME_SIZE) < FUNCTION_NAME_SIZE;
    change(r, name, fits ? alias : "", 0, remove_alias_run, cb, arg);
}

static int remove_run(struct registry_op *op, sqlite3 *db, struct un_error *err)
{
    return op->valid ? registry_sql_remove(db, op->name, err) : no_function(err);
}

void function_remove(struct registry *r, const char *name, function_done_cb cb, void *arg)
{
    change(r, name, NULL, 0, remove_run, cb, arg);
}

/* --- what becomes of versions ----------------------------------------------------------------- */

static int note_ready_run(struct registry_op *op, sqlite3 *db, struct un_error *err)
{
    return op->valid ? registry_sql_note_ready(db, op->name, op->number, err) : no_function(err);
}

void function_note_ready(struct registry *r, const char *name, uint32_t version,
                         function_done_cb cb, void *arg)
{
    change(r, name, NULL, version, note_ready_run, cb, arg);
}

static int note_failed_run(struct registry_op *op, sqlite3 *db, struct un_error *err)
{
    return op->valid
               ? registry_sql_note_failed(db, op->name, op->number, op->why, &op->went_back, err)
               : no_function(err);
}

static void tell_failed(struct registry_op *op, int rc, const struct un_error *err)
{
    op->cb.failed(op->arg, rc, rc == 0 && op->went_back ? first_of(&op->live) : NULL, err);
}

void function_note_failed(struct registry *r, const char *name, uint32_t version, const char *why,
                          function_failed_cb cb, void *arg)
{
    struct registry_op *op = op_new(r, name, NULL, arg);
    if (!op) {
        cb(arg, -ENOMEM, NULL, &no_memory);
        return;
    }
    op->number = version;
    snprintf(op->why, sizeof op->why, "%s", why);
    op->cb.failed = cb;
    op->tell = tell_failed;
    op_change(op, note_failed_run);
}
