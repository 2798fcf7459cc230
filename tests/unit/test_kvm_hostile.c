/* test_kvm_hostile.c - guests that do at random what they must not, on the kvm driver: nothing is harmed
 * but they themselves. Skipped, with a reason, where /dev/kvm cannot be used.
 *
 *     test_kvm_hostile [ROUNDS]
 */
#include "tests/unit/kvm_support.h"

static unsigned hostile_kinds[5];

static void hostile_run(unsigned seed)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    const char *const argv[] = {"hostile", NULL}, *const envp[] = {NULL};
    char head[64];
    size_t len;
    snprintf(head, sizeof(head), "GET /%u \r\n", seed);
    contract_shell(&contract, &v);
    const uint8_t *img = image("hostile", &len);
    struct hv_run_spec spec = {.image = img,
                               .image_len = len,
                               .mem_bytes = 4 * MIB,
                               .argv = argv,
                               .envp = envp,
                               .invocation_id = "test",
                               .deadline_us = 1000000,
                               .request_head = head,
                               .request_head_len = strlen(head),
                               .body_eof = true,
                               .snapshot_key = seed % 2 ? "hostile" : NULL};
    if (hv_kvm_driver.vm_run(v.vm, &spec, &err) < 0) {
        fail_msg("seed %u: %s", seed, err.text);
    }
    if (contract_wait(&contract, &v.exited, 30)) { /* those that stand still stand for ever */
        hostile_kinds[v.why.kind]++;
        if (v.why.kind == HV_EXIT_LOST) {
            fail_msg("seed %u: %s", seed, v.why.detail);
        }
    }
    contract_free(&v);
}

static void hostile_guests_harm_only_themselves(void **state)
{
    prepare_ok((struct run){.function = "hostile", .key = "hostile", .mem_bytes = 4 * MIB});
    for (unsigned seed = 0; seed < rounds(300); seed++) {
        hostile_run(seed);
    }
    print_message("done %u, fault %u, limit %u, protocol %u, lost %u\n", hostile_kinds[0],
                  hostile_kinds[1], hostile_kinds[2], hostile_kinds[3], hostile_kinds[4]);
    contract_answers(&contract);
}

static void a_guest_with_broken_page_tables_harms_only_itself(void **state)
{
    unsigned kinds[5] = {0};
    for (unsigned seed = 0; seed < rounds(100); seed++) {
        char text[16];
        const char *const argv[] = {"paging", "scribble", text, NULL};
        struct contract_vm v;
        struct un_error err = UN_ERROR_INIT;
        snprintf(text, sizeof(text), "%u", seed);
        contract_shell(&contract, &v);
        assert_int_equal(run_start(&v, (struct run){.function = "paging", .argv = argv}, &err), 0);
        if (contract_wait(&contract, &v.exited, 100)) { /* some run in circles */
            kinds[v.why.kind]++;
            if (v.why.kind == HV_EXIT_LOST) {
                fail_msg("seed %u: %s", seed, v.why.detail);
            }
        }
        contract_free(&v);
    }
    print_message("done %u, fault %u, limit %u, protocol %u\n", kinds[0], kinds[1], kinds[2],
                  kinds[3]);
    contract_answers(&contract);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_driver, close_driver)
    const struct CMUnitTest tests[] = {TEST(hostile_guests_harm_only_themselves),
                                       TEST(a_guest_with_broken_page_tables_harms_only_itself)};
    int rc = kvm_setup("test_kvm_hostile");
    if (rc != 0) {
        return rc;
    }
    if (argc > 1) {
        setenv("UNID_KVM_ROUNDS", argv[1], 1);
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    kvm_teardown();
    return rc;
}
