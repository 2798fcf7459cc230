/* kvm_support.c - see kvm_support.h. */
#include "tests/unit/kvm_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct contract contract;
char state_dir[] = "/tmp/unid-test-kvm-XXXXXX";

const uint8_t *image(const char *name, size_t *ret_len)
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

int open_driver(void **state)
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

int close_driver(void **state)
{
    hv_kvm_driver.close(contract.drv);
    un_loop_free(contract.loop);
    return 0;
}

int run_start(struct contract_vm *v, struct run r, struct un_error *err)
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
void run(struct contract_vm *v, struct run r)
{
    struct un_error err = UN_ERROR_INIT;
    contract_shell(&contract, v);
    if (run_start(v, r, &err) < 0) {
        fail_msg("vm_run: %s", err.text);
    }
    assert_true(contract_wait(&contract, &v->exited, 60000));
}

void on_prepared(void *arg, int rc, const struct un_error *err, const void *log, size_t len,
                 const struct unid_report *report)
{
    struct prepared *p = arg;
    assert_false(p->done);
    p->done = true;
    p->rc = rc;
    un_error_copy(&p->err, err);
    snprintf(p->log, sizeof(p->log), "%.*s", (int)len, log ? (const char *)log : "");
    un_loop_stop(contract.loop);
}

struct prepared prepare(struct run r)
{
    const char *const argv[] = {r.function, NULL}, *const envp[] = {NULL};
    struct prepared p = {0};
    size_t len;
    const uint8_t *img = image(r.function, &len);
    struct hv_run_spec spec = {.image = img,
                               .image_len = len,
                               .mem_bytes = r.mem_bytes ? r.mem_bytes : 16 * MIB,
                               .argv = r.argv ? r.argv : argv,
                               .envp = envp,
                               .deadline_us = r.deadline_us,
                               .snapshot_key = r.key};
    hv_kvm_driver.prepare(contract.drv, &spec, on_prepared, &p);
    assert_false(p.done);
    assert_true(contract_wait(&contract, &p.done, 60000));
    return p;
}

void prepare_ok(struct run r)
{
    struct prepared p = prepare(r);
    if (p.rc != 0) {
        fail_msg("prepare %s: %s", r.function, p.err.text);
    }
}

unsigned rounds(unsigned few)
{
    const char *set = getenv("UNID_KVM_ROUNDS");
    return set ? (unsigned)atoi(set) : few;
}

static bool usable(const char *name)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "SKIP %s: /dev/kvm: %s\n", name, strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

int kvm_setup(const char *name)
{
    char vmm[512];
    if (!usable(name)) {
        return 77;
    }
    setenv("UNID_BUILD", ".", 0);
    snprintf(vmm, sizeof(vmm), "%s/bin/unid-vmm", getenv("UNID_BUILD"));
    setenv("UNID_VMM", vmm, 0);
    return mkdtemp(state_dir) ? 0 : 1;
}

void kvm_teardown(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", state_dir);
    if (system(command) != 0) {
        fprintf(stderr, "%s stays\n", state_dir);
    }
}

void run_again(struct contract_vm *v, struct run r, unsigned stood_ms)
{
    struct un_error err = UN_ERROR_INIT;
    const bool never = false;
    v->ready = v->started = v->exited = false;
    v->heads = 0;
    un_buf_reset(&v->output);
    if (hv_kvm_driver.vm_recycle(v->vm, &err) < 0) {
        fail_msg("recycle: %s", err.text);
    }
    assert_false(v->ready);
    assert_true(contract_wait(&contract, &v->ready, 60000));
    contract_wait(&contract, &never, stood_ms);
    if (run_start(v, r, &err) < 0) {
        fail_msg("run again: %s", err.text);
    }
    assert_true(contract_wait(&contract, &v->exited, 60000));
}
