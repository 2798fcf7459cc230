/* kvm_start.c - where the time of a VM goes, with the kvm driver alone: no HTTP, no scheduler.
 *
 *     bench/kvm_start [-n RUNS] [-s SHELLS] [-c AT_ONCE] [-M MIB] [-i] [-r] [-m] [-o] [IMAGE [ARGUMENT]...]
 *
 * Keeps SHELLS shells ahead and AT_ONCE requests running, until RUNS requests (default 1000) to
 * IMAGE (default guest/examples/hello in the build tree) are answered, and prints medians and 99th
 * percentiles of each phase, the rate, and the CPU time of this process, which stands for unid.
 * -M sets the guest's memory (16 MiB). -i starts from the image, without a snapshot; -r puts VMs back instead of making new ones.
 * -o prints what is answered. -m measures memory instead: RUNS shells at once, then RUNS guests that stand at their first
 * output.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "hypervisor/kvm/kvm.h"

enum { PHASES = VMM_PHASES + 7 };

static const char *const phase_names[PHASES] = {"fork",
                                                "KVM_CREATE_VM",
                                                "memory slot",
                                                "vCPU",
                                                "seccomp",
                                                "first run",
                                                "shell, in all",
                                                "bind",
                                                "run to 1st exit",
                                                "start to 1st call",
                                                "start to end",
                                                "exit to gone",
                                                "vm_run call"};

static struct {
    struct un_loop *loop;
    struct hv_driver *drv;
    uint8_t *image;
    size_t image_len;
    const char *const *argv;
    const char *key;
    bool recycle, memory, show;
    unsigned runs, shells, at_once;  /* wanted */
    unsigned started, done, running; /* so far; now */
    unsigned idle, starting, vms;    /* shells */
    struct lane *ready;
    uint32_t *samples[PHASES]; /* ns, `done` each */
    uint64_t first_us, end_us;
    unsigned failed, mem_mib;
} b = {.mem_mib = 16, .runs = 1000, .shells = 8, .at_once = 1, .key = "bench"};

struct lane {
    struct hv_vm *vm;
    struct lane *next;
    uint64_t new_ns, run_ns, first_ns, called_ns, exit_ns, free_ns;
    unsigned sample;
    bool ran;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void feed(void);

static void take_ready(struct lane *l)
{
    l->next = b.ready;
    b.ready = l;
    b.idle++;
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    struct lane *l = arg;
    if (rc < 0) {
        fprintf(stderr, "no shell: %s\n", err->text);
        exit(1);
    }
    if (!l->ran) {
        b.starting--;
        l->exit_ns = now_ns() - l->new_ns;
    }
    take_ready(l);
    if (b.memory) {
        un_loop_stop(b.loop);
        return;
    }
    feed();
}

static void on_started(void *arg)
{
}

static void on_input_wanted(void *arg, size_t room)
{
    struct lane *l = arg;
    hv_kvm_driver.vm_input(l->vm, NULL, 0, true);
}

static void on_head(void *arg, const struct hv_head *head)
{
    struct lane *l = arg;
    l->first_ns = now_ns();
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct lane *l = arg;
    if (b.memory) {
        b.done++;
        un_loop_stop(b.loop);
        return;
    }
    if (b.show) {
        printf("%.*s\n", (int)len, (const char *)data);
    }
    hv_kvm_driver.vm_output_done(l->vm);
}

static void on_log(void *arg, const void *data, size_t len)
{
    fprintf(stderr, "%.*s", (int)len, (const char *)data);
}

static void put_sample(struct lane *l, int phase, uint64_t ns)
{
    b.samples[phase][l->sample] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct lane *l = arg;
    struct hv_kvm_times t;
    uint64_t now = now_ns(), shell = l->exit_ns;
    if (why->kind != HV_EXIT_DONE || why->status != 0) {
        b.failed++;
        fprintf(stderr, "failed: %s %s\n", hv_exit_name(why->kind), why->detail);
    }
    hv_kvm_vm_times(l->vm, &t);
    l->sample = b.done;
    for (int i = 0; i < VMM_PHASES; i++) {
        put_sample(l, i, t.phase_ns[i]);
    }
    put_sample(l, VMM_PHASES, shell);
    put_sample(l, VMM_PHASES + 1, t.bind_ns);
    put_sample(l, VMM_PHASES + 2, t.run_ns);
    put_sample(l, VMM_PHASES + 3, l->first_ns - l->run_ns);
    put_sample(l, VMM_PHASES + 4, now - l->run_ns);
    put_sample(l, VMM_PHASES + 6, l->called_ns - l->run_ns);
    b.done++;
    b.running--;
    if (b.done == b.runs) {
        b.end_us = un_clock_mono_us();
    }
    struct un_error err = UN_ERROR_INIT;
    l->free_ns = now_ns();
    if (!b.recycle || b.started >= b.runs || hv_kvm_driver.vm_recycle(l->vm, &err) < 0) {
        hv_kvm_driver.vm_free(l->vm);
    }
    feed();
}

static void on_gone(void *arg)
{
    struct lane *l = arg;
    if (l->ran) {
        put_sample(l, VMM_PHASES + 5, now_ns() - l->free_ns);
    }
    free(l);
    b.vms--;
    if (b.memory) {
        un_loop_stop(b.loop);
        return;
    }
    feed();
}

static void run_one(struct lane *l)
{
    static const char *const none[] = {NULL};
    static const char head[] = "GET / HTTP\r\n";
    struct un_error err = UN_ERROR_INIT;
    struct hv_run_spec spec = {.image = b.image,
                               .image_len = b.image_len,
                               .mem_bytes = (uint64_t)b.mem_mib << 20,
                               .argv = b.argv,
                               .envp = none,
                               .invocation_id = "01J0000000000000000000TEST",
                               .deadline_us = 10000000,
                               .request_head = head,
                               .request_head_len = sizeof(head) - 1,
                               .body_eof = true,
                               .snapshot_key = b.key};
    l->ran = true;
    l->run_ns = now_ns();
    if (hv_kvm_driver.vm_run(l->vm, &spec, &err) < 0) {
        fprintf(stderr, "vm_run: %s\n", err.text);
        exit(1);
    }
    l->called_ns = now_ns();
    b.started++;
    b.running++;
}

static void new_shell(void)
{
    static const struct hv_vm_events events = {.on_ready = on_ready,
                                               .on_started = on_started,
                                               .on_input_wanted = on_input_wanted,
                                               .on_head = on_head,
                                               .on_output = on_output,
                                               .on_log = on_log,
                                               .on_exit = on_exit_,
                                               .on_gone = on_gone};
    struct un_error err = UN_ERROR_INIT;
    struct lane *l = calloc(1, sizeof(*l));
    struct hv_vm_spec spec = {.mem_bytes = (uint64_t)b.mem_mib << 20, .events = &events, .arg = l};
    if (!l) {
        abort();
    }
    l->new_ns = now_ns();
    if (hv_kvm_driver.vm_new(b.drv, &spec, &l->vm, &err) < 0) {
        fprintf(stderr, "vm_new: %s\n", err.text);
        exit(1);
    }
    b.starting++;
    b.vms++;
}

/* Sequential requests wait for a full pool, so that they measure the start and not its refill. */
static bool may_run(void)
{
    return b.started < b.runs && b.running < b.at_once && b.ready &&
           (b.at_once > 1 || b.recycle || b.idle == b.shells || b.started + b.idle >= b.runs);
}

static void feed(void)
{
    while (may_run()) {
        struct lane *l = b.ready;
        b.ready = l->next;
        b.idle--;
        run_one(l);
    }
    unsigned wanted = b.recycle ? b.at_once : b.shells;
    unsigned have = b.idle + b.starting + (b.recycle ? b.running : 0);
    unsigned left = b.runs - b.started;
    while (have < wanted && !(b.at_once == 1 && b.running) && b.idle + b.starting < left) {
        new_shell();
        have++;
    }
    if (b.started >= b.runs) {
        while (b.ready) {
            struct lane *l = b.ready;
            b.ready = l->next;
            b.idle--;
            l->ran = false;
            hv_kvm_driver.vm_free(l->vm);
        }
        if (b.vms == 0) {
            un_loop_stop(b.loop);
        }
    }
}

static int by_size(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, c = *(const uint32_t *)y;
    return (a > c) - (a < c);
}

static void print_table(uint64_t cpu_us)
{
    printf("%-18s %9s %9s\n", "us", "p50", "p99");
    for (int i = 0; i < PHASES; i++) {
        qsort(b.samples[i], b.done, sizeof(uint32_t), by_size);
        printf("%-18s %9.1f %9.1f\n", phase_names[i], b.samples[i][b.done / 2] / 1e3,
               b.samples[i][(size_t)b.done * 99 / 100] / 1e3);
    }
    printf("%u runs, %u failed, %.0f a second, %.1f us CPU of this process each\n", b.done,
           b.failed, b.done * 1e6 / (double)(b.end_us - b.first_us), (double)cpu_us / b.done);
}

static void prepared(void *arg, int rc, const struct un_error *err, const void *log, size_t len,
                     const struct unid_report *report)
{
    if (rc < 0) {
        fprintf(stderr, "snapshot: %s\n%.*s", err->text, (int)len, (const char *)log);
        exit(1);
    }
    un_loop_stop(b.loop);
}

static void prepare(void)
{
    static const char *const none[] = {NULL};
    struct hv_run_spec spec = {.image = b.image,
                               .image_len = b.image_len,
                               .mem_bytes = (uint64_t)b.mem_mib << 20,
                               .argv = b.argv,
                               .envp = none,
                               .snapshot_key = b.key};
    uint64_t t0 = now_ns();
    hv_kvm_driver.prepare(b.drv, &spec, prepared, NULL);
    un_loop_run(b.loop);
    printf("snapshot made in %.1f ms\n", (double)(now_ns() - t0) / 1e6);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* The value of a line "NAME: n kB" of a file in /proc. */
static unsigned long proc_kib(const char *path, const char *name)
{
    char line[256];
    unsigned long kib = 0;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
            kib = strtoul(line + strlen(name) + 1, NULL, 10);
        }
    }
    if (f) {
        fclose(f);
    }
    return kib;
}

static void print_memory(const char *what, struct lane *all, unsigned long available_before)
{
    unsigned long pss = 0, anonymous = 0, count = 0;
    char path[64];
    for (struct lane *l = all; l; l = l->next) {
        snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", hv_kvm_driver.vm_pid(l->vm));
        pss += proc_kib(path, "Pss");
        anonymous += proc_kib(path, "Anonymous");
        count++;
    }
    unsigned long now = proc_kib("/proc/meminfo", "MemAvailable");
    printf(
        "%s: %lu VMs, %.0f KiB PSS each (%.0f anonymous), %.0f KiB each of the machine's memory\n",
        what, count, (double)pss / (double)count, (double)anonymous / (double)count,
        ((double)available_before - (double)now) / (double)count);
}

static void measure_memory(void)
{
    unsigned long before = proc_kib("/proc/meminfo", "MemAvailable");
    for (unsigned i = 0; i < b.runs; i++) {
        new_shell();
    }
    while (b.idle < b.runs) {
        un_loop_run(b.loop);
    }
    print_memory("shells", b.ready, before);
    uint64_t t0 = now_ns();
    for (struct lane *l = b.ready; l; l = l->next) {
        run_one(l);
    }
    while (b.done < b.runs) {
        un_loop_run(b.loop);
    }
    printf("all answered in %.0f ms\n", (double)(now_ns() - t0) / 1e6);
    print_memory("running", b.ready, before);
    struct lane *next;
    for (struct lane *l = b.ready; l; l = next) {
        next = l->next;
        l->ran = false;
        hv_kvm_driver.vm_free(l->vm);
    }
    while (b.vms > 0) {
        un_loop_run(b.loop);
    }
}

static void read_image(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !(b.image = malloc((size_t)st.st_size)) ||
        read(fd, b.image, (size_t)st.st_size) != st.st_size) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    b.image_len = (size_t)st.st_size;
    close(fd);
}

static uint64_t own_cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    static const char *const hello[] = {"hello", NULL};
    static char dir[] = "/tmp/unid-bench-XXXXXX";
    struct un_error err = UN_ERROR_INIT;
    const char *image = "guest/examples/hello";
    for (int o; (o = getopt(argc, argv, "+n:s:c:M:irmo")) != -1;) {
        if (o == 'n') {
            b.runs = (unsigned)atoi(optarg);
        } else if (o == 's') {
            b.shells = (unsigned)atoi(optarg);
        } else if (o == 'c') {
            b.at_once = (unsigned)atoi(optarg);
        } else if (o == 'M') {
            b.mem_mib = (unsigned)atoi(optarg);
        } else if (o == 'o') {
            b.show = true;
        } else if (o == 'i') {
            b.key = NULL;
        } else if (o == 'r') {
            b.recycle = true;
        } else if (o == 'm') {
            b.memory = true;
        } else {
            return 2;
        }
    }
    b.argv = optind < argc ? (const char *const *)argv + optind : hello;
    read_image(optind < argc ? argv[optind] : image);
    setenv("UNID_VMM", "bin/unid-vmm", 0);
    struct hv_driver_spec spec = {.state_dir = mkdtemp(dir), .runtime_dir = dir};
    for (int i = 0; i < PHASES; i++) {
        b.samples[i] = calloc(b.runs, sizeof(uint32_t));
    }
    if (un_loop_new(&b.loop, &err) < 0 ||
        (spec.loop = b.loop, hv_kvm_driver.open(&spec, &b.drv, &err)) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (b.key) {
        prepare();
    }
    uint64_t cpu = own_cpu_us();
    b.first_us = un_clock_mono_us();
    if (b.memory) {
        measure_memory();
    } else {
        feed();
        un_loop_run(b.loop);
        print_table(own_cpu_us() - cpu);
    }
    hv_kvm_driver.close(b.drv);
    un_loop_free(b.loop);
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) == 0 && b.failed == 0 ? 0 : 1;
}
