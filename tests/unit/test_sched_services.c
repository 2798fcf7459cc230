/* test_sched_services.c - the scheduler between the registry's versions and a driver of services: what is
 * kept, what is rolled back, which calls move, what is logged. The driver is a fake that keeps connections
 * until it is told what becomes of them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/fault.h"
#include "common/list.h"
#include "hypervisor/machine.h"
#include "scheduler/record/news.h"
#include "tests/unit/sched_world.h"

/* --- a driver of services ----------------------------------------------------------------------- */

struct hv_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
    struct un_list vms; /* that run */
    const struct hv_service_events *events;
    void *arg;
    char said[512]; /* what it was told */
    char ended[64];
    const char *failing; /* the key of the version that fails, or NULL */
    unsigned runs;
};

struct hv_vm {
    struct hv_vm_base base;
    struct hv_driver *drv;
    struct un_list node;
    const struct hv_vm_events *events;
    void *arg;
    char key[64], head[256];
    bool live;
    struct hv_exit why;
    struct un_post post;
};

static void post(struct hv_vm *vm, void (*fn)(void *))
{
    vm->post = (struct un_post){.fn = fn, .arg = vm};
    un_loop_post(vm->drv->loop, &vm->post);
}

static void tell_ready(void *arg)
{
    struct hv_vm *vm = arg;

    vm->events->on_ready(vm->arg, 0, NULL);
}

static int vm_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
                  struct un_error *err)
{
    struct hv_vm *vm = calloc(1, sizeof(*vm));

    assert_non_null(vm);
    vm->base.ops = drv->base.ops;
    vm->drv = drv;
    vm->events = spec->events;
    vm->arg = spec->arg;
    un_list_init(&vm->node);
    post(vm, tell_ready);
    *ret = vm;
    return 0;
}

static int vm_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err)
{
    assert_non_null(spec->machine);
    snprintf(vm->key, sizeof(vm->key), "%s", spec->machine->key);
    snprintf(vm->head, sizeof(vm->head), "%.*s", (int)spec->request_head_len, spec->request_head);
    vm->live = spec->machine->live;
    un_list_push(&vm->drv->vms, &vm->node);
    vm->drv->runs++;
    return 0;
}

static void vm_usage(struct hv_vm *vm, struct hv_usage *ret)
{
    *ret = (struct hv_usage){.exits = 0};
}

static int vm_pid(struct hv_vm *vm)
{
    return 0;
}

static void tell_gone(void *arg)
{
    struct hv_vm *vm = arg;
    const struct hv_vm_events *events = vm->events;
    void *user = vm->arg;

    free(vm);
    events->on_gone(user);
}

static void vm_free(struct hv_vm *vm)
{
    un_list_remove(&vm->node);
    un_loop_unpost(vm->drv->loop, &vm->post);
    post(vm, tell_gone);
}

static uint64_t memory_bytes(struct hv_driver *drv)
{
    return 0;
}

static void say(struct hv_driver *drv, const char *verb, const char *what)
{
    size_t at = strlen(drv->said);

    snprintf(drv->said + at, sizeof(drv->said) - at, "%s %s; ", verb, what ? what : "none");
}

static void listen_(struct hv_driver *drv, const struct hv_service_events *events, void *arg)
{
    drv->events = events;
    drv->arg = arg;
}

static int keep(struct hv_driver *drv, const struct hv_machine_config *config, struct un_error *err)
{
    assert_true(config->live);
    assert_non_null(config->files);
    say(drv, "keep", config->key);
    return 0;
}

static void live(struct hv_driver *drv, const char *name, const char *key)
{
    say(drv, "live", key);
}

static void lose(struct hv_vm *vm);

static void give_up(struct hv_driver *drv, const char *name, const char *but)
{
    un_list_for_each (it, &drv->vms) {
        struct hv_vm *vm = un_list_entry(it, struct hv_vm, node);

        if (drv->failing && strcmp(vm->key, drv->failing) == 0 &&
            (!but || strcmp(vm->key, but) != 0)) {
            lose(vm);
            vm->why.unbegun = true; /* it waited */
        }
    }
}

static const struct hv_service_machine machine = {.id = "01JD5X0000000000000000000M",
                                                  .name = "web",
                                                  .version = 1,
                                                  .state = "ready",
                                                  .mem_bytes = 64 << 20,
                                                  .pid = 7,
                                                  .in_flight = 2};

static void each(struct hv_driver *drv, void (*fn)(void *arg, const struct hv_service_machine *m),
                 void *arg)
{
    fn(arg, &machine);
}

static int end(struct hv_driver *drv, const char *id, struct un_error *err)
{
    if (strcmp(id, machine.id) != 0) {
        return un_error_set(err, -ENOENT, "no instance %s", id);
    }
    snprintf(drv->ended, sizeof(drv->ended), "%s", id);
    return 0;
}

static const struct hv_service_ops service_ops = {
    .listen = listen_, .keep = keep, .live = live, .give_up = give_up, .each = each, .end = end};
static const struct hv_driver_ops ops = {.name = "machine",
                                         .service = &service_ops,
                                         .memory_bytes = memory_bytes,
                                         .vm_new = vm_new,
                                         .vm_run = vm_run,
                                         .vm_usage = vm_usage,
                                         .vm_pid = vm_pid,
                                         .vm_free = vm_free};

static void tell_exit(void *arg)
{
    struct hv_vm *vm = arg;

    vm->events->on_exit(vm->arg, &vm->why);
}

static void lose(struct hv_vm *vm)
{
    vm->why = (struct hv_exit){.kind = HV_EXIT_LOST, .final = true, .detail = "it is never ready"};
    post(vm, tell_exit);
}

/* --- the world ---------------------------------------------------------------------------------- */

static struct world w;
static struct hv_driver drv;
static char news[512];

static void on_news(void *arg, const struct sched_news *n)
{
    size_t at = strlen(news);

    if (n->kind == NEWS_ROLLED_BACK) {
        snprintf(news + at, sizeof(news) - at, "%s %u to %u: %s; ", n->function, n->from,
                 n->version, n->why);
    } else if (n->kind == NEWS_INSTANCE) {
        snprintf(news + at, sizeof(news) - at, "%s %s; ", n->instance->function,
                 n->instance->state_name);
    }
}

static int set_up(void **state)
{
    world_init(&w);
    drv = (struct hv_driver){.base = {.ops = &ops}, .loop = w.loop};
    un_list_init(&drv.vms);
    w.drivers[0] = w.driver;
    w.drivers[1] = &drv;
    news[0] = '\0';
    return 0;
}

static int tear_down(void **state)
{
#ifdef UNID_FAULT_INJECTION
    un_fault_set(NULL);
#endif
    world_done(&w);
    assert_null(drv.events);
    return 0;
}

static void open_(void)
{
    world_open(&w);
    sched_observe(w.sched, on_news, NULL);
}

static struct function_version *service(const char *name, uint32_t version, uint32_t min)
{
    struct function_version *v = world_function(&w, name, "");

    v->kind = IMAGE_PVH;
    v->version = version;
    v->config.interface = FUNCTION_HTTP;
    v->config.machine.set = v->config.machine.service = true;
    v->config.machine.port = 80;
    v->config.machine.min_instances = min;
    v->config.machine.max_instances = 1;
    v->config.machine.idle_timeout_ms = 60000;
    v->config.machine.ready_timeout_ms = 30000;
    return v;
}

static struct hv_vm *running(void)
{
    return un_list_first(&drv.vms, struct hv_vm, node);
}

/* --- tests -------------------------------------------------------------------------------------- */

static void what_is_kept_is_told_at_the_start_and_when_it_changes(void **state)
{
    struct function_version *plain = service("plain", 1, 0), *one = service("web", 1, 1);
    open_();
    assert_string_equal(drv.said, "live web:2; keep web:2; ");
    drv.said[0] = '\0';
    world_live(&w, one); /* nothing new */
    assert_string_equal(drv.said, "live web:2; ");
    drv.said[0] = '\0';
    world_live(&w, service("web", 2, 2));
    assert_string_equal(drv.said, "live web:3; keep web:3; ");
    drv.said[0] = '\0';
    world_live(&w, plain);
    assert_string_equal(drv.said, "live plain:1; ");
    drv.said[0] = '\0';
    world_live(&w, world_function(&w, "web", "echo")); /* a program now */
    assert_string_equal(drv.said, "live none; ");
    drv.said[0] = '\0';
    world_change(&w, "removed");
    world_run(&w);
    assert_string_equal(drv.said, "live none; ");
}

static void calls_that_were_not_sent_move_to_the_live_version(void **state)
{
    struct client c = {0}, numbered = {0};
    struct function_version *one = service("web", 1, 0);
    open_();
    client_get(&w, &c, "web");
    world_run(&w);
    assert_string_equal(running()->key, "web:1");
    assert_true(running()->live);
    char head[256];
    snprintf(head, sizeof(head), "%s", running()->head);
    assert_non_null(strstr(head, "GET "));
    struct function_version *two = service("web", 2, 0);
    world_live(&w, two);
    assert_string_equal(running()->key, "web:2");
    assert_string_equal(running()->head, head); /* as it was */
    running()->events->on_started(running()->arg);
    world_live(&w, one); /* it has been sent: it stays */
    assert_string_equal(running()->key, "web:2");
    struct hv_vm *vm = running();
    vm->why = (struct hv_exit){.kind = HV_EXIT_FAULT, .detail = "it reset itself"};
    post(vm, tell_exit);
    world_run(&w);
    assert_ended(c, SCHED_FAILED);
    assert_string_equal(c.detail, "the function's machine crashed: it reset itself");
    client_done(&c);
    client_done(&numbered);
}

static void a_call_that_was_sent_in_vain_moves_when_it_is_whole(void **state)
{
    struct client c[2] = {{0}};
    service("web", 1, 0);
    open_();
    client_get(&w, &c[0], "web");
    client_post(&w, &c[1], "web", 10);
    assert_int_equal(sched_call_body(c[1].call, "12345", 5, false), 1);
    world_run(&w);
    struct hv_vm *vms[2] = {running(), un_list_entry(drv.vms.prev, struct hv_vm, node)};
    for (int i = 0; i < 2; i++) {
        vms[i]->events->on_started(vms[i]->arg);
    }
    vms[1]->events->on_input_wanted(vms[1]->arg, 1000); /* what came before is gone */
    world_live(&w, service("web", 2, 0));
    for (int i = 0; i < 2; i++) {
        assert_string_equal(vms[i]->key, "web:1");
        lose(vms[i]);
        vms[i]->why.unbegun = true;
    }
    world_run(&w);
    assert_int_equal(c[0].ends, 0);
    assert_string_equal(running()->key, "web:2");
    assert_ended(c[1], SCHED_FAILED);
    lose(running());
    world_run(&w);
    assert_ended(c[0], SCHED_FAILED);
    client_done(&c[0]);
    client_done(&c[1]);
}

static void a_call_moves_a_few_times_only(void **state)
{
    struct client c = {0};
    struct function_version *v[2] = {service("web", 1, 0), NULL};
    open_();
    client_get(&w, &c, "web");
    world_run(&w);
    v[1] = service("web", 2, 0);
    for (int i = 1; i <= 4; i++) {
        world_live(&w, v[i % 2]);
        assert_string_equal(running()->key, i % 2 ? "web:2" : "web:1");
    }
    world_live(&w, v[1]);
    assert_string_equal(running()->key, "web:1"); /* enough of it */
    lose(running());
    world_run(&w);
    assert_ended(c, SCHED_FAILED);
    client_done(&c);
}

static void a_version_that_never_is_ready_is_rolled_back(void **state)
{
    struct client c[2] = {{0}};
    service("web", 1, 0);
    open_();
    world_live(&w, service("web", 2, 0));
    for (int i = 0; i < 2; i++) {
        client_get(&w, &c[i], "web");
    }
    world_run(&w);
    assert_string_equal(running()->key, "web:2");
    drv.failing = "web:2";
    drv.events->on_failing(drv.arg, "web", 2, "it crashed");
    world_run(&w);
    assert_string_equal(news, "web 2 to 1: it crashed; ");
    un_list_for_each (it, &drv.vms) {
        assert_string_equal(un_list_entry(it, struct hv_vm, node)->key, "web:1");
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(c[i].ends, 0);
        lose(running());
        world_run(&w);
        assert_ended(c[i], SCHED_FAILED);
        client_done(&c[i]);
    }
}

static void without_a_version_before_it_those_who_wait_are_told(void **state)
{
    struct client c = {0};
    service("web", 1, 0);
    open_();
    client_get(&w, &c, "web");
    world_run(&w);
    drv.failing = "web:1";
    drv.events->on_failing(drv.arg, "web", 1, "it crashed");
    world_run(&w);
    assert_ended(c, SCHED_FAILED); /* at once: no other is tried, nor this one again */
    assert_int_equal(drv.runs, 1);
    assert_non_null(strstr(c.detail, "it is never ready"));
    client_done(&c);
}

static void that_a_version_was_ready_is_known(void **state)
{
    struct function_version *v = service("web", 1, 0);
    open_();
    drv.events->on_proven(drv.arg, "web", 1);
    world_run(&w);
    assert_true(v->ready_us > 0);
}

struct seen {
    struct sched_instance_info info;
    unsigned count;
};

static void see(void *arg, const struct sched_instance_info *info)
{
    struct seen *s = arg;
    s->info = *info;
    s->count++;
}

static void machines_are_instances(void **state)
{
    struct client c = {0};
    struct seen s = {.count = 0};
    struct un_error err = UN_ERROR_INIT;
    service("web", 1, 0);
    open_();
    client_get(&w, &c, "web");
    world_run(&w);
    sched_instances(w.sched, see, &s);
    assert_int_equal(s.count, 1); /* and not the connection */
    assert_string_equal(s.info.state_name, "ready");
    assert_int_equal(s.info.in_flight, 2);
    assert_int_equal(s.info.mem_mib, 64);
    assert_string_equal(s.info.driver, "machine");
    drv.events->on_machine(drv.arg, &machine, false);
    assert_string_equal(news, "web ready; ");
    assert_int_equal(sched_instance_kill(w.sched, machine.id, &err), 0);
    assert_string_equal(drv.ended, machine.id);
    assert_int_equal(sched_instance_kill(w.sched, "01JD5X0000000000000000000N", &err), -ENOENT);
    lose(running());
    world_run(&w);
    client_done(&c);
}

struct lines {
    char text[1024];
    unsigned count;
    bool done;
};

static void on_lines(void *arg, int rc, const struct log_line *list, size_t count,
                     const struct un_error *err)
{
    struct lines *l = arg;
    l->text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t at = strlen(l->text);
        assert_string_equal(list[i].invocation_id, "");
        snprintf(l->text + at, sizeof(l->text) - at, "%s|", list[i].text);
    }
    l->count = (unsigned)count;
    l->done = true;
}

static bool is_done(void *arg)
{
    return ((struct lines *)arg)->done;
}

static void read_lines(struct lines *l)
{
    l->done = false;
    log_list(w.sched, "web", 1000, on_lines, l);
    world_until(&w, is_done, l);
}

static void console_lines_are_logs_on_disk_or_not(void **state)
{
    struct lines l;
    service("web", 1, 0);
    open_();
    drv.events->on_console(drv.arg, "web", "one\ntwo\x1b[0m\n", 12);
    drv.events->on_console(drv.arg, "other", "else\n", 5);
    read_lines(&l);
    assert_string_equal(l.text, "one|two\xef\xbf\xbd[0m|");
    world_advance(&w, 3 * SECOND);
    world_barrier(&w);
    drv.events->on_console(drv.arg, "web", "three\n", 6);
    read_lines(&l);
    assert_string_equal(l.text, "one|two\xef\xbf\xbd[0m|three|");
    world_reopen(&w);
    read_lines(&l);
    assert_string_equal(l.text, "one|two\xef\xbf\xbd[0m|three|");
}

static void a_chatty_console_is_cut_for_a_minute(void **state)
{
    struct lines l;
    w.set.max_log_bytes = 30;
    service("web", 1, 0);
    open_();
    for (int i = 0; i < 100; i++) {
        drv.events->on_console(drv.arg, "web", "123456789\n", 10);
    }
    read_lines(&l);
    assert_int_equal(l.count, 4); /* three, and that the others are left out */
    assert_non_null(strstr(l.text, "30 bytes"));
    world_advance(&w, 61 * SECOND);
    drv.events->on_console(drv.arg, "web", "again\n", 6);
    world_barrier(&w);
    read_lines(&l);
    assert_int_equal(l.count, 5);
}

#ifdef UNID_FAULT_INJECTION
static void without_memory_those_who_wait_are_told(void **state)
{
    struct client c = {0}, other = {0};
    service("web", 1, 1);
    open_();
    world_live(&w, service("web", 2, 1));
    client_get(&w, &c, "web");
    world_run(&w);
    un_fault_set("services.note=ENOMEM");
    drv.failing = "web:2";
    drv.events->on_failing(drv.arg, "web", 2, "it crashed");
    world_run(&w);
    assert_ended(c, SCHED_FAILED);
    client_done(&c);
    client_get(&w, &other, "web");
    world_run(&w);
    un_fault_set("services.opening=ENOMEM");
    drv.failing = "web:2";
    drv.said[0] = '\0';
    drv.events->on_failing(drv.arg, "web", 2, "it crashed");
    world_run(&w);
    assert_null(strstr(drv.said, "keep")); /* there is no memory for that */
    assert_int_equal(other.ends, 0);       /* but calls move all the same */
    assert_string_equal(running()->key, "web:1");
    drv.failing = NULL;
    lose(running());
    world_run(&w);
    assert_ended(other, SCHED_FAILED);
    client_done(&other);
    un_fault_set("services.kept=ENOMEM");
    drv.said[0] = '\0';
    world_live(&w, service("web", 3, 1));
    assert_null(strstr(drv.said, "keep"));
    un_fault_set("console.alloc=ENOMEM");
    drv.events->on_console(drv.arg, "web", "lost\n", 5);
}
#endif

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(what_is_kept_is_told_at_the_start_and_when_it_changes),
        T(calls_that_were_not_sent_move_to_the_live_version),
        T(a_call_that_was_sent_in_vain_moves_when_it_is_whole),
        T(a_call_moves_a_few_times_only),
        T(a_version_that_never_is_ready_is_rolled_back),
        T(without_a_version_before_it_those_who_wait_are_told),
        T(that_a_version_was_ready_is_known),
        T(machines_are_instances),
        T(console_lines_are_logs_on_disk_or_not),
        T(a_chatty_console_is_cut_for_a_minute),
#ifdef UNID_FAULT_INJECTION
        T(without_memory_those_who_wait_are_told),
#endif
    };
    return cmocka_run_group_tests_name("services", tests, NULL, NULL);
}
