/* trigger_sql.c - the rows of triggers: reading all, making, replacing, removing (events.h). */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/id.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/log.h"
#include "events/events_impl.h"

enum { TOKEN_LEAST = 16, TOKEN_MOST = 128 };

/* --- tokens and columns ----------------------------------------------------------------------- */

void trigger_token_new(char ret[TRIGGER_TOKEN_SIZE])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char random[TRIGGER_TOKEN_SIZE - 1];
    un_random(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++) {
        ret[i] = digits[random[i] & 63];
    }
    ret[TRIGGER_TOKEN_SIZE - 1] = '\0';
}

int trigger_token_hash(const char *token, unsigned char ret[TRIGGER_HASH_BYTES])
{
    return EVP_Digest(token, strlen(token), ret, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

int trigger_columns(const struct trigger_config *c, char **ret_config, char **ret_secret)
{
    un_autojson json_t *config = trigger_config_to_json(c);
    un_autojson json_t *secret =
        c->secret_key
            ? json_pack("{s:s, s:s}", "access_key", c->access_key, "secret_key", c->secret_key)
            : NULL;
    json_object_del(config, "has_credentials");
    *ret_config = un_json_text(config);
    *ret_secret = secret ? un_json_text(secret) : NULL;
    return *ret_config && (!c->secret_key || *ret_secret) ? 0 : -ENOMEM;
}

static const char *column_text(sqlite3_stmt *stmt, int column)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);
    return text ? (const char *)text : "";
}

/* --- reading all ------------------------------------------------------------------------------ */

struct load {
    struct store_job job;
    struct events *ev;
};

static int parse_columns(sqlite3_stmt *stmt, struct trigger_config *ret, struct un_error *err)
{
    un_autojson json_t *config = NULL, *secret = NULL;
    const char *text = column_text(stmt, 2), *hidden = column_text(stmt, 3);
    int rc = un_json_parse(text, strlen(text), &config, err);
    if (rc == 0 && *hidden) {
        rc = un_json_parse(hidden, strlen(hidden), &secret, err);
        rc = rc == 0 && json_object_update(config, secret) < 0 ? -ENOMEM : rc;
    }
    return rc ? rc : trigger_config_parse(config, ret, err);
}

/* A row that cannot be read (its time zone is gone, say) is left alone and told. */
static int load_row(struct events *ev, sqlite3_stmt *stmt, struct un_error *err)
{
    struct un_error why = UN_ERROR_INIT;
    struct trigger *t = calloc(1, sizeof(*t));
    if (!t) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    t->id = (uint64_t)sqlite3_column_int64(stmt, 0);
    t->events = ev;
    snprintf(t->name, sizeof(t->name), "%s", column_text(stmt, 1));
    t->created_us = (uint64_t)sqlite3_column_int64(stmt, 5);
    t->changed_us = (uint64_t)sqlite3_column_int64(stmt, 6);
    t->last_s = sqlite3_column_int64(stmt, 7);
    bool whole = sqlite3_column_bytes(stmt, 4) == TRIGGER_HASH_BYTES;
    if (whole) {
        memcpy(t->token_hash, sqlite3_column_blob(stmt, 4), TRIGGER_HASH_BYTES);
    }
    int rc = parse_columns(stmt, &t->config, &why);
    if (rc == -ENOMEM || (rc == 0 && trigger_insert(ev, t) < 0)) {
        trigger_free(t);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (rc < 0 || !whole) {
        un_log(UN_LOG_ERROR, "a trigger cannot be used; add it again", "trigger", t->name, "error",
               why.text);
        trigger_free(t);
    }
    return 0;
}

static int load_topics(struct events *ev, sqlite3 *db, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT t.name, p.arn, p.url, p.error, p.received_us, p.confirmed_us"
                           " FROM trigger_topics p JOIN triggers t ON t.id = p.trigger_id"
                           " ORDER BY p.received_us",
                           "");
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        struct trigger *t = trigger_find(ev, column_text(stmt, 0));
        struct trigger_topic *topic = t ? trigger_topic_get(t, column_text(stmt, 1)) : NULL;
        rc = t && (!topic || event_copy(&topic->url, column_text(stmt, 2)) < 0 ||
                   event_copy(&topic->error, (const char *)sqlite3_column_text(stmt, 3)) < 0)
                 ? un_error_set(err, -ENOMEM, "out of memory")
                 : 0;
        if (topic && rc == 0) {
            topic->received_us = (uint64_t)sqlite3_column_int64(stmt, 4);
            topic->confirmed_us = (uint64_t)sqlite3_column_int64(stmt, 5);
        }
    }
    return rc;
}

static int load_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct events *ev = un_container_of(job, struct load, job)->ev;
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT id, name, config, secret, token, created_us, changed_us, last_s"
                           " FROM triggers ORDER BY name",
                           "");
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        rc = load_row(ev, stmt, err);
    }
    return rc < 0 ? rc : load_topics(ev, db, err);
}

int trigger_load_all(struct events *ev, struct un_error *err)
{
    struct load l = {.job = {.access = STORE_READ, .run = load_run}, .ev = ev};
    return store_run_blocking(ev->store, &l.job, err);
}

/* --- making or replacing one: read, look functions up, write, take into memory ---------------- */

struct put {
    struct store_job job;
    struct un_post post;
    struct events *ev;
    struct trigger *trigger;
    char token[TOKEN_MOST + 1]; /* the caller's, or one to be used when it is new */
    bool chosen, created;
    char *config, *secret;
    size_t next; /* function to be looked up */
    trigger_put_cb cb;
    void *arg;
    struct un_error err;
};

static void put_end(struct put *p, int rc, const struct un_error *err)
{
    struct events *ev = p->ev;
    bool show = p->created && p->trigger && p->trigger->config.kind != EVENT_CRON;
    p->cb(p->arg, rc, rc == 0 ? p->trigger : NULL, p->created, show ? p->token : NULL, err);
    if (rc < 0) {
        trigger_free(p->trigger);
    }
    explicit_bzero(p->token, sizeof(p->token));
    if (p->secret) {
        explicit_bzero(p->secret, strlen(p->secret));
    }
    free(p->config);
    free(p->secret);
    free(p);
    events_release(ev);
}

static void put_refused(void *arg)
{
    struct put *p = arg;
    put_end(p, p->err.code, &p->err);
}

static int read_number(sqlite3 *db, int64_t *ret, struct un_error *err, const char *sql,
                       const char *name)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, sql, name ? "t" : "", name);
    rc = rc ? rc : store_step(stmt, err);
    *ret = rc == 1 ? sqlite3_column_int64(stmt, 0) : 0;
    return rc < 0 ? rc : 0;
}

static int read_old(struct put *p, sqlite3 *db, bool *ret_found, struct un_error *err)
{
    struct trigger *t = p->trigger;
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(
        db, &stmt, err, "SELECT id, created_us, token FROM triggers WHERE name = ?", "t", t->name);
    rc = rc ? rc : store_step(stmt, err);
    *ret_found = rc == 1;
    if (rc == 1) {
        t->id = (uint64_t)sqlite3_column_int64(stmt, 0);
        t->created_us = (uint64_t)sqlite3_column_int64(stmt, 1);
        if (!p->chosen && sqlite3_column_bytes(stmt, 2) == TRIGGER_HASH_BYTES) {
            memcpy(t->token_hash, sqlite3_column_blob(stmt, 2), TRIGGER_HASH_BYTES);
        }
    }
    return rc < 0 ? rc : 0;
}

static int put_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct put *p = un_container_of(job, struct put, job);
    struct trigger *t = p->trigger;
    bool found;
    int rc = read_old(p, db, &found, err);
    p->created = !found;
    if (rc == 0 && found) {
        return store_exec(db, err,
                          "UPDATE triggers SET config = ?, secret = ?, token = ?, changed_us = ?,"
                          " last_s = ? WHERE id = ?",
                          "ttbiii", p->config, p->secret, t->token_hash, (size_t)TRIGGER_HASH_BYTES,
                          (int64_t)t->changed_us, t->last_s, (int64_t)t->id);
    }
    int64_t count = 0;
    rc = rc ? rc : read_number(db, &count, err, "SELECT count(*) FROM triggers", NULL);
    if (rc == 0 && count >= LIMIT_TRIGGERS) {
        rc = un_error_set(err, -ENOSPC, "there are %d triggers already", LIMIT_TRIGGERS);
    }
    rc = rc ? rc
            : store_exec(db, err,
                         "INSERT INTO triggers(name, config, secret, token, created_us, changed_us,"
                         " last_s) VALUES(?, ?, ?, ?, ?, ?, ?)",
                         "tttbiii", t->name, p->config, p->secret, t->token_hash,
                         (size_t)TRIGGER_HASH_BYTES, (int64_t)t->created_us, (int64_t)t->changed_us,
                         t->last_s);
    t->id = (uint64_t)sqlite3_last_insert_rowid(db);
    return rc;
}

/* What subscribed is a matter of the trigger's name and token, not of its filters. */
static void keep_topics(struct trigger *to, struct trigger *from)
{
    if (from && from->id == to->id) {
        to->topics = un_steal(&from->topics);
        to->topic_count = from->topic_count;
        from->topic_count = 0;
    }
}

static void put_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct put *p = un_container_of(job, struct put, job);
    struct un_error own = UN_ERROR_INIT;
    if (rc == 0) {
        keep_topics(p->trigger, trigger_find(p->ev, p->trigger->name));
        if (trigger_insert(p->ev, p->trigger) < 0) {
            rc = un_error_set(&own, -ENOMEM, "the trigger is kept, but works only after a restart");
            err = &own;
        } else {
            trigger_schedule(p->trigger);
        }
    }
    put_end(p, rc, err);
}

static void look_up(struct put *p);

static void on_function(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct put *p = arg;
    if (rc == 0) {
        p->next++;
        look_up(p);
        return;
    }
    if (rc == -ENOENT) {
        const struct trigger_function *f = &p->trigger->config.functions[p->next];
        rc = un_error_set(&p->err, -ENOTSUP, "functions: there is no \"%s%s%s\"; deploy it first",
                          f->name, *f->qualifier ? ":" : "", f->qualifier);
        err = &p->err;
    }
    put_end(p, rc, err);
}

static void look_up(struct put *p)
{
    struct trigger *t = p->trigger;
    if (p->next < t->config.function_count) {
        const struct trigger_function *f = &t->config.functions[p->next];
        function_resolve(p->ev->registry, f->name, *f->qualifier ? f->qualifier : NULL, on_function,
                         p);
        return;
    }
    p->job = (struct store_job){.access = STORE_WRITE, .run = put_run, .done = put_done};
    store_submit(p->ev->store, &p->job);
}

/* Takes "token" out of the body. */
static int read_token(struct put *p, json_t *body, struct un_error *err)
{
    const char *text = NULL;
    int rc = un_json_get_str(body, "token", &text, err);
    if (rc < 0) {
        return rc;
    }
    if (!text) {
        trigger_token_new(p->token);
        return 0;
    }
    size_t len = strlen(text);
    for (const char *c = text; *c; c++) {
        len = *c > 0x20 && *c < 0x7f ? len : 0;
    }
    if (len < TOKEN_LEAST || len > TOKEN_MOST) {
        return un_error_set(err, -EINVAL,
                            "token: must have %d to %d printable ASCII characters without spaces",
                            TOKEN_LEAST, TOKEN_MOST);
    }
    snprintf(p->token, sizeof(p->token), "%s", text);
    p->chosen = true;
    return json_object_del(body, "token");
}

static int put_prepare(struct put *p, const char *name, const json_t *body)
{
    un_autojson json_t *copy = json_deep_copy(body);
    struct trigger *t = p->trigger = calloc(1, sizeof(*t));
    if (!copy || !t) {
        return un_error_set(&p->err, -ENOMEM, "out of memory");
    }
    snprintf(t->name, sizeof(t->name), "%s", name);
    t->events = p->ev;
    t->created_us = t->changed_us = un_clock_wall_us();
    t->last_s = (int64_t)(t->created_us / 1000000);
    if (!function_name_valid(name)) {
        return un_error_set(
            &p->err, -EINVAL,
            "name: 1 to 63 of a-z 0-9 -, beginning with a letter, not ending with -");
    }
    int rc = read_token(p, copy, &p->err);
    rc = rc ? rc : trigger_config_parse(copy, &t->config, &p->err);
    if (rc == 0 && (trigger_token_hash(p->token, t->token_hash) < 0 ||
                    trigger_columns(&t->config, &p->config, &p->secret) < 0)) {
        rc = un_error_set(&p->err, -ENOMEM, "out of memory");
    }
    return rc;
}

void trigger_put(struct events *ev, const char *name, const json_t *body, trigger_put_cb cb,
                 void *arg)
{
    struct put *p = calloc(1, sizeof(*p));
    if (!p) {
        const struct un_error err = {.code = -ENOMEM, .text = "out of memory"};
        cb(arg, -ENOMEM, NULL, false, NULL, &err);
        return;
    }
    p->ev = ev;
    p->cb = cb;
    p->arg = arg;
    events_hold(ev);
    if (put_prepare(p, name, body) < 0) {
        p->post = (struct un_post){.fn = put_refused, .arg = p};
        un_loop_post(ev->loop, &p->post);
    } else {
        look_up(p);
    }
}

/* --- removing --------------------------------------------------------------------------------- */

struct removal {
    struct store_job job;
    struct events *ev;
    char name[64];
    trigger_done_cb cb;
    void *arg;
};

static int remove_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct removal *r = un_container_of(job, struct removal, job);
    int rc = store_exec(db, err, "DELETE FROM triggers WHERE name = ?", "t", r->name);
    return rc == 0 && sqlite3_changes(db) == 0
               ? un_error_set(err, -ENOENT, "no trigger %s", r->name)
               : rc;
}

static void remove_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct removal *r = un_container_of(job, struct removal, job);
    struct events *ev = r->ev;
    struct trigger *t = rc == 0 ? trigger_find(ev, r->name) : NULL;
    for (size_t i = 0; t && i < ev->count; i++) {
        if (ev->triggers[i] == t) {
            memmove(&ev->triggers[i], &ev->triggers[i + 1],
                    (--ev->count - i) * sizeof(struct trigger *));
            trigger_free(t);
            break;
        }
    }
    r->cb(r->arg, rc, err);
    free(r);
    events_release(ev);
}

void trigger_remove(struct events *ev, const char *name, trigger_done_cb cb, void *arg)
{
    struct removal *r = calloc(1, sizeof(*r));
    if (!r) {
        const struct un_error err = {.code = -ENOMEM, .text = "out of memory"};
        cb(arg, -ENOMEM, &err);
        return;
    }
    *r = (struct removal){.ev = ev, .cb = cb, .arg = arg};
    snprintf(r->name, sizeof(r->name), "%s", name);
    r->job = (struct store_job){.access = STORE_WRITE, .run = remove_run, .done = remove_done};
    events_hold(ev);
    store_submit(ev->store, &r->job);
}
