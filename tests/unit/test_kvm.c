/* test_kvm.c - the kvm driver with real VMs: the contract of every driver, snapshots, recycling,
 * deaths of all kinds. Skipped, with a reason, where /dev/kvm cannot be used. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/kvm/kvm.h"
#include "tests/unit/hv_contract.h"

#define MIB (UINT64_C(1) << 20)

static struct contract contract;
static char state_dir[] = "/tmp/unid-test-kvm-XXXXXX";

static const uint8_t *image(const char *name, size_t *ret_len)
{
    static struct {
        char name[32];
        uint8_t *data;
        size_t len;
    } cache[32];
    size_t i = 0;
    while (cache[i].data && strcmp(cache[i].name, name) != 0) {
        i++;
    }
    if (!cache[i].data) {
        char path[512];
        struct stat st;
        snprintf(path, sizeof(path), "%s/guest/examples/%s", getenv("UNID_BUILD"), name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0) {
            fail_msg("no example %s", path);
        }
        snprintf(cache[i].name, sizeof(cache[i].name), "%s", name);
        cache[i].data = malloc((size_t)st.st_size);
        assert_non_null(cache[i].data);
        assert_int_equal(read(fd, cache[i].data, (size_t)st.st_size), st.st_size);
        cache[i].len = (size_t)st.st_size;
        close(fd);
    }
    *ret_len = cache[i].len;
    return cache[i].data;
}

static int open_driver(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    struct hv_driver_spec spec = {.state_dir = state_dir, .runtime_dir = state_dir};
    contract = (struct contract){.image = image, .mem_bytes = 16 * MIB};
    assert_int_equal(un_loop_new(&contract.loop, &err), 0);
    spec.loop = contract.loop;
    if (hv_kvm_driver.open(&spec, &contract.drv, &err) < 0) {
        fail_msg("open: %s", err.text);
    }
    return 0;
}

static int close_driver(void **state)
{
    hv_kvm_driver.close(contract.drv);
    un_loop_free(contract.loop);
    return 0;
}

/* --- the contract ------------------------------------------------------------------------------
 */

static void a_request_is_answered(void **state)
{
    contract_answers(&contract);
}

static void bodies_stream_both_ways(void **state)
{
    contract_streams_both_ways(&contract);
}

static void a_vm_can_be_freed_in_every_state(void **state)
{
    contract_can_be_freed_in_every_state(&contract);
}

static void four_vms_run_at_once(void **state)
{
    contract_four_run_at_once(&contract);
}

static void a_vm_runs_once(void **state)
{
    contract_runs_once(&contract);
}

/* --- runs --------------------------------------------------------------------------------------
 */

struct run {
    const char *function, *key;
    const char *const *argv;
    uint64_t mem_bytes, deadline_us;
};

static int run_start(struct contract_vm *v, struct run r, struct un_error *err)
{
    const char *const argv[] = {r.function, NULL}, *const envp[] = {NULL};
    static const char head[] = "POST / HTTP\r\n";
    size_t len;
    const uint8_t *img = image(r.function, &len);
    struct hv_run_spec spec = {.image = img,
                               .image_len = len,
                               .mem_bytes = r.mem_bytes ? r.mem_bytes : 16 * MIB,
                               .argv = r.argv ? r.argv : argv,
                               .envp = envp,
                               .invocation_id = "test",
                               .deadline_us = r.deadline_us ? r.deadline_us : 10000000,
                               .request_head = head,
                               .request_head_len = sizeof(head) - 1,
                               .body_eof = true,
                               .snapshot_key = r.key};
    return hv_kvm_driver.vm_run(v->vm, &spec, err);
}

/* Runs in a new shell to its end. The caller frees. */
static void run(struct contract_vm *v, struct run r)
{
    struct un_error err = UN_ERROR_INIT;
    contract_shell(&contract, v);
    if (run_start(v, r, &err) < 0) {
        fail_msg("vm_run: %s", err.text);
    }
    assert_true(contract_wait(&contract, &v->exited, 10000));
}

static void crash_faults_at_its_address_and_leaves_its_log(void **state)
{
    struct contract_vm v;
    run(&v, (struct run){.function = "crash"});
    assert_int_equal(v.why.kind, HV_EXIT_FAULT);
    assert_int_equal(v.why.fault_vector, 14);
    assert_int_equal(v.why.fault_addr, 0x10);
    assert_in_range(v.why.fault_rip, UNID_IMAGE_MIN, UNID_IMAGE_MIN + 65536);
    assert_non_null(strstr((char *)v.log.data, "writing to 0x10"));
    contract_free(&v);
}

static void spin_is_ended_by_its_cpu_time(void **state)
{
    struct contract_vm v;
    run(&v, (struct run){.function = "spin", .deadline_us = 1});
    assert_int_equal(v.why.kind, HV_EXIT_LIMIT);
    assert_string_equal(v.why.detail, "CPU time");
    assert_true(v.usage.cpu_us > 1000000);
    contract_free(&v);
}

static void hog_ends_at_its_memory(void **state)
{
    struct contract_vm v;
    run(&v, (struct run){.function = "hog", .mem_bytes = 8 * MIB});
    assert_int_equal(v.why.kind, HV_EXIT_FAULT);
    assert_int_equal(v.why.fault_vector, 14);
    assert_in_range(v.why.fault_addr, 4 * MIB, 8 * MIB);
    contract_free(&v);
}

static void flood_is_stopped_by_free(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    contract_shell(&contract, &v);
    assert_int_equal(run_start(&v, (struct run){.function = "flood"}, &err), 0);
    bool never = false;
    while (v.output.len < 4 * MIB) {
        contract_wait(&contract, &never, 5);
    }
    contract_free(&v);
}

static void bad_images_leave_the_shell_usable(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    const char *const none[] = {NULL};
    contract_shell(&contract, &v);
    struct hv_run_spec bad = {.image = (const uint8_t *)"no ELF",
                              .image_len = 6,
                              .mem_bytes = 16 * MIB,
                              .argv = none,
                              .envp = none};
    assert_int_equal(hv_kvm_driver.vm_run(v.vm, &bad, &err), -EINVAL);
    assert_int_equal(run_start(&v, (struct run){.function = "hello", .mem_bytes = 32 * MIB}, &err),
                     -ENOMEM);
    assert_int_equal(run_start(&v, (struct run){.function = "hello"}, &err), 0);
    assert_true(contract_wait(&contract, &v.exited, 10000));
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    contract_free(&v);
}

/* --- main --------------------------------------------------------------------------------------
 */

static bool usable(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "SKIP test_kvm: /dev/kvm: %s\n", strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

static void remove_state(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", state_dir);
    if (system(command) != 0) {
        fprintf(stderr, "%s stays\n", state_dir);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_driver, close_driver)

int main(void)
{
    char vmm[512];
    if (!usable()) {
        return 77;
    }
    snprintf(vmm, sizeof(vmm), "%s/bin/unid-vmm", getenv("UNID_BUILD"));
    setenv("UNID_VMM", vmm, 0);
    if (!mkdtemp(state_dir)) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_answered),
        TEST(bodies_stream_both_ways),
        TEST(a_vm_can_be_freed_in_every_state),
        TEST(four_vms_run_at_once),
        TEST(a_vm_runs_once),
        TEST(crash_faults_at_its_address_and_leaves_its_log),
        TEST(spin_is_ended_by_its_cpu_time),
        TEST(hog_ends_at_its_memory),
        TEST(flood_is_stopped_by_free),
        TEST(bad_images_leave_the_shell_usable),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    remove_state();
    return rc;
}
