/* test_libvirt.c - the libvirt driver with real VMs (QEMU/TCG), and what it leaves behind: nothing.
 */
#include "hv_contract.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "hypervisor/libvirt/place.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/module.h"

#define MIB (UINT64_C(1) << 20)

static char state_dir[128];
static struct contract shared;

static const uint8_t *load_image(const char *name, size_t *ret_len)
{
    static struct {
        char name[32];
        struct un_buf bytes;
    } cache[12];
    size_t i = 0;
    while (cache[i].name[0] && strcmp(cache[i].name, name) != 0) {
        i++;
        assert_true(i < UN_ARRAY_SIZE(cache));
    }
    if (!cache[i].name[0]) {
        char path[512], chunk[4096];
        snprintf(path, sizeof(path), "%s/guest/examples/%s", getenv("UNID_BUILD") ?: ".", name);
        un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            fail_msg("%s: %s", path, strerror(errno));
        }
        for (ssize_t n; (n = read(fd, chunk, sizeof(chunk))) > 0;) {
            assert_int_equal(un_buf_append(&cache[i].bytes, chunk, (size_t)n), 0);
        }
        snprintf(cache[i].name, sizeof(cache[i].name), "%s", name);
    }
    *ret_len = cache[i].bytes.len;
    return cache[i].bytes.data;
}

/* The driver's own name for what is its own: the beginning of domain names. */
static void prefix_of(const char *dir, char *out, size_t size)
{
    char path[256], tag[32] = "";
    snprintf(path, sizeof(path), "%s/libvirt/tag", dir);
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, tag, sizeof(tag) - 1) > 0);
    snprintf(out, size, "unid-%s", tag);
}

static bool count_one(void *arg, pid_t pid)
{
    ++*(int *)arg;
    return true;
}

static int count_processes(const char *dir)
{
    char prefix[64];
    int count = 0;
    prefix_of(dir, prefix, sizeof(prefix));
    lv_proc_each(prefix, count_one, &count);
    return count;
}

static bool work_exists(const char *dir)
{
    char prefix[64], path[128];
    prefix_of(dir, prefix, sizeof(prefix));
    snprintf(path, sizeof(path), "/dev/shm/%s", prefix);
    return access(path, F_OK) == 0;
}

static int open_driver(struct contract *c, const char *dir, struct un_error *err)
{
    int rc = un_loop_new(&c->loop, err);
    const struct hv_driver_ops *ops = rc == 0 ? module_load("unid-libvirt.so", err) : NULL;
    if (!ops) {
        return rc < 0 ? rc : -ENOENT;
    }
    const char *accelerator = getenv("UNID_TEST_ACCELERATOR");
    struct hv_driver_spec spec = {.loop = c->loop,
                                  .state_dir = dir,
                                  .runtime_dir = "/tmp",
                                  .libvirt_uri = getenv("UNID_TEST_LIBVIRT_URI"),
                                  .accelerator = accelerator ? accelerator : "tcg"};
    c->image = load_image;
    c->mem_bytes = 16 * MIB;
    return ops->open(&spec, &c->drv, err);
}

static void close_driver(struct contract *c)
{
    hv_driver_ops(c->drv)->close(c->drv);
    un_loop_free(c->loop);
    *c = (struct contract){0};
}

static int setup(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    if (open_driver(&shared, state_dir, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    close_driver(&shared);
    return count_processes(state_dir) == 0 && !work_exists(state_dir) ? 0 : -1;
}

static void answers(void **state)
{
    contract_answers(&shared);
}

static void opens_again_in_the_same_process(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    contract_answers(&shared);
    close_driver(&shared);
    assert_int_equal(open_driver(&shared, state_dir, &err), 0);
    contract_answers(&shared);
}

static void streams_both_ways(void **state)
{
    contract_streams_both_ways(&shared);
}

static void can_be_freed_in_every_state(void **state)
{
    contract_can_be_freed_in_every_state(&shared);
    assert_int_equal(count_processes(state_dir), 0);
}

static void four_run_at_once(void **state)
{
    contract_four_run_at_once(&shared);
}

static void runs_once(void **state)
{
    contract_runs_once(&shared);
}

static void a_guest_writes_its_own_page_tables(void **state)
{
    contract_a_guest_writes_its_own_page_tables(&shared);
}

static void system_calls_are_faults_with_a_name(void **state)
{
    contract_system_calls_are_faults_with_a_name(&shared);
}

static void time_passes(void **state)
{
    contract_time_passes(&shared);
}

static void connections_are_asked_of_the_user(void **state)
{
    contract_connections_are_asked_of_the_user(&shared);
}

static void the_report_is_read_at_the_end(void **state)
{
    contract_the_report_is_read_at_the_end(&shared);
}

static void asks_without_a_user_are_answered(void **state)
{
    contract_asks_without_a_user_are_answered(&shared);
}

static void fault_is_told_with_its_address(void **state)
{
    struct contract_vm v;
    contract_shell(&shared, &v);
    contract_start(&v, "crash", "");
    assert_true(contract_wait(&shared, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_FAULT);
    assert_int_equal(v.why.fault_vector, 14);
    assert_true(v.why.fault_rip >= 0x200000);
    assert_non_null(strstr(v.why.detail, "page fault"));
    print_message("    %s\n", v.why.detail);
    contract_free(&v);
}

static void qemu_killed_while_running_is_lost(void **state)
{
    struct contract_vm v;
    contract_shell(&shared, &v);
    contract_start(&v, "spin", "");
    assert_true(contract_wait(&shared, &v.started, 60000));
    kill(hv_vm_ops(v.vm)->vm_pid(v.vm), SIGKILL);
    assert_true(contract_wait(&shared, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_LOST);
    contract_free(&v);
    contract_answers(&shared);
}

static void qemu_killed_as_a_shell_is_lost(void **state)
{
    struct contract_vm v;
    contract_shell(&shared, &v);
    kill(hv_vm_ops(v.vm)->vm_pid(v.vm), SIGKILL);
    assert_true(contract_wait(&shared, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_LOST);
    contract_free(&v);
}

static void refused_image_leaves_the_shell_usable(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    static const uint8_t junk[256] = "not an image";
    const char *none[] = {"x", NULL};
    contract_shell(&shared, &v);
    struct hv_run_spec run = {.image = junk,
                              .image_len = sizeof(junk),
                              .mem_bytes = shared.mem_bytes,
                              .argv = none,
                              .envp = none + 1,
                              .request_head = "GET / HTTP\r\n",
                              .request_head_len = 12,
                              .body_eof = true};
    assert_int_equal(hv_vm_ops(v.vm)->vm_run(v.vm, &run, &err), -EINVAL);
    run.mem_bytes = 2 * shared.mem_bytes;
    assert_int_equal(hv_vm_ops(v.vm)->vm_run(v.vm, &run, &err), -ENOMEM);
    contract_start(&v, "hello", "");
    assert_true(contract_wait(&shared, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    contract_free(&v);
}

static void odd_memory_sizes_are_refused(void **state)
{
    struct hv_vm *vm;
    struct un_error err = UN_ERROR_INIT;
    static const uint64_t sizes[] = {0, 3 * MIB, 16 * MIB + 4096, UINT64_C(1) << 40};
    for (size_t i = 0; i < UN_ARRAY_SIZE(sizes); i++) {
        struct hv_vm_spec spec = {.mem_bytes = sizes[i]};
        assert_int_equal(hv_driver_ops(shared.drv)->vm_new(shared.drv, &spec, &vm, &err), -EINVAL);
    }
}

/* Waits for the guest's next output. */
static void has_more_than(struct contract_vm *v, size_t had)
{
    bool never = false;
    for (int i = 0; i < 6000 && v->output.len <= had; i++) {
        contract_wait(&shared, &never, 10);
    }
    assert_true(v->output.len > had);
}

/* A guest that waits for a slow reader does not burn the CPU. */
static void waiting_guest_stands_still(void **state)
{
    struct contract_vm v;
    struct hv_usage before, after;
    bool never = false;
    contract_shell(&shared, &v);
    v.hold_output = true;
    contract_start(&v, "flood", "");
    assert_true(contract_wait(&shared, &v.started, 60000));
    has_more_than(&v, 0);
    hv_vm_ops(v.vm)->vm_usage(v.vm, &after);
    for (int i = 0; i < 200; i++) { /* until it has filled what takes its output */
        before = after;
        contract_wait(&shared, &never, 300);
        hv_vm_ops(v.vm)->vm_usage(v.vm, &after);
        if (after.cpu_us - before.cpu_us < 10000) {
            break;
        }
    }
    assert_true(after.cpu_us - before.cpu_us < 10000);
    size_t had = v.output.len;
    v.hold_output = false;
    hv_vm_ops(v.vm)->vm_output_done(v.vm);
    has_more_than(&v, had);
    contract_free(&v);
}

struct probe_result {
    struct contract *c;
    bool came;
    struct hv_probe probe;
};

static void on_probe(void *arg, const struct hv_probe *probe)
{
    struct probe_result *r = arg;
    r->came = true;
    r->probe = *probe;
    un_loop_stop(r->c->loop);
}

static void probe_measures(void **state)
{
    struct probe_result r = {.c = &shared};
    hv_driver_ops(shared.drv)->probe(shared.drv, on_probe, &r);
    assert_true(contract_wait(&shared, &r.came, 60000));
    if (!r.probe.usable) {
        fail_msg("%s", r.probe.detail);
    }
    assert_true(r.probe.shell_us > 0 && r.probe.start_us > 0 && r.probe.guest_ops_per_ms > 0);
    print_message("    %s\n", r.probe.detail);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Not a bound that a loaded machine could break: the figures are printed, the test is that it
 * works. */
static void figures(void **state)
{
    enum { N = 10 };
    uint64_t create[N], first[N], whole[N], gone[N];
    for (int i = 0; i < N; i++) {
        struct contract_vm v;
        uint64_t t0 = un_clock_mono_us();
        contract_shell(&shared, &v);
        uint64_t t1 = un_clock_mono_us();
        contract_start(&v, "hello", "");
        assert_true(contract_wait(&shared, &v.exited, 60000));
        create[i] = t1 - t0;
        first[i] = v.first_us - v.run_us;
        whole[i] = v.exit_us - v.run_us;
        uint64_t t2 = un_clock_mono_us();
        contract_free(&v);
        gone[i] = un_clock_mono_us() - t2;
    }
    qsort(create, N, sizeof(create[0]), compare);
    qsort(first, N, sizeof(first[0]), compare);
    qsort(whole, N, sizeof(whole[0]), compare);
    qsort(gone, N, sizeof(gone[0]), compare);
    print_message("    median of %d, us: create %llu, first byte %llu, exit %llu, destroy %llu\n",
                  N, (unsigned long long)create[N / 2], (unsigned long long)first[N / 2],
                  (unsigned long long)whole[N / 2], (unsigned long long)gone[N / 2]);
}

static void eight_at_once_are_answered(void **state)
{
    enum { N = 8 };
    struct contract_vm v[N];
    uint64_t last = 0;
    for (int i = 0; i < N; i++) {
        contract_new(&shared, &v[i]);
    }
    for (int i = 0; i < N; i++) {
        assert_true(contract_wait(&shared, &v[i].ready, 60000));
        assert_int_equal(v[i].ready_rc, 0);
    }
    uint64_t begin = un_clock_mono_us();
    for (int i = 0; i < N; i++) {
        contract_start(&v[i], "hello", "");
    }
    for (int i = 0; i < N; i++) {
        assert_true(contract_wait(&shared, &v[i].exited, 60000));
        assert_int_equal(v[i].why.kind, HV_EXIT_DONE);
        last = v[i].exit_us > last ? v[i].exit_us : last;
    }
    print_message("    all after %llu us; QEMU's peak memory %llu KiB, ours %llu KiB\n",
                  (unsigned long long)(last - begin), (unsigned long long)v[0].usage.peak_rss_kib,
                  (unsigned long long)lv_proc_peak_rss_kib(getpid()));
    for (int i = 0; i < N; i++) {
        contract_free(&v[i]);
    }
}

/* In a program of its own, as a process has one embedded driver: makes VMs, tells of it, and waits
 * to be killed. */
static int run_victim(const char *dir, int tell)
{
    struct contract c = {0};
    struct contract_vm v[2];
    struct un_error err = UN_ERROR_INIT;
    if (open_driver(&c, dir, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    contract_shell(&c, &v[0]);
    contract_shell(&c, &v[1]);
    contract_start(&v[1], "spin", "");
    contract_wait(&c, &v[1].started, 60000);
    bool never = false;
    if (write(tell, "r", 1) == 1) {
        contract_wait(&c, &never, 60000);
    }
    return 1;
}

static void leftovers_of_a_killed_process_are_removed(void **state)
{
    char dir[160], byte;
    int pipe_fd[2];
    snprintf(dir, sizeof(dir), "%s/killed", state_dir);
    char tell[16];
    assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
    int inherited = dup(pipe_fd[1]);
    snprintf(tell, sizeof(tell), "%d", inherited);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "test_libvirt", "victim", dir, tell, (char *)NULL);
        _exit(1);
    }
    close(inherited);
    close(pipe_fd[1]);
    assert_int_equal(read(pipe_fd[0], &byte, 1), 1);
    close(pipe_fd[0]);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(count_processes(dir), 2);
    assert_true(work_exists(dir));
    struct contract c = {0};
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(open_driver(&c, dir, &err), 0);
    bool never = false;
    for (int i = 0; i < 1200 && (count_processes(dir) > 0 || work_exists(dir)); i++) {
        contract_wait(&c, &never, 50);
    }
    assert_int_equal(count_processes(dir), 0);
    assert_false(work_exists(dir));
    close_driver(&c);
}

/* A work directory as an earlier unid left it; gives the descriptor of the file that names the
 * owner. */
static int make_work(const char *path, const char *owner_state)
{
    char owner[256];
    snprintf(owner, sizeof(owner), "%s/owner", path);
    assert_int_equal(mkdir(path, 0711), 0);
    int fd = open(owner, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, owner_state, strlen(owner_state)), (ssize_t)strlen(owner_state));
    return fd;
}

/* Only what belongs to no one any more: neither a state directory that exists nor a process. */
static void abandoned_work_directories_are_removed(void **state)
{
    char path[3][64];
    const char *owners[] = {"/nonexistent/unid/libvirt", "/nonexistent/unid/libvirt", "/tmp"};
    int fd[3];
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof(path[i]), "/dev/shm/unid-%08x%02x", (unsigned)getpid(), i);
        fd[i] = make_work(path[i], owners[i]);
    }
    close(fd[0]);
    close(fd[2]);
    assert_int_equal(flock(fd[1], LOCK_EX | LOCK_NB), 0);
    struct lv_place p = {.lock = -1, .owner = -1, .bases = {"/dev/shm", "/tmp", "/tmp"}};
    lv_place_clean_abandoned(&p);
    bool there[3];
    for (int i = 0; i < 3; i++) {
        there[i] = access(path[i], F_OK) == 0;
        lv_tree_remove(path[i]);
    }
    close(fd[1]);
    assert_false(there[0]);
    assert_true(there[1]);
    assert_true(there[2]);
}

static void state_directory_in_use_is_refused(void **state)
{
    struct contract second = {0};
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(open_driver(&second, state_dir, &err), -EBUSY);
    un_loop_free(second.loop);
}

#ifdef UNID_FAULT_INJECTION
static void shell_that_cannot_be_made_is_told(void **state)
{
    struct contract_vm v;
    assert_int_equal(un_fault_set("libvirt.create=EIO"), 0);
    contract_new(&shared, &v);
    assert_true(contract_wait(&shared, &v.ready, 60000));
    assert_int_equal(v.ready_rc, -EIO);
    un_fault_set(NULL);
    contract_free(&v);
}

/* libvirt would wait 15 s and more for the end of a process whose exit status nobody takes. */
static void late_end_of_qemu_holds_up_nothing(void **state)
{
    struct contract_vm v;
    contract_shell(&shared, &v);
    contract_start(&v, "spin", "");
    assert_true(contract_wait(&shared, &v.started, 60000));
    bool never = false;
    contract_wait(&shared, &never, 100); /* what the making had taken up has ended */
    assert_int_equal(un_fault_set("libvirt.reap=EIO"), 0);
    hv_vm_ops(v.vm)->vm_free(v.vm);
    bool gone = contract_wait(&shared, &v.gone, 12000);
    un_fault_set(NULL);
    if (!gone) {
        contract_wait(&shared, &v.gone, 60000);
    }
    assert_true(gone);
    un_buf_done(&v.output);
    un_buf_done(&v.log);
}

static void failing_resume_is_lost(void **state)
{
    struct contract_vm v;
    contract_shell(&shared, &v);
    assert_int_equal(un_fault_set("libvirt.resume=EIO"), 0);
    contract_start(&v, "hello", "");
    assert_true(contract_wait(&shared, &v.exited, 60000));
    un_fault_set(NULL);
    assert_int_equal(v.why.kind, HV_EXIT_LOST);
    contract_free(&v);
}
#endif

/* Whatever happened: no process and no socket stays. From outside of the tests' process, where libvirt's
 * threads may still write. */
static void clean_up(void)
{
    const char *subs[] = {"", "/killed"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(subs); i++) {
        char dir[160];
        struct lv_place p = {.lock = -1, .owner = -1, .bases = {"/dev/shm", "/tmp", "/tmp"}};
        snprintf(dir, sizeof(dir), "%s%s/libvirt/tag", state_dir, subs[i]);
        if (access(dir, F_OK) == 0) { /* not by lv_place_init: a failed test still has the lock */
            snprintf(dir, sizeof(dir), "%s%s", state_dir, subs[i]);
            prefix_of(dir, p.prefix, sizeof(p.prefix) - 1);
            strcat(p.prefix, "-");
            lv_place_clean(&p, NULL);
        }
    }
}

/* In a process of its own, as libvirt's driver, its lock and its threads are the process's: a test
 * that fails takes none of them into the next. Gives 1 for a failure. */
static int run_apart(const struct CMUnitTest *test)
{
    const struct CMUnitTest libvirt[] = {*test};
    int status = 1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        exit(cmocka_run_group_tests(libvirt, NULL, NULL));
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror(test->name);
        return 1;
    }
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "%s: signal %d\n", test->name, WTERMSIG(status));
    }
    return status != 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leftovers_of_a_killed_process_are_removed),
        cmocka_unit_test(abandoned_work_directories_are_removed),
        cmocka_unit_test_setup_teardown(answers, setup, teardown),
        cmocka_unit_test_setup_teardown(opens_again_in_the_same_process, setup, teardown),
        cmocka_unit_test_setup_teardown(state_directory_in_use_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(streams_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_once, setup, teardown),
        cmocka_unit_test_setup_teardown(can_be_freed_in_every_state, setup, teardown),
        cmocka_unit_test_setup_teardown(four_run_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_writes_its_own_page_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(system_calls_are_faults_with_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(time_passes, setup, teardown),
        cmocka_unit_test_setup_teardown(connections_are_asked_of_the_user, setup, teardown),
        cmocka_unit_test_setup_teardown(the_report_is_read_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(asks_without_a_user_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(fault_is_told_with_its_address, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_killed_while_running_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_killed_as_a_shell_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_image_leaves_the_shell_usable, setup, teardown),
        cmocka_unit_test_setup_teardown(odd_memory_sizes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(waiting_guest_stands_still, setup, teardown),
        cmocka_unit_test_setup_teardown(probe_measures, setup, teardown),
#ifdef UNID_FAULT_INJECTION
        cmocka_unit_test_setup_teardown(shell_that_cannot_be_made_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(late_end_of_qemu_holds_up_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_resume_is_lost, setup, teardown),
#endif
        cmocka_unit_test_setup_teardown(eight_at_once_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(figures, setup, teardown),
    };
    char modules[512];
    snprintf(modules, sizeof(modules), "%s/lib/unid", getenv("UNID_BUILD") ?: ".");
    setenv("UNID_MODULE_DIR", modules, 0);
    if (argc == 4 && strcmp(argv[1], "victim") == 0) {
        return run_victim(argv[2], atoi(argv[3]));
    }
    snprintf(state_dir, sizeof(state_dir), "/tmp/unid-test-libvirt-XXXXXX");
    if (!mkdtemp(state_dir)) {
        perror("mkdtemp");
        return 1;
    }
    int failed = 0;
    for (size_t i = 0; i < UN_ARRAY_SIZE(tests); i++) {
        if (argc != 2 || fnmatch(argv[1], tests[i].name, 0) == 0) { /* one test, or a pattern */
            failed += run_apart(&tests[i]);
            clean_up();
        }
    }
    lv_tree_remove(state_dir);
    return failed ? 1 : 0;
}
