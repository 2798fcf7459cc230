/* sched_world.c - see sched_world.h. */
#include "sched_world.h"

#include <errno.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/list.h"

/* --- an SDK image of 208 bytes ---------------------------------------------------------------- */

static uint8_t image_bytes[208];

static void put(size_t at, uint64_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        image_bytes[at + i] = (uint8_t)(value >> (8 * i));
    }
}

/* ELF header, a PT_LOAD over the whole file, a PT_NOTE with our note (System V gABI, ch. 4, 5). */
static void make_image(void)
{
    memset(image_bytes, 0, sizeof(image_bytes));
    memcpy(image_bytes, "\177ELF\2\1\1", 7);
    put(16, 2, 2);              /* ET_EXEC */
    put(18, 62, 2);             /* EM_X86_64 */
    put(20, 1, 4);              /* EV_CURRENT */
    put(24, 0x200000 + 204, 8); /* entry */
    put(32, 64, 8);             /* phoff */
    put(52, 64, 2);
    put(54, 56, 2);
    put(56, 2, 2);
    put(64, 1, 4); /* PT_LOAD, r-x */
    put(68, 5, 4);
    put(72, 0, 8);
    put(80, 0x200000, 8);
    put(88, 0x200000, 8);
    put(96, sizeof(image_bytes), 8);
    put(104, sizeof(image_bytes), 8);
    put(112, 0x1000, 8);
    put(120, 4, 4); /* PT_NOTE */
    put(124, 4, 4);
    put(128, 176, 8);
    put(136, 0x200000 + 176, 8);
    put(144, 0x200000 + 176, 8);
    put(152, 28, 8);
    put(160, 28, 8);
    put(168, 4, 8);
    put(176, 5, 4); /* note: name size, descriptor size, type, "unid" */
    put(180, 8, 4);
    put(184, 1, 4);
    memcpy(image_bytes + 188, "unid", 5);
    put(196, 1, 2); /* major 1 */
}

/* --- the registry and the image store --------------------------------------------------------- */

struct lookup {
    struct un_list node;
    struct un_post post;
    struct registry *registry;
    char name[64];
    function_version_cb version_cb;
    image_open_cb image_cb;
    void *arg;
};

struct registry {
    struct un_loop *loop;
    struct function_version versions[WORLD_FUNCTIONS];
    bool hidden[WORLD_FUNCTIONS]; /* not live */
    size_t count;
    bool hold;
    struct un_list held;
    unsigned refs;
};

static struct registry *the_registry; /* image_open knows only its image store */
static unsigned image_refs;

static struct {
    registry_change_fn fn;
    void *arg;
} listeners[3];

static size_t listener(registry_change_fn fn)
{
    size_t i = 0;

    while (i < UN_ARRAY_SIZE(listeners) && listeners[i].fn != fn) {
        i++;
    }
    assert_true(i < UN_ARRAY_SIZE(listeners));
    return i;
}

void registry_on_change(struct registry *r, registry_change_fn fn, void *arg)
{
    size_t i = listener(NULL);

    listeners[i].fn = fn;
    listeners[i].arg = arg;
}

void registry_off_change(struct registry *r, registry_change_fn fn, void *arg)
{
    listeners[listener(fn)].fn = NULL;
}

const char *function_driver_name(enum function_driver d)
{
    static const char *const names[] = {"auto", "kvm", "libvirt", "fake"};

    return names[d];
}

bool function_name_valid(const char *name)
{
    return *name && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

int function_snapshot_key(const char *name, const struct function_config *c,
                          char ret[FUNCTION_SNAPSHOT_KEY_SIZE], struct un_error *err)
{
    snprintf(ret, FUNCTION_SNAPSHOT_KEY_SIZE, "key-%.60s", name);
    return 0;
}

struct function_version *function_ref(struct function_version *v)
{
    v->refs++;
    return v;
}

void function_unref(struct function_version *v)
{
    assert_true(v->refs > 0);
    v->refs--;
}

static struct function_version *find(struct registry *r, const char *name)
{
    for (size_t i = 0; i < r->count; i++) {
        if (!r->hidden[i] && strcmp(r->versions[i].name, name) == 0) {
            return &r->versions[i];
        }
    }
    return NULL;
}

static void change(struct registry *r, const char *name)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(listeners); i++) {
        if (listeners[i].fn) {
            listeners[i].fn(listeners[i].arg, name, find(r, name));
        }
    }
}

void world_change(struct world *w, const char *name)
{
    change(w->registry, name);
}

struct function_version *function_peek(struct registry *r, const char *name, const char *qualifier)
{
    return r->hold || qualifier ? NULL : find(r, name);
}

static void answer(void *arg)
{
    struct lookup *l = arg;
    struct un_error err = UN_ERROR_INIT;
    struct function_version *v = find(l->registry, l->name);

    if (l->image_cb) {
        struct image_mapping *m = calloc(1, sizeof(*m));

        assert_non_null(m);
        m->data = image_bytes;
        m->size = sizeof(image_bytes);
        snprintf(m->digest, sizeof(m->digest), "%s", l->name);
        image_refs++;
        l->image_cb(l->arg, 0, image_ref(m), &err); /* gives the reference */
    } else if (v) {
        l->version_cb(l->arg, 0, v, &err);
    } else {
        un_error_set(&err, -ENOENT, "no function \"%s\"", l->name);
        l->version_cb(l->arg, -ENOENT, NULL, &err);
    }
    free(l);
}

static struct lookup *lookup_new(struct registry *r, const char *name, void *arg)
{
    struct lookup *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    l->registry = r;
    l->arg = arg;
    l->post = (struct un_post){.fn = answer, .arg = l};
    snprintf(l->name, sizeof(l->name), "%s", name);
    if (r->hold) {
        un_list_push(&r->held, &l->node);
    } else {
        un_loop_post(r->loop, &l->post);
    }
    return l;
}

void function_resolve(struct registry *r, const char *name, const char *qualifier,
                      function_version_cb cb, void *arg)
{
    lookup_new(r, name, arg)->version_cb = cb;
}

struct listing {
    struct un_post post;
    struct registry *registry;
    function_list_cb cb;
    void *arg;
};

static void answer_list(void *arg)
{
    struct listing *l = arg;
    struct un_error err = UN_ERROR_INIT;
    struct function_version *list[WORLD_FUNCTIONS];

    for (size_t i = 0; i < l->registry->count; i++) {
        list[i] = &l->registry->versions[i];
    }
    l->cb(l->arg, 0, list, l->registry->count, &err);
    free(l);
}

void function_list(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                   void *arg)
{
    struct listing *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    *l = (struct listing){
        .post = {.fn = answer_list, .arg = l}, .registry = r, .cb = cb, .arg = arg};
    un_loop_post(r->loop, &l->post);
}

/* --- versions: live, kept, failed ------------------------------------------------------------- */

struct kept_listing {
    struct un_post post;
    struct registry *registry;
    function_list_cb cb;
    void *arg;
};

static void answer_kept(void *arg)
{
    struct kept_listing *l = arg;
    struct registry *r = l->registry;
    struct un_error err = UN_ERROR_INIT;
    struct function_version *list[WORLD_FUNCTIONS];
    size_t count = 0;

    for (size_t i = 0; i < r->count; i++) {
        if (!r->hidden[i] && r->versions[i].config.machine.min_instances > 0) {
            list[count++] = &r->versions[i];
        }
    }
    l->cb(l->arg, 0, list, count, &err);
    free(l);
}

void function_list_kept(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                        void *arg)
{
    struct kept_listing *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    *l = (struct kept_listing){
        .post = {.fn = answer_kept, .arg = l}, .registry = r, .cb = cb, .arg = arg};
    un_loop_post(r->loop, &l->post);
}

struct noting {
    struct un_post post;
    struct registry *registry;
    char name[64];
    uint32_t version;
    function_done_cb ready;
    function_failed_cb failed;
    void *arg;
};

static void answer_note(void *arg)
{
    struct noting *n = arg;
    struct registry *r = n->registry;
    struct un_error err = UN_ERROR_INIT;
    struct function_version *back = NULL;

    for (size_t i = 0; i < r->count; i++) {
        struct function_version *v = &r->versions[i];

        if (strcmp(v->name, n->name) == 0 && v->version == n->version && n->ready) {
            v->ready_us = 1;
        } else if (strcmp(v->name, n->name) == 0 && v->version + 1 == n->version && n->failed) {
            back = v;
        }
    }
    if (back) {
        r->hidden[back - r->versions] = false;
        for (size_t i = 0; i < r->count; i++) {
            r->hidden[i] |= &r->versions[i] != back && strcmp(r->versions[i].name, n->name) == 0;
        }
    }
    change(r, n->name);
    if (n->ready) {
        n->ready(n->arg, 0, &err);
    } else {
        n->failed(n->arg, 0, back, &err);
    }
    free(n);
}

static struct noting *noting_new(struct registry *r, const char *name, uint32_t version, void *arg)
{
    struct noting *n = calloc(1, sizeof(*n));

    assert_non_null(n);
    *n = (struct noting){
        .post = {.fn = answer_note, .arg = n}, .registry = r, .version = version, .arg = arg};
    snprintf(n->name, sizeof(n->name), "%s", name);
    un_loop_post(r->loop, &n->post);
    return n;
}

void function_note_ready(struct registry *r, const char *name, uint32_t version,
                         function_done_cb cb, void *arg)
{
    noting_new(r, name, version, arg)->ready = cb;
}

void function_note_failed(struct registry *r, const char *name, uint32_t version, const char *why,
                          function_failed_cb cb, void *arg)
{
    noting_new(r, name, version, arg)->failed = cb;
}

void world_live(struct world *w, struct function_version *v)
{
    struct registry *r = w->registry;

    for (size_t i = 0; i < r->count; i++) {
        if (strcmp(r->versions[i].name, v->name) == 0) {
            r->hidden[i] = &r->versions[i] != v;
        }
    }
    change(w->registry, v->name);
    world_run(w);
}

void image_open(struct imagestore *is, const char *digest, image_open_cb cb, void *arg)
{
    lookup_new(the_registry, digest, arg)->image_cb = cb;
}

/* The mapping's kind counts its references. */
struct image_mapping *image_ref(struct image_mapping *m)
{
    m->kind = (enum image_kind)((unsigned)m->kind + 1);
    return m;
}

int image_path(const struct image_mapping *m, char *ret, size_t size)
{
    snprintf(ret, size, "/cache/%s", m->digest);
    return 0;
}

int volume_place(struct imagestore *is, const char *name, char *ret_path, size_t path_size,
                 const char **ret_format, struct un_error *err)
{
    if (strcmp(name, "missing") == 0) {
        return un_error_set(err, -ENOENT, "there is no volume %s", name);
    }
    snprintf(ret_path, path_size, "/volumes/%s", name);
    *ret_format = "raw";
    return 0;
}

void image_unref(struct image_mapping *m)
{
    if (!m) {
        return;
    }
    unsigned refs = (unsigned)m->kind;

    if (refs > 1) {
        m->kind = (enum image_kind)(refs - 1);
        return;
    }
    image_refs--;
    free(m);
}

const char *image_kind_name(enum image_kind kind)
{
    return kind == IMAGE_SDK ? "sdk" : "linux-static";
}

struct function_version *world_function(struct world *w, const char *name, const char *args)
{
    struct registry *r = w->registry;
    struct function_version *v = &r->versions[r->count];
    char *words = strdup(args), *rest = words, *word;
    size_t n = 0;

    assert_true(r->count < WORLD_FUNCTIONS);
    *v = (struct function_version){.kind = IMAGE_SDK, .version = 1, .id = r->count + 1};
    snprintf(v->name, sizeof(v->name), "%s", name);
    snprintf(v->config.image, sizeof(v->config.image), "sha256:%s", name);
    snprintf(v->snapshot_key, sizeof(v->snapshot_key), "key-%.60s", name);
    v->config.memory_mib = 16;
    v->config.timeout_ms = 5000;
    v->config.concurrency = 100;
    v->config.args = calloc(32, sizeof(char *));
    assert_true(words && v->config.args);
    while ((word = strsep(&rest, " ")) != NULL) {
        v->config.args[n++] = strdup(word);
    }
    free(words);
    r->count++;
    return v;
}

void world_hold_lookups(struct world *w, bool hold)
{
    w->registry->hold = hold;
}

void world_answer_lookups(struct world *w)
{
    w->registry->hold = false;
    un_list_for_each_safe (it, &w->registry->held) {
        struct lookup *l = un_list_entry(it, struct lookup, node);

        un_list_remove(&l->node);
        un_loop_post(w->loop, &l->post);
    }
    world_run(w);
}

/* --- the world -------------------------------------------------------------------------------- */

static const struct store_schema *const schemas[] = {&scheduler_schema, NULL};

static void open_store(struct world *w)
{
    struct un_error err = UN_ERROR_INIT;
    struct store_spec spec = {.loop = w->loop, .path = w->path, .schemas = schemas, .readers = 1};

    if (store_open(&spec, &w->store, &err) < 0) {
        fail_msg("open the store: %s", err.text);
    }
}

void world_init(struct world *w)
{
    struct un_error err = UN_ERROR_INIT;
    struct hv_driver_spec spec = {0};

    *w = (struct world){0};
    make_image();
    assert_int_equal(un_loop_new_virtual(1000000, &w->loop, &err), 0);
    snprintf(w->dir, sizeof(w->dir), "/tmp/unid-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof(w->path), "%s/unid.db", w->dir);
    open_store(w);
    spec.loop = w->loop;
    assert_int_equal(fake_driver_ops.open(&spec, &w->driver, &err), 0);
    w->registry = calloc(1, sizeof(*w->registry));
    assert_non_null(w->registry);
    w->registry->loop = w->loop;
    un_list_init(&w->registry->held);
    the_registry = w->registry;
    sched_settings_init(&w->set);
    w->set.memory_mib = 64 * WORLD_SHELL_MIB;
    w->set.shell_mib = WORLD_SHELL_MIB;
    w->set.pool_min = 0;
    w->set.pool_max = 8;
    w->set.pool_idle_us = 1000000;
}

void world_open(struct world *w)
{
    struct un_error err = UN_ERROR_INIT;
    struct sched_spec spec = {
        .loop = w->loop,
        .store = w->store,
        .registry = w->registry,
        .driver = w->driver,
        .drivers = w->drivers,
        .driver_count = w->drivers[0] ? (w->drivers[1] ? 2 : 1) : 0,
        .settings = w->set,
    };

    if (sched_open(&spec, &w->sched, &err) < 0) {
        fail_msg("open the scheduler: %s", err.text);
    }
    world_run(w);
}

static void close_sched(struct world *w)
{
    struct fake_script at_once = {0};

    fake_driver_script(w->driver, &at_once);
    sched_drain(w->sched, 0, NULL, NULL);
    world_advance(w, 60000000);
    sched_close(w->sched);
    w->sched = NULL;
    assert_int_equal(image_refs, 0);
}

void world_reopen(struct world *w)
{
    close_sched(w);
    store_close(w->store);
    open_store(w);
    world_open(w);
}

void world_done(struct world *w)
{
    struct fake_stats st;
    struct sched_stats stats;
    char command[128];

    sched_get_stats(w->sched, &stats); /* a test's clients are gone by now: they may not be told */
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.instances[INSTANCE_BOUND] + stats.instances[INSTANCE_RUNNING], 0);
    close_sched(w);
    st = world_fake(w);
    assert_int_equal(st.starting + st.shells + st.running + st.ended, 0);
    fake_driver_ops.close(w->driver);
    store_close(w->store);
    for (size_t i = 0; i < w->registry->count; i++) {
        struct function_version *v = &w->registry->versions[i];

        assert_int_equal(v->refs, 0);
        for (char **arg = v->config.args; *arg; arg++) {
            free(*arg);
        }
        free(v->config.args);
    }
    free(w->registry);
    un_loop_free(w->loop);
    snprintf(command, sizeof(command), "rm -r %s", w->dir);
    assert_int_equal(system(command), 0);
}

void world_run(struct world *w)
{
    un_loop_run_ready(w->loop);
}

void world_advance(struct world *w, uint64_t us)
{
    un_loop_advance(w->loop, us);
}

struct barrier {
    struct store_job job;
    bool passed;
};

static int pass(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    return 0;
}

static void on_passed(struct store_job *job, int rc, const struct un_error *err)
{
    ((struct barrier *)job)->passed = true; /* its first member */
}

static bool is_passed(void *arg)
{
    return ((struct barrier *)arg)->passed;
}

void world_barrier(struct world *w)
{
    struct barrier b = {.job = {.access = STORE_WRITE, .run = pass, .done = on_passed}};

    store_submit(w->store, &b.job);
    world_until(w, is_passed, &b);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
}

void world_until(struct world *w, bool (*cond)(void *arg), void *arg)
{
    uint64_t limit = un_clock_mono_us() + 60000000;

    world_run(w);
    while (!cond(arg)) {
        struct timeval tick = {.tv_usec = 20000};

        if (un_clock_mono_us() > limit) {
            fail_msg("waited for a minute in vain");
        }
        /* Returns at the next post of a store thread, at the latest after the tick. */
        event_base_once(un_loop_base(w->loop), -1, EV_TIMEOUT, on_tick, NULL, &tick);
        event_base_loop(un_loop_base(w->loop), EVLOOP_ONCE);
        world_run(w);
    }
}

unsigned world_count(struct world *w, enum instance_state state)
{
    struct sched_stats stats;

    sched_get_stats(w->sched, &stats);
    return stats.instances[state];
}

static void add_waiting(void *arg, const char *function, unsigned calls)
{
    assert_true(*function && calls > 0);
    *(unsigned *)arg += calls;
}

unsigned world_waiting(struct world *w)
{
    struct sched_stats stats;
    unsigned sum = 0;

    sched_get_stats(w->sched, &stats);
    sched_waiting(w->sched, add_waiting, &sum);
    assert_int_equal(sum, stats.waiting);
    return sum;
}

struct fake_stats world_fake(struct world *w)
{
    struct fake_stats stats;

    fake_driver_stats(w->driver, &stats);
    return stats;
}

/* --- clients ---------------------------------------------------------------------------------- */

static void take(struct client *c, const void *data, size_t len, bool last)
{
    assert_false(c->last);
    c->pieces++;
    c->last = last;
    assert_int_equal(un_buf_append(&c->body, data, len), 0);
    if (!c->hold) {
        sched_call_data_done(c->call);
    }
}

static void on_body_room(void *arg)
{
    ((struct client *)arg)->rooms++;
}

static void on_response(void *arg, const struct sched_response *response)
{
    struct client *c = arg;
    size_t at = 0;

    c->responses++;
    c->status = response->head.status;
    c->at_response = *response->phases;
    for (size_t i = 0; i < response->head.field_count; i++) {
        at += (size_t)snprintf(c->fields + at, sizeof(c->fields) - at, "%s=%s;",
                               response->head.fields[i].name, response->head.fields[i].value);
    }
    if (c->cancel_on_response) {
        sched_call_cancel(c->call);
        c->call = NULL;
        return;
    }
    take(c, response->data, response->len, response->last);
}

static void on_data(void *arg, const void *data, size_t len, bool last)
{
    assert_int_equal(((struct client *)arg)->responses, 1);
    take(arg, data, len, last);
}

static void on_end(void *arg, const struct sched_outcome *outcome)
{
    struct client *c = arg;

    c->ends++;
    c->outcome = *outcome;
    snprintf(c->detail, sizeof(c->detail), "%s", outcome->detail);
    snprintf(c->log_tail, sizeof(c->log_tail), "%s", outcome->log_tail);
    c->ended_at_us = un_loop_now_us(c->w->loop);
    c->call = NULL;
}

static const struct sched_call_events client_events = {
    .on_body_room = on_body_room,
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
};

static void start(struct world *w, struct client *c, const char *function, int64_t length)
{
    struct hv_field fields[] = {{"host", "example.test"}};
    struct un_error err = UN_ERROR_INIT;
    struct sched_call_spec spec = {
        .function = function,
        .trigger = SCHED_HTTP,
        .attempt = 1,
        .method = length == 0 ? "GET" : "POST",
        .target = "/x?y=1",
        .fields = fields,
        .field_count = 1,
        .content_length = length,
        .events = &client_events,
        .arg = c,
    };

    c->w = w;
    if (sched_call_start(w->sched, &spec, &c->call, &err) < 0) {
        fail_msg("start a call: %s", err.text);
    }
    assert_int_equal(c->ends, 0);
    memcpy(c->id, sched_call_id(c->call), sizeof(c->id));
}

void client_get(struct world *w, struct client *c, const char *function)
{
    start(w, c, function, 0);
}

void client_post(struct world *w, struct client *c, const char *function, int64_t length)
{
    start(w, c, function, length);
}

void client_done(struct client *c)
{
    un_buf_done(&c->body);
}

/* --- receipts --------------------------------------------------------------------------------- */

struct wanted {
    struct receipt receipt;
    int rc;
    bool answered;
};

static void on_receipt(void *arg, int rc, const struct receipt *list, size_t count,
                       const struct un_error *err)
{
    struct wanted *want = arg;

    want->rc = rc;
    want->answered = true;
    if (rc == 0) {
        want->receipt = list[0];
    }
}

static bool is_answered(void *arg)
{
    return ((struct wanted *)arg)->answered;
}

bool world_receipt(struct world *w, const char *id, struct receipt *ret)
{
    struct wanted want = {0};

    receipt_get(w->sched, id, on_receipt, &want);
    world_until(w, is_answered, &want);
    *ret = want.receipt;
    return want.rc == 0;
}
