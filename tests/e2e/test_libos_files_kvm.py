"""Files and sockets of the library OS in real virtual machines: programs do there what they do here."""

import http.server
import random
import subprocess
import threading

import pytest

import harness
from test_interfaces_kvm import BUSYBOX, deploy, pytestmark, real  # noqa: F401

# Makes, changes, lists, maps and removes files below /tmp, waits with poll, and prints what it saw.
FILES = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

static int ends[2];

static void *writer(void *arg)
{
    char block[3000];
    memset(block, 'w', sizeof block);
    for (int i = 0; i < 100; i++) {
        write(ends[1], block, sizeof block); /* more than a pipe holds */
    }
    close(ends[1]);
    return arg;
}

int main(void)
{
    char dir[] = "/tmp/filesXXXXXX", buf[8192] = "", line[4096];
    struct stat st;
    size_t sum = 0;
    ssize_t n;

    while (fgets(line, sizeof line, stdin)) {
        sum += strlen(line);
    }
    printf("input %zu\n", sum);
    if (!mkdtemp(dir) || chdir(dir) < 0) {
        return 1;
    }
    int f = open("a", O_RDWR | O_CREAT | O_EXCL, 0640);
    struct iovec parts[2] = {{"hello ", 6}, {"world\n", 6}};
    printf("writev %zd\n", writev(f, parts, 2));
    printf("again %d %d\n", open("a", O_CREAT | O_EXCL, 0600), errno);
    printf("truncate %d\n", ftruncate(f, 10000));
    char *map = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
    memcpy(map + 9000, "mapped", 6);
    printf("pread %zd %.6s\n", pread(f, buf, 6, 9000), buf);
    pwrite(f, "HELLO", 5, 0);
    printf("map %.11s\n", map);
    mkdir("d", 0755);
    symlink("../a", "d/link");
    link("a", "d/hard");
    stat("d/link", &st);
    printf("stat %o %ld %ld\n", st.st_mode, (long)st.st_size, (long)st.st_nlink);
    rename("d", "e");
    printf("rmdir %d %d\n", rmdir("e"), errno);
    struct dirent **names;
    int count = scandir("e", &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        printf("name %s %d\n", names[i]->d_name, names[i]->d_type);
    }
    pthread_t t;
    pipe(ends);
    pthread_create(&t, NULL, writer, NULL);
    struct pollfd p = {ends[0], POLLIN, 0};
    for (sum = 0; poll(&p, 1, -1) == 1 && (n = read(ends[0], buf, sizeof buf)) > 0; sum += (size_t)n) {
    }
    printf("pipe %zu %d\n", sum, pthread_join(t, NULL));
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec in = {.it_value.tv_nsec = 20000000};
    unsigned long times = 0;
    timerfd_settime(timer, 0, &in, NULL);
    p.fd = timer;
    printf("timer %d", poll(&p, 1, 5000));
    printf(" %zd %lu\n", read(timer, &times, 8), times);
    printf("tty %d %d\n", isatty(1), open("/dev/null/x", O_RDONLY) < 0 ? errno : 0);
    unlink("e/link");
    unlink("e/hard");
    unlink("a");
    rmdir("e");
    chdir("/");
    printf("gone %d\n", rmdir(dir));
    return 0;
}
"""

# Locks that keep open files of one process apart, signals that are read, bytes that are spliced to standard output.
LOCKS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int first, second;
static volatile int turn;

static int record(int fd, int command, int type, int from, int len)
{
    struct flock l = {.l_type = type, .l_start = from, .l_len = len};
    int r = fcntl(fd, command, &l);
    printf("record %d: %d %d, %d from %ld, %ld\n", command, r, r < 0 ? errno : 0, l.l_type, (long)l.l_start,
           (long)l.l_len);
    return r;
}

static void *waiter(void *arg)
{
    int r = flock(second, LOCK_EX);
    printf("has it: %d, given up before: %d\n", r, turn >= 1);
    flock(second, LOCK_UN);
    struct flock l = {.l_type = F_WRLCK, .l_start = 5, .l_len = 1};
    r = fcntl(second, F_OFD_SETLKW, &l);
    printf("has the record: %d, given up before: %d\n", r, turn >= 2);
    return arg;
}

int main(void)
{
    char name[] = "/tmp/locksXXXXXX";
    pthread_t t;
    first = mkstemp(name);
    second = open(name, O_RDWR);
    printf("flock %d\n", flock(first, LOCK_EX));
    printf("flock %d", flock(second, LOCK_SH | LOCK_NB));
    printf(" %d\n", errno == EWOULDBLOCK);
    record(first, F_OFD_SETLK, F_WRLCK, 0, 10);
    record(first, F_OFD_SETLK, F_UNLCK, 8, 1);
    record(second, F_OFD_SETLK, F_RDLCK, 7, 1);
    record(second, F_OFD_SETLK, F_RDLCK, 8, 1);
    record(second, F_OFD_GETLK, F_WRLCK, 1, 100);
    pthread_create(&t, NULL, waiter, NULL);
    usleep(20000);
    turn = 1;
    flock(first, LOCK_UN);
    usleep(20000);
    turn = 2;
    close(first);
    pthread_join(t, NULL);

    sigset_t set;
    struct signalfd_siginfo info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct pollfd p = {fd, POLLIN, 0};
    printf("signals %d %zd\n", poll(&p, 1, 0), read(fd, &info, sizeof info));
    raise(SIGUSR1);
    kill(getpid(), SIGCHLD);
    printf("signals %d", poll(&p, 1, -1));
    for (int i = 0; i < 2; i++) {
        printf(" %zd", read(fd, &info, sizeof info));
        printf(" %u %d", info.ssi_signo, info.ssi_pid == getpid());
    }
    printf("\n");

    int ends[2];
    off_t from = 2;
    pipe(ends);
    write(second, "0123456789", 10);
    printf("splice %zd\n", splice(second, &from, ends[1], NULL, 100, 0));
    fflush(stdout);
    do {
        splice(ends[0], NULL, 1, NULL, 4000, 0);
    } while (splice(0, NULL, ends[1], NULL, 1000, 0) > 0);
    unlink(name);
    return 0;
}
"""

# A server as event loops are: nothing blocks but epoll_wait, edges only, a file sent by sendfile.
LOOP = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

static char in[1 << 20];

int main(void)
{
    int l = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    int e = epoll_create1(EPOLL_CLOEXEC), wake = eventfd(0, EFD_NONBLOCK), c = -1;
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(getenv("PORT")))};
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = l}, got[8];
    size_t len = 0;

    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l, (void *)&at, sizeof at) < 0 || listen(l, 128) < 0) {
        return 1;
    }
    epoll_ctl(e, EPOLL_CTL_ADD, l, &ev);
    ev.data.fd = wake;
    epoll_ctl(e, EPOLL_CTL_ADD, wake, &ev);
    for (;;) {
        int n = epoll_wait(e, got, 8, 1000);
        for (int i = 0; i < n; i++) {
            if (got[i].data.fd == l) {
                while ((c = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    ev = (struct epoll_event){EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = c}};
                    epoll_ctl(e, EPOLL_CTL_ADD, c, &ev);
                }
                continue;
            }
            ssize_t r;
            while ((r = read(got[i].data.fd, in + len, sizeof in - 1 - len)) > 0) {
                len += (size_t)r;
            }
            if (r == 0 || errno != EAGAIN) {
                return 2;
            }
            c = got[i].data.fd;
        }
        char *body = strstr(in, "\r\n\r\n"), *cl = strcasestr(in, "content-length:");
        int chunked = strcasestr(in, "chunked") != NULL;
        if (!body || (cl && len - (size_t)(body + 4 - in) < strtoul(cl + 15, NULL, 10)) ||
            (chunked && memcmp(in + len - 5, "0\r\n\r\n", 5))) {
            continue;
        }
        int f = open("/tmp/answer", O_RDWR | O_CREAT, 0600);
        off_t from = 0;
        size_t size = len - (size_t)(body + 4 - in);
        write(f, body + 4, size);
        dprintf(c, "HTTP/1.1 200 OK\r\nX-Chunked: %d\r\nContent-Length: %zu\r\n\r\n", chunked, size);
        sendfile(c, f, &from, size);
        close(c);
    }
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    where = tmp_path_factory.mktemp("programs")
    made = {}
    for name, source in (("files", FILES), ("locks", LOCKS), ("loop", LOOP)):
        (where / f"{name}.c").write_text(source)
        made[name] = where / name
        subprocess.run(
            ["gcc", "-O1", "-w", "-static", "-o", made[name], where / f"{name}.c"],
            check=True,
            timeout=60,
        )
    return made


@pytest.mark.parametrize("program", ["files", "locks"])
def test_a_program_sees_the_files_that_it_sees_on_the_host(real, compiled, name, program):  # noqa: F811
    data = b"one line\n" * 5000
    here = subprocess.run([compiled[program]], input=data, capture_output=True, timeout=20, check=True)
    deploy(real, name, compiled[program])
    for _ in range(2):
        answer = real.call(name, data).ok()
        assert answer.body.decode() == here.stdout.decode()
    assert real.receipt(answer.headers["X-Unid-Invocation-Id"])["unsupported"] == []


def test_an_event_loop_gets_its_request_and_sends_a_file(real, compiled, name):  # noqa: F811
    data = random.Random(3).randbytes(300000)
    deploy(real, name, compiled["loop"], options=["-i", "http"])
    for _ in range(3):
        answer = real.call(name, data).ok()
        assert (answer.headers["X-Chunked"], answer.body) == ("0", data)
    connection = real.connection()
    pieces = [b"first ", b"second " * 1000, b"third"]
    connection.request("POST", f"/fn/{name}", iter(pieces), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    framed = response.read()
    connection.close()
    assert (response.status, response.headers["X-Chunked"]) == (200, "1")
    body, rest = b"", framed
    while True:  # RFC 9112, section 7.1
        size, rest = rest.split(b"\r\n", 1)
        size = int(size, 16)
        body, rest = body + rest[:size], rest[size:]
        assert rest[:2] == b"\r\n"
        rest = rest[2:]
        if size == 0:
            break
    assert (body, rest) == (b"".join(pieces), b"")


def test_an_allowed_name_is_resolved_and_fetched_from(real, name):  # noqa: F811
    if not BUSYBOX.exists():
        pytest.skip("there is no busybox")
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"inside")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as outside:
        port = outside.server_address[1]
        threading.Thread(target=outside.serve_forever, daemon=True).start()
        allow = ["--egress", f"localhost:{port}"]
        url = f"http://localhost:{port}/"
        deploy(real, name, BUSYBOX, "wget", "-q", "-O-", url, options=allow)
        assert real.call(name).ok().body == b"inside"
        assert seen == [f"localhost:{port}"]
        deploy(real, f"{name}no", BUSYBOX, "wget", "-q", "-O-", "http://other.example/", options=allow)
        problem = real.call(f"{name}no").problem(502)
        assert "bad address" in problem["log_tail"]
        outside.shutdown()
