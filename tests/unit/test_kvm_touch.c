/* test_kvm_touch.c - what a VM of the kvm driver does because earlier runs did it: pages that it touches while
 * it stands (hypervisor/kvm/touch.c), memory that is filled, and a flush of the TLB. Seen by a guest that looks at its own page tables
 * (guest_paging.c).
 */
#include "tests/unit/kvm_support.h"

/* A run of a VM that was bound ahead and has stood for that long; false when it is not told to pay yet. */
static bool run_ahead(struct contract_vm *v, struct run r, unsigned stood_ms)
{
    struct un_error err = UN_ERROR_INIT;
    const bool never = false;
    contract_shell(&contract, v);
    v->ready = false;
    if (hv_kvm_driver.vm_bind(v->vm, r.key, contract.mem_bytes, &err) < 0) {
        contract_free(v);
        return false;
    }
    assert_true(contract_wait(&contract, &v->ready, 60000));
    contract_wait(&contract, &never, stood_ms);
    assert_int_equal(run_start(v, r, &err), 0);
    assert_true(contract_wait(&contract, &v->exited, 60000));
    return true;
}

static void learn(struct run r)
{
    prepare_ok(r);
    for (int lesson = 0; lesson < 2; lesson++) {
        struct contract_vm v;
        run(&v, r);
        if (v.why.kind != HV_EXIT_DONE) {
            fail_msg("%s: %s %s", hv_exit_name(v.why.kind), v.why.detail,
                     v.output.data ? (char *)v.output.data : "");
        }
        contract_free(&v);
    }
}

/* Answers of the guest "ahead", until it is `all`: how far a VM comes before its run is the machine's. */
static void touches_all(struct run r, const char *all)
{
    struct contract_vm v;
    bool done = false;
    for (unsigned ms = 1; ms < 60000 && !done; ms *= 2) {
        assert_true(run_ahead(&v, r, ms));
        assert_int_equal(v.why.kind, HV_EXIT_DONE);
        assert_int_equal(v.usage.exits, 1);
        done = strcmp((char *)v.output.data, all) == 0;
        contract_free(&v);
    }
    assert_true(done);
}

static void a_vm_that_stands_touches_what_earlier_runs_touched(void **state)
{
    const char *const args[] = {"paging", "ahead", "300", NULL};
    struct run r = {.function = "paging", .argv = args, .key = "touches"};
    learn(r);
    touches_all(r, "300");
    /* Put back, as well. */
    struct contract_vm v;
    bool done = false;
    run(&v, r);
    for (unsigned ms = 1; ms < 60000 && !done; ms *= 2) {
        run_again(&v, r, ms);
        done = strcmp((char *)v.output.data, "300") == 0;
    }
    assert_true(done);
    contract_free(&v);
}

static void tables_that_lead_back_to_themselves_are_learned_from(void **state)
{
    const char *const args[] = {"paging", "ahead", "300", "loop", NULL};
    struct run r = {.function = "paging", .argv = args, .key = "loops"};
    learn(r);
    touches_all(r, "300");
}

static void pages_are_only_touched_as_the_tables_allow(void **state)
{
    const char *const args[] = {"paging", "ahead", "300", "odd", NULL};
    struct run r = {.function = "paging", .argv = args, .key = "odd"};
    learn(r);
    touches_all(r, "150"); /* those that were to be written were read */
}

static void what_touched_pages_is_gone_when_the_guest_runs(void **state)
{
    const char *const args[] = {"paging", "ahead", "300", "low", NULL};
    struct run r = {.function = "paging", .argv = args, .key = "low"};
    learn(r);
    for (int i = 0; i < 20; i++) {
        struct contract_vm v;
        assert_true(run_ahead(&v, r, (unsigned)i));
        assert_int_equal(v.why.kind, HV_EXIT_DONE);
        assert_string_equal((char *)v.output.data, "0");
        contract_free(&v);
    }
}

static void a_run_that_comes_while_pages_are_touched_is_not_kept_waiting(void **state)
{
    const char *const args[] = {"paging", "ahead", "1000", NULL};
    struct run r = {.function = "paging", .argv = args, .key = "stops"};
    learn(r);
    bool stopped = false;
    for (int i = 0; i < 500 && !stopped; i++) {
        struct contract_vm v;
        assert_true(run_ahead(&v, r, 0));
        assert_int_equal(v.why.kind, HV_EXIT_DONE);
        stopped = strcmp((char *)v.output.data, "1000") != 0;
        contract_free(&v);
    }
    assert_true(stopped);
}

static void assert_answer(const struct contract_vm *v, const char *answer)
{
    if (v->why.kind != HV_EXIT_DONE || v->why.status) {
        fail_msg("%s: %s %s", hv_exit_name(v->why.kind), v->why.detail,
                 v->output.data ? (char *)v->output.data : "");
    }
    assert_string_equal((char *)v->output.data, answer);
}

static void memory_is_filled_in_pieces_and_is_zero_each_time(void **state)
{
    const char *const two[] = {"paging", "fill", "2", NULL},
                      *const none[] = {"paging", "fill", "0", NULL},
                      *const write[] = {"paging", "fill", "2", "write", NULL};
    struct run r = {.function = "paging", .argv = two, .key = "fill"},
               no = {.function = "paging", .argv = none, .key = "no-fill"},
               w = {.function = "paging", .argv = write, .key = "fill-write"};
    struct contract_vm v;
    learn(r);
    run(&v, r);
    assert_answer(&v, "ok");
    assert_true(v.usage.peak_rss_kib >= 4096);
    contract_free(&v);
    learn(no);
    run(&v, no);
    assert_answer(&v, "ok");
    assert_true(v.usage.peak_rss_kib < 4096);
    contract_free(&v);
    learn(w);
    run(&v, w);
    for (int i = 0; i < 4; i++) {
        assert_answer(&v, "ok");
        run_again(&v, w, 0);
    }
    contract_free(&v);
}

static void the_tlb_is_flushed_when_the_guest_asks(void **state)
{
    const char *const args[] = {"paging", "flush", NULL};
    struct run r = {.function = "paging", .argv = args, .key = "flush"};
    struct contract_vm v;
    learn(r);
    run(&v, r);
    assert_answer(&v, "ok");
    assert_int_equal(v.usage.exits, 1); /* asking is none */
    run_again(&v, r, 0);
    assert_answer(&v, "ok");
    contract_free(&v);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_driver, close_driver)

int main(void)
{
    int rc = kvm_setup("test_kvm_touch");
    if (rc != 0) {
        return rc;
    }
    const struct CMUnitTest tests[] = {
        TEST(a_vm_that_stands_touches_what_earlier_runs_touched),
        TEST(tables_that_lead_back_to_themselves_are_learned_from),
        TEST(pages_are_only_touched_as_the_tables_allow),
        TEST(what_touched_pages_is_gone_when_the_guest_runs),
        TEST(a_run_that_comes_while_pages_are_touched_is_not_kept_waiting),
        TEST(memory_is_filled_in_pieces_and_is_zero_each_time),
        TEST(the_tlb_is_flushed_when_the_guest_asks),
    };
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    kvm_teardown();
    return rc;
}
