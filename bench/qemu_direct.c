/* qemu_direct.c - the peer of bench/run: QEMU microvm started directly for an SDK image.
 *
 *     qemu_direct IMAGE ROUNDS [tcg|kvm]
 *
 * Prints a line a round: milliseconds from before fork and exec of QEMU to the guest's DONE, the same
 * instant that unid's first byte waits for. Machine, ROM, guest memory and layout are those of unid's
 * libvirt driver, made before the clock starts; QEMU gets them as a shared memory file and runs at once.
 * What is measured is therefore QEMU's own start and the guest's run, without libvirt and without unid.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "hypervisor/channel.h"
#include "hypervisor/layout.h"
#include "hypervisor/libvirt/bind.h"
#include "hypervisor/libvirt/rom.h"

#define MEM_BYTES (UINT64_C(64) << 20)
#define WAIT_MS   20000
#define EMULATOR  "/usr/bin/qemu-system-x86_64"

static void die(const char *what)
{
    fprintf(stderr, "qemu_direct: %s: %s\n", what, strerror(errno));
    exit(1);
}

static const uint8_t *map_image(const char *path, size_t *ret_size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        die(path);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        die(path);
    }
    close(fd);
    *ret_size = (size_t)st.st_size;
    return p;
}

/* Guest memory with the image and an empty request in it, as a memfd. */
static int make_memory(const char *image, uint8_t **ret_mem)
{
    int fd = memfd_create("guest", 0); /* inherited by QEMU */
    if (fd < 0 || ftruncate(fd, (off_t)MEM_BYTES) < 0) {
        die("guest memory");
    }
    uint8_t *mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mem == MAP_FAILED) {
        die("guest memory");
    }
    const char *const argv[] = {"hello", NULL};
    struct hv_run_spec run = {.mem_bytes = MEM_BYTES,
                              .argv = argv,
                              .envp = argv + 1,
                              .invocation_id = "direct",
                              .request_head = "GET / HTTP/1.1\r\n",
                              .request_head_len = 16,
                              .body_eof = true};
    run.image = map_image(image, &run.image_len);
    struct hv_layout_spec spec = {.mem = mem,
                                  .mem_bytes = MEM_BYTES,
                                  .doorbell = HV_DOORBELL_PORT,
                                  .doorbell_port = LV_DOORBELL_PORT,
                                  .boot_flags = UNID_BOOT_REQUEST_READY};
    static const struct hv_vm_events no_events;
    struct hv_layout layout;
    struct hv_channel channel;
    struct un_error err = UN_ERROR_INIT;
    hv_channel_init(&channel, mem + UNID_BOOT_ADDR, &no_events, NULL);
    if (hv_layout_build(&spec, &run, &layout, &err) < 0 ||
        lv_bind(mem, MEM_BYTES, &layout, &err) < 0 ||
        hv_channel_put_request(&channel, &run, &err) < 0) {
        fprintf(stderr, "qemu_direct: %s\n", err.text);
        exit(1);
    }
    hv_channel_done(&channel);
    munmap((void *)run.image, run.image_len);
    *ret_mem = mem;
    return fd;
}

static void exec_qemu(const char *rom, const char *accelerator, int mem_fd, int serial)
{
    char backend[128], chardev[64];
    snprintf(backend, sizeof backend,
             "memory-backend-file,id=m,size=%lluM,share=on,mem-path=/proc/self/fd/%d",
             (unsigned long long)(MEM_BYTES >> 20), mem_fd);
    snprintf(chardev, sizeof chardev, "socket,id=s,fd=%d", serial);
    execl(EMULATOR, EMULATOR, "-machine", "microvm,memory-backend=m", "-accel", accelerator, "-cpu",
          "qemu64,fsgsbase=on", "-m", "64M", "-object", backend, "-bios", rom, "-nodefaults",
          "-no-user-config", "-display", "none", "-no-reboot", "-chardev", chardev, "-device",
          "isa-serial,chardev=s", (char *)NULL);
    _exit(127);
}

/* Waits for the doorbell. */
static void wait_done(int fd, const uint8_t *mem)
{
    const struct unid_call *call = (const void *)(mem + UNID_CALL_ADDR);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    if (poll(&p, 1, WAIT_MS) <= 0 || read(fd, &byte, 1) != 1 || call->op != UNID_OP_DONE) {
        fprintf(stderr, "qemu_direct: the guest did not answer\n");
        exit(1);
    }
}

static double one_round(const char *image, const char *rom, const char *accelerator)
{
    uint8_t *mem;
    int fds[2], mem_fd = make_memory(image, &mem);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        die("socketpair");
    }
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    uint64_t begin = un_clock_mono_us();
    pid_t pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        exec_qemu(rom, accelerator, mem_fd, fds[1]);
    }
    close(fds[1]);
    wait_done(fds[0], mem);
    uint64_t end = un_clock_mono_us();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(mem_fd);
    munmap(mem, MEM_BYTES);
    return (double)(end - begin) / 1000;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: qemu_direct IMAGE ROUNDS [tcg|kvm]\n");
        return 2;
    }
    char rom[] = "/tmp/unid-bench-rom-XXXXXX";
    int fd = mkstemp(rom);
    if (fd < 0 || write(fd, lv_rom, sizeof lv_rom) != sizeof lv_rom) {
        die(rom);
    }
    close(fd);
    for (int i = 0; i < atoi(argv[2]); i++) {
        printf("%.3f\n", one_round(argv[1], rom, argc > 3 ? argv[3] : "tcg"));
    }
    unlink(rom);
    return 0;
}
