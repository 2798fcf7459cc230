/* test_kvm.c - the kvm driver with real VMs: the contract of every driver, snapshots, recycling,
 * deaths of all kinds. Skipped, with a reason, where /dev/kvm cannot be used.
 *
 *     test_kvm       everything; UNID_KVM_ROUNDS=10000 for the long form of what repeats
 *     test_kvm PATTERN   only the tests of that name
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/fault.h"
#include "tests/unit/kvm_support.h"

/* --- the contract ----------------------------------------------------------------------------- */

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

static void a_vm_is_put_back_and_runs_again(void **state)
{
    contract_is_put_back_and_runs_again(&contract);
}

static void a_vm_runs_once(void **state)
{
    contract_runs_once(&contract);
}

static void a_guest_writes_its_own_page_tables(void **state)
{
    contract_a_guest_writes_its_own_page_tables(&contract);
}

static void page_tables_and_segment_bases_are_snapshotted(void **state)
{
    contract_page_tables_and_segment_bases_are_snapshotted(&contract);
}

static void system_calls_are_faults_with_a_name(void **state)
{
    contract_system_calls_are_faults_with_a_name(&contract);
}

static void time_passes(void **state)
{
    contract_time_passes(&contract);
}

static void connections_are_asked_of_the_user(void **state)
{
    contract_connections_are_asked_of_the_user(&contract);
}

static void the_report_is_read_at_the_end(void **state)
{
    contract_the_report_is_read_at_the_end(&contract);
}

static void asks_without_a_user_are_answered(void **state)
{
    contract_asks_without_a_user_are_answered(&contract);
}

static void physical_addresses_outside_of_memory_are_faults(void **state)
{
    contract_physical_addresses_outside_of_memory_are_faults(&contract);
}

/* --- runs ------------------------------------------------------------------------------------- */

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
    struct un_error err = UN_ERROR_INIT;
    contract_shell(&contract, &v);
    assert_int_equal(run_start(&v, (struct run){.function = "spin", .deadline_us = 1}, &err), 0);
    /* It is nice, and the host may be busy. */
    assert_true(contract_wait(&contract, &v.exited, 120000));
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
    assert_true(contract_wait(&contract, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    contract_free(&v);
}

static void a_monitor_whose_guest_goes_on_running_is_made_nice(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    bool never = false;
    int before = getpriority(PRIO_PROCESS, 0), nice = before > 10 ? before : 10;
    contract_shell(&contract, &v);
    id_t pid = (id_t)hv_kvm_driver.vm_pid(v.vm);
    assert_int_equal(getpriority(PRIO_PROCESS, pid), before);
    assert_int_equal(run_start(&v, (struct run){.function = "spin"}, &err), 0);
    for (int i = 0; i < 12000 && getpriority(PRIO_PROCESS, pid) != nice; i++) {
        contract_wait(&contract, &never, 5);
    }
    assert_int_equal(getpriority(PRIO_PROCESS, pid), nice);
    contract_free(&v);
}

/* --- snapshots -------------------------------------------------------------------------------- */

static char *snapshot_path(const char *key)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/kvm/snapshots/%s.snap", state_dir, key);
    return path;
}

/* Only a VM that began from a snapshot can be put back to it. */
static bool ran_from_snapshot(struct run r)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    run(&v, r);
    if (v.why.kind != HV_EXIT_DONE) {
        fail_msg("%s, vector %u, rip %#llx, address %#llx: %s", hv_exit_name(v.why.kind),
                 v.why.fault_vector, (unsigned long long)v.why.fault_rip,
                 (unsigned long long)v.why.fault_addr, v.why.detail);
    }
    bool from = hv_kvm_driver.vm_recycle(v.vm, &err) == 0;
    contract_free(&v);
    return from;
}

static void a_thousand_clones_are_all_different(void **state)
{
    enum { CLONES = 1000, LEN = 65 };
    char(*seen)[LEN + 1] = calloc(CLONES, sizeof(*seen));
    struct run r = {.function = "random", .key = "clones"};
    assert_non_null(seen);
    prepare_ok(r);
    for (int i = 0; i < CLONES; i++) {
        struct contract_vm v;
        run(&v, r);
        assert_int_equal(v.why.kind, HV_EXIT_DONE);
        assert_int_equal(v.output.len, LEN);
        memcpy(seen[i], v.output.data, LEN);
        contract_free(&v);
    }
    qsort(seen, CLONES, sizeof(*seen), (int (*)(const void *, const void *))strcmp);
    for (int i = 1; i < CLONES; i++) {
        assert_string_not_equal(seen[i - 1], seen[i]);
    }
    free(seen);
}

static void the_first_run_of_a_key_makes_its_snapshot(void **state)
{
    struct run r = {.function = "hello", .key = "first"};
    struct stat st;
    assert_false(ran_from_snapshot(r));
    prepare_ok(r); /* waits for the one that is being made */
    assert_int_equal(stat(snapshot_path("first"), &st), 0);
    assert_true(st.st_blocks * 512 < 1 << 20);
    assert_true(ran_from_snapshot(r));
}

static void snapshots_are_found_by_the_next_driver(void **state)
{
    struct run r = {.function = "hello", .key = "stays"};
    struct stat before, after;
    prepare_ok(r);
    assert_int_equal(stat(snapshot_path("stays"), &before), 0);
    close_driver(NULL);
    open_driver(NULL);
    prepare_ok(r);
    assert_int_equal(stat(snapshot_path("stays"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_true(ran_from_snapshot(r));
}

/* Overwrites a byte at `at`, or cuts the file there. */
static void damage(const char *key, off_t at, bool cut)
{
    int fd = open(snapshot_path(key), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    if (cut) {
        assert_int_equal(ftruncate(fd, at), 0);
    } else {
        assert_int_equal(pwrite(fd, "\xee", 1, at), 1);
    }
    close(fd);
}

static void damaged_snapshots_are_made_again(void **state)
{
    static const struct {
        off_t at;
        bool cut;
    } damages[] = {{0, false},
                   {20, false},
                   {5000, false},
                   {16384 + 2 * MIB, false},
                   {16384 + 5 * MIB, false},
                   {12000, true},
                   {16384 + 4 * MIB, true},
                   {0, true}};
    struct run r = {.function = "hello", .key = "damaged"};
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        for (int reopen = 0; reopen < 2; reopen++) {
            prepare_ok(r);
            damage(r.key, damages[i].at, damages[i].cut);
            if (reopen) {
                close_driver(NULL);
                open_driver(NULL);
            }
            assert_false(ran_from_snapshot(r));
            prepare_ok(r);
            assert_true(ran_from_snapshot(r));
        }
    }
}

static void a_deleted_cache_is_made_again(void **state)
{
    struct run r = {.function = "hello", .key = "deleted"};
    prepare_ok(r);
    assert_int_equal(unlink(snapshot_path(r.key)), 0);
    assert_true(ran_from_snapshot(r)); /* it is still open */
    close_driver(NULL);
    open_driver(NULL);
    prepare_ok(r);
    assert_true(ran_from_snapshot(r));
}

static void a_key_with_another_memory_size_is_not_taken(void **state)
{
    struct run r = {.function = "hello", .key = "size"};
    prepare_ok(r);
    r.mem_bytes = 8 * MIB;
    assert_false(ran_from_snapshot(r));
}

static const char *const spin_early[] = {"spin", "early", NULL};

static void programs_that_never_ask_fail_with_their_log(void **state)
{
    const char *const crash_early[] = {"crash", "0x18", "early", NULL};
    struct prepared p =
        prepare((struct run){.function = "crash", .key = "crash", .argv = crash_early});
    assert_int_equal(p.rc, -EPROTO);
    assert_non_null(strstr(p.err.text, "address 0x18"));
    assert_non_null(strstr(p.log, "too early"));
    p = prepare(
        (struct run){.function = "spin", .key = "spin", .argv = spin_early, .deadline_us = 100000});
    assert_int_equal(p.rc, -ETIMEDOUT);
    p = prepare((struct run){.function = "hello", .key = "../x"});
    assert_int_equal(p.rc, -EINVAL);
    p = prepare((struct run){.function = "hello", .key = "small", .mem_bytes = 2 * MIB + 4096});
    assert_int_equal(p.rc, -ENOMEM);
}

static void a_build_that_runs_is_ended_with_the_driver(void **state)
{
    const char *const envp[] = {NULL};
    struct prepared p = {0};
    size_t len;
    const uint8_t *img = image("spin", &len);
    struct hv_run_spec spec = {.image = img,
                               .image_len = len,
                               .mem_bytes = 16 * MIB,
                               .argv = spin_early,
                               .envp = envp,
                               .snapshot_key = "spins"};
    hv_kvm_driver.prepare(contract.drv, &spec, on_prepared, &p);
    contract_wait(&contract, &p.done, 100);
    assert_false(p.done);
    close_driver(NULL);
    assert_true(p.done);
    assert_int_equal(p.rc, -ECANCELED);
    open_driver(NULL);
}

/* --- recycling -------------------------------------------------------------------------------- */

static void assert_clean(const struct contract_vm *v)
{
    if (v->why.kind != HV_EXIT_DONE) {
        fail_msg("%s at %#llx: %s", hv_exit_name(v->why.kind), (unsigned long long)v->why.fault_rip,
                 v->why.detail);
    }
    assert_string_equal(v->output.data ? (char *)v->output.data : "", "clean\n");
}

static void nothing_is_left_behind_in_a_vm_that_is_put_back(void **state)
{
    struct contract_vm v;
    struct run r = {.function = "residue", .key = "residue"};
    prepare_ok(r);
    run(&v, r);
    assert_clean(&v);
    int pid = hv_kvm_driver.vm_pid(v.vm);
    for (unsigned i = 1; i < rounds(100); i++) {
        run_again(&v, r, 0);
        assert_clean(&v);
        assert_int_equal(hv_kvm_driver.vm_pid(v.vm), pid);
    }
    contract_free(&v);
}

static void nothing_is_left_behind_in_new_vms(void **state)
{
    struct run r = {.function = "residue", .key = "residue"};
    prepare_ok(r);
    for (unsigned i = 0; i < rounds(50); i++) {
        struct contract_vm v;
        run(&v, r);
        assert_clean(&v);
        contract_free(&v);
    }
}

static void vector_registers_are_put_back_where_they_can_be_used(void **state)
{
    const char *const argv[] = {"residue", "avx", NULL};
    struct contract_vm v;
    struct run r = {.function = "residue", .key = "residue-avx", .argv = argv};
    prepare_ok(r);
    run(&v, r);
    if (v.why.kind == HV_EXIT_FAULT) {
        print_message("no AVX in a VM here\n");
    } else {
        assert_clean(&v);
        for (int i = 0; i < 50; i++) {
            run_again(&v, r, 0);
            assert_clean(&v);
        }
    }
    contract_free(&v);
}

static void a_vm_is_put_back_for_its_own_function_only(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    struct run r = {.function = "hello", .key = "own"},
               other = {.function = "echo", .key = "other"};
    prepare_ok(r);
    prepare_ok(other);
    run(&v, r);
    v.ready = v.started = v.exited = false;
    v.heads = 0;
    assert_int_equal(hv_kvm_driver.vm_recycle(v.vm, &err), 0);
    assert_int_equal(hv_kvm_driver.vm_recycle(v.vm, &err), -EINVAL);
    assert_true(contract_wait(&contract, &v.ready, 60000));
    assert_int_equal(run_start(&v, other, &err), -EINVAL);
    other.key = NULL;
    assert_int_equal(run_start(&v, other, &err), -EINVAL);
    assert_int_equal(run_start(&v, r, &err), 0);
    assert_true(contract_wait(&contract, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    contract_free(&v);
}

static void a_shell_bound_ahead_runs_its_function_only(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    const char *const touch[] = {"paging", "touch", "300", NULL};
    struct run r = {.function = "paging", .argv = touch, .key = "ahead"},
               other = {.function = "hello", .key = "other-ahead"};
    prepare_ok(r);
    prepare_ok(other);
    contract_shell(&contract, &v);
    assert_int_equal(hv_kvm_driver.vm_bind(v.vm, "unknown", contract.mem_bytes, &err), -ENOENT);
    assert_int_equal(hv_kvm_driver.vm_bind(v.vm, "ahead", 2 * contract.mem_bytes, &err), -ENOMEM);
    /* That it pays is learned from the first runs. */
    assert_int_equal(hv_kvm_driver.vm_bind(v.vm, "ahead", contract.mem_bytes, &err), -EALREADY);
    struct contract_vm lesson;
    run(&lesson, r);
    contract_free(&lesson);
    assert_int_equal(hv_kvm_driver.vm_bind(v.vm, "other-ahead", contract.mem_bytes, &err),
                     -EALREADY);
    v.ready = false;
    assert_int_equal(hv_kvm_driver.vm_bind(v.vm, "ahead", contract.mem_bytes, &err), 0);
    assert_int_equal(hv_kvm_driver.vm_bind(v.vm, "ahead", contract.mem_bytes, &err), -EINVAL);
    assert_true(contract_wait(&contract, &v.ready, 60000));
    assert_int_equal(run_start(&v, other, &err), -EINVAL);
    assert_int_equal(run_start(&v, r, &err), 0);
    assert_true(contract_wait(&contract, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    contract_free(&v);
}

static void a_vm_that_failed_is_not_put_back(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    run(&v, (struct run){.function = "crash"});
    assert_int_equal(hv_kvm_driver.vm_recycle(v.vm, &err), -EINVAL);
    contract_free(&v);
}

/* --- deaths ----------------------------------------------------------------------------------- */

static uint64_t cpu_ms(int pid)
{
    clockid_t clock;
    struct timespec t;
    assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &t), 0);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void a_killed_monitor_is_a_lost_vm(void **state)
{
    bool never = false;
    struct contract_vm shell, busy;
    struct un_error err = UN_ERROR_INIT;
    contract_shell(&contract, &shell);
    contract_shell(&contract, &busy);
    int pid = hv_kvm_driver.vm_pid(busy.vm);
    uint64_t before_ms = cpu_ms(pid);
    assert_int_equal(run_start(&busy, (struct run){.function = "spin"}, &err), 0);
    for (int i = 0; i < 6000 && cpu_ms(pid) < before_ms + 20; i++) {
        contract_wait(&contract, &never, 10); /* so that it takes the order */
    }
    kill(hv_kvm_driver.vm_pid(shell.vm), SIGKILL);
    kill(hv_kvm_driver.vm_pid(busy.vm), SIGKILL);
    assert_true(contract_wait(&contract, &shell.exited, 60000));
    assert_true(contract_wait(&contract, &busy.exited, 60000));
    assert_int_equal(shell.why.kind, HV_EXIT_LOST);
    assert_int_equal(busy.why.kind, HV_EXIT_LOST);
    assert_false(busy.why.unbegun);
    assert_non_null(strstr(busy.why.detail, "signal 9"));
    contract_free(&shell);
    contract_free(&busy);
    contract_answers(&contract);
}

/* Ends the VM's monitor, and waits until it has ended. */
static void kill_monitor(struct contract_vm *v)
{
    int pid = hv_kvm_driver.vm_pid(v->vm), fd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(fd >= 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 60000), 1);
    close(fd);
}

/* So the user may take another VM for the request. */
static void a_vm_whose_monitor_did_not_take_its_order_is_unbegun(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    struct run r = {.function = "hello", .key = "unreached"};
    prepare_ok(r);
    contract_shell(&contract, &v);
    kill_monitor(&v);
    assert_int_equal(run_start(&v, r, &err), 0);
    assert_true(contract_wait(&contract, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_LOST);
    assert_true(v.why.unbegun);
    contract_free(&v);

    run(&v, r);
    assert_int_equal(v.why.kind, HV_EXIT_DONE);
    v.ready = v.started = v.exited = false;
    v.heads = 0;
    assert_int_equal(hv_kvm_driver.vm_recycle(v.vm, &err), 0); /* the snapshot is still good */
    assert_true(contract_wait(&contract, &v.ready, 60000));
    kill_monitor(&v);
    assert_int_equal(run_start(&v, r, &err), 0);
    assert_true(contract_wait(&contract, &v.exited, 60000));
    assert_int_equal(v.why.kind, HV_EXIT_LOST);
    assert_true(v.why.unbegun);
    contract_free(&v);
}

static void a_killed_spawner_is_replaced(void **state)
{
    struct contract_vm starting, shell, busy;
    struct un_error err = UN_ERROR_INIT;
    contract_shell(&contract, &shell);
    contract_shell(&contract, &busy);
    assert_int_equal(run_start(&busy, (struct run){.function = "spin"}, &err), 0);
    int pid = hv_kvm_spawner_pid(contract.drv);
    assert_true(pid > 0);
    kill(pid, SIGSTOP);
    contract_new(&contract, &starting);
    kill(pid, SIGKILL);
    assert_true(contract_wait(&contract, &busy.exited, 60000));
    assert_int_equal(busy.why.kind, HV_EXIT_LOST);
    assert_true(contract_wait(&contract, &shell.exited, 60000));
    assert_true(contract_wait(&contract, &starting.ready, 60000));
    if (starting.ready_rc == 0 && !starting.exited) {
        assert_true(contract_wait(&contract, &starting.exited, 60000));
    }
    contract_free(&starting);
    contract_free(&shell);
    contract_free(&busy);
    contract_answers(&contract);
    assert_int_not_equal(hv_kvm_spawner_pid(contract.drv), pid);
}

/* In a process of its own, which is killed: a driver with VMs in every state. */
static void child_with_vms(int out)
{
    struct contract_vm shell, busy, starting;
    struct un_error err = UN_ERROR_INIT;
    open_driver(NULL);
    contract_shell(&contract, &shell);
    contract_shell(&contract, &busy);
    run_start(&busy, (struct run){.function = "spin"}, &err);
    contract_new(&contract, &starting);
    int pids[] = {hv_kvm_spawner_pid(contract.drv), hv_kvm_driver.vm_pid(shell.vm),
                  hv_kvm_driver.vm_pid(busy.vm)};
    if (write(out, pids, sizeof(pids)) == sizeof(pids)) {
        pause();
    }
    _exit(1);
}

static void nothing_outlives_unid(void **state)
{
    int out[2], pids[3], fds[3];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        child_with_vms(out[1]);
    }
    assert_int_equal(read(out[0], pids, sizeof(pids)), sizeof(pids));
    for (int i = 0; i < 3; i++) {
        assert_true(pids[i] > 0);
        fds[i] = (int)syscall(SYS_pidfd_open, pids[i], 0);
        assert_true(fds[i] >= 0);
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    for (int i = 0; i < 3; i++) {
        struct pollfd p = {.fd = fds[i], .events = POLLIN};
        assert_int_equal(poll(&p, 1, 60000), 1);
        close(fds[i]);
    }
    close(out[0]);
    close(out[1]);
}

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

static void no_descriptor_is_left_open(void **state)
{
    enum { MOST_KEPT = 100 }; /* for the next VMs (link.h), while the driver is open */
    struct run r = {.function = "hello", .key = "fds"};
    prepare_ok(r);
    close_driver(NULL);
    unsigned before = open_files();
    open_driver(NULL);
    for (int i = 0; i < 10; i++) {
        for (int j = 0; j < 10; j++) {
            ran_from_snapshot(r);
        }
        contract_can_be_freed_in_every_state(&contract);
        assert_in_range(open_files(), before, before + MOST_KEPT);
    }
    close_driver(NULL);
    assert_int_equal(open_files(), before);
    open_driver(NULL);
}

/* --- measurement, jail ------------------------------------------------------------------------ */

static struct hv_probe probed;
static bool probe_came;

static void on_probe(void *arg, const struct hv_probe *p)
{
    assert_false(probe_came);
    probe_came = true;
    probed = *p;
    un_loop_stop(contract.loop);
}

static void the_probe_measures_a_vm(void **state)
{
    probe_came = false;
    hv_kvm_driver.probe(contract.drv, on_probe, NULL);
    assert_false(probe_came);
    assert_true(contract_wait(&contract, &probe_came, 60000));
    print_message("%s; %llu loops/ms\n", probed.detail,
                  (unsigned long long)probed.guest_ops_per_ms);
    assert_true(probed.usable);
    assert_true(probed.shell_us > 0 && probed.start_us > 0);
    assert_true(probed.guest_ops_per_ms > 10000);
}

static void the_report_names_every_layer(void **state)
{
    struct hv_kvm_jail jail;
    hv_kvm_jail_report(contract.drv, &jail);
    assert_false(jail.known);
    contract_answers(&contract);
    hv_kvm_jail_report(contract.drv, &jail);
    assert_true(jail.known);
    for (int i = 0; i < VMM_LAYERS; i++) {
        print_message("%-20s %s\n", jail.layers[i].name,
                      jail.layers[i].error ? strerror(jail.layers[i].error) : "active");
    }
    assert_int_equal(jail.layers[VMM_LAYER_SECCOMP].error, 0);
    assert_int_equal(jail.layers[VMM_LAYER_CAPS].error, 0);
    assert_int_equal(jail.layers[VMM_LAYER_NO_NEW_PRIVS].error, 0);
}

/* --- faults ----------------------------------------------------------------------------------- */

#ifdef UNID_FAULT_INJECTION
static void what_fails_on_the_way_is_told_and_the_next_works(void **state)
{
    struct contract_vm v;
    struct un_error err = UN_ERROR_INIT;
    struct run r = {.function = "hello", .key = "faults"};
    struct hv_vm_spec spec = {.mem_bytes = 16 * MIB, .events = &v.events, .arg = &v};
    assert_int_equal(un_fault_set("kvm.spawner=EAGAIN@1"), 0);
    assert_int_equal(hv_kvm_driver.vm_new(contract.drv, &spec, &v.vm, &err), -EAGAIN);
    assert_int_equal(un_fault_set("kvm.ready=ENOMEM@1"), 0);
    contract_new(&contract, &v);
    assert_true(contract_wait(&contract, &v.ready, 60000));
    assert_int_equal(v.ready_rc, -ENOMEM);
    contract_free(&v);
    contract_shell(&contract, &v);
    assert_int_equal(un_fault_set("kvm.ram=ENOSPC@1"), 0);
    assert_int_equal(run_start(&v, (struct run){.function = "hello"}, &err), -ENOSPC);
    assert_int_equal(run_start(&v, (struct run){.function = "hello"}, &err), 0);
    assert_true(contract_wait(&contract, &v.exited, 60000));
    contract_free(&v);
    assert_int_equal(un_fault_set("kvm.snapshot.write=ENOSPC@1"), 0);
    struct prepared p = prepare(r);
    assert_int_equal(p.rc, -ENOSPC);
    assert_false(ran_from_snapshot(r));
    assert_false(ran_from_snapshot(r)); /* it is not tried again at once */
    prepare_ok(r);
    assert_true(ran_from_snapshot(r));
    un_fault_set(NULL);
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_driver, close_driver)

int main(int argc, char **argv)
{
    int rc = kvm_setup("test_kvm");
    if (rc != 0) {
        return rc;
    }
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_answered),
        TEST(bodies_stream_both_ways),
        TEST(a_vm_can_be_freed_in_every_state),
        TEST(four_vms_run_at_once),
        TEST(a_vm_is_put_back_and_runs_again),
        TEST(a_vm_runs_once),
        TEST(a_guest_writes_its_own_page_tables),
        TEST(page_tables_and_segment_bases_are_snapshotted),
        TEST(system_calls_are_faults_with_a_name),
        TEST(time_passes),
        TEST(connections_are_asked_of_the_user),
        TEST(the_report_is_read_at_the_end),
        TEST(asks_without_a_user_are_answered),
        TEST(physical_addresses_outside_of_memory_are_faults),
        TEST(crash_faults_at_its_address_and_leaves_its_log),
        TEST(spin_is_ended_by_its_cpu_time),
        TEST(hog_ends_at_its_memory),
        TEST(flood_is_stopped_by_free),
        TEST(bad_images_leave_the_shell_usable),
        TEST(a_monitor_whose_guest_goes_on_running_is_made_nice),
        TEST(a_thousand_clones_are_all_different),
        TEST(the_first_run_of_a_key_makes_its_snapshot),
        TEST(snapshots_are_found_by_the_next_driver),
        TEST(damaged_snapshots_are_made_again),
        TEST(a_deleted_cache_is_made_again),
        TEST(a_key_with_another_memory_size_is_not_taken),
        TEST(programs_that_never_ask_fail_with_their_log),
        TEST(a_build_that_runs_is_ended_with_the_driver),
        TEST(nothing_is_left_behind_in_a_vm_that_is_put_back),
        TEST(nothing_is_left_behind_in_new_vms),
        TEST(vector_registers_are_put_back_where_they_can_be_used),
        TEST(a_vm_is_put_back_for_its_own_function_only),
        TEST(a_shell_bound_ahead_runs_its_function_only),
        TEST(a_vm_that_failed_is_not_put_back),
        TEST(a_killed_monitor_is_a_lost_vm),
        TEST(a_vm_whose_monitor_did_not_take_its_order_is_unbegun),
        TEST(a_killed_spawner_is_replaced),
        TEST(nothing_outlives_unid),
        TEST(no_descriptor_is_left_open),
        TEST(the_probe_measures_a_vm),
        TEST(the_report_names_every_layer),
#ifdef UNID_FAULT_INJECTION
        TEST(what_fails_on_the_way_is_told_and_the_next_works),
#endif
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    kvm_teardown();
    return rc;
}
