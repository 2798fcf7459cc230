"""Unmodified Linux programs behind each interface, in real virtual machines through the kvm driver:
Debian's busybox, and small C programs compiled here."""

import gzip
import os
import pathlib
import random
import shutil
import subprocess
import time

import pytest

import harness
from test_interfaces import echo, log_text, server

BUSYBOX = pathlib.Path("/bin/busybox")

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(
        not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"
    ),
    pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc"),
]

# A server that keeps its connections: says how many requests it has seen, and the request.
SERVER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buf[1 << 16];

static void answer(int c, int seen)
{
    size_t n = 0;
    ssize_t got;

    while (!strstr(buf, "\r\n\r\n") && (got = read(c, buf + n, sizeof buf - 1 - n)) > 0) {
        n += (size_t)got;
        buf[n] = 0;
    }
    if (strncmp(buf, "GET /big ", 9) == 0) {
        dprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 16 << 20);
        memset(buf, 'b', sizeof buf);
        for (int i = 0; i < (16 << 20) / (int)sizeof buf; i++) {
            if (write(c, buf, sizeof buf) != sizeof buf) {
                exit(1);
            }
        }
        return;
    }
    dprintf(c, "HTTP/1.1 200 OK\r\nX-Seen: %d\r\nContent-Length: %zu\r\n\r\n%s", seen, n, buf);
}

int main(void)
{
    int l = socket(AF_INET, SOCK_STREAM, 0), seen = 0, c;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};

    if (bind(l, (void *)&at, sizeof at) < 0 || listen(l, 8) < 0) {
        return 1;
    }
    while ((c = accept(l, NULL, NULL)) >= 0) {
        answer(c, ++seen);
    }
    return 1;
}
"""

# A server that waits for edges, as nginx does: having read less than it asked for it reads again only when
# it was told of more. Answers the body's length.
EDGES = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static char buf[1 << 16];

int main(void)
{
    int l = socket(AF_INET, SOCK_STREAM, 0), e = epoll_create1(0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
    size_t n = 0, want = 1;
    char *body = NULL;

    if (bind(l, (void *)&at, sizeof at) < 0 || listen(l, 8) < 0) {
        return 1;
    }
    int c = accept(l, NULL, NULL);
    epoll_ctl(e, EPOLL_CTL_ADD, c, &ev);
    while (!body || n < want) {
        if (epoll_wait(e, &ev, 1, 5000) != 1) {
            break;
        }
        ssize_t got = read(c, buf + n, sizeof buf - 1 - n);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
        body = strstr(buf, "\r\n\r\n");
        if (body) {
            want = (size_t)(body + 4 - buf) + (size_t)atoi(strstr(buf, "Content-Length: ") + 16);
        }
    }
    n -= body ? (size_t)(body + 4 - buf) : n;
    dprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n%5zu\n", n);
    return 0;
}
"""

# A server that has something in vector registers while it waits for its connection, and says whether it is still
# there: system calls keep them.
VECTORS = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static char buf[1 << 16];
static unsigned char is[32], was[32];

/* accept(2) with `was` in ymm9, which is then `is`. */
static int accept_with_vector(int listener)
{
    long rc;

    __asm__ volatile("vmovups %4, %%ymm9\n\tsyscall\n\tvmovups %%ymm9, %1\n\tvzeroupper"
                     : "=a"(rc), "=m"(is)
                     : "0"(SYS_accept), "D"(listener), "m"(was), "S"(0), "d"(0)
                     : "rcx", "r11", "memory", "xmm9");
    return (int)rc;
}

int main(void)
{
    int l = socket(AF_INET, SOCK_STREAM, 0), avx = __builtin_cpu_supports("avx"), c;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    size_t n = 0;
    ssize_t got;

    if (bind(l, (void *)&at, sizeof at) < 0 || listen(l, 8) < 0) {
        return 1;
    }
    for (int i = 0; i < 32; i++) {
        was[i] = (unsigned char)(i * 7 + 1);
    }
    c = avx ? accept_with_vector(l) : accept(l, NULL, NULL);
    while (!strstr(buf, "\r\n\r\n") && (got = read(c, buf + n, sizeof buf - 1 - n)) > 0) {
        n += (size_t)got;
    }
    dprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s\n",
            !avx ? "none" : memcmp(is, was, sizeof is) ? "lost" : "kept");
    return 0;
}
"""

# Reads its input, sends it to 127.0.0.1:argv[1], and says what comes back.
CLIENT = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char all[1 << 22];

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    size_t len = 0;
    ssize_t n;
    int s;

    while ((n = read(0, all + len, sizeof all - len)) > 0) {
        len += (size_t)n;
    }
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (void *)&to, sizeof to) < 0) {
        printf("connect: %s\n", strerror(errno));
        return 0;
    }
    for (size_t at = 0; at < len; at += (size_t)n) {
        n = write(s, all + at, len - at);
        if (n < 0) {
            return 2;
        }
    }
    shutdown(s, SHUT_WR);
    while ((n = read(s, all, sizeof all)) > 0) {
        if (write(1, all, (size_t)n) != n) {
            return 3;
        }
    }
    return n < 0 ? 4 : 0;
}
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with harness.Daemon(
        tmp_path_factory.mktemp("unid"), driver="kvm", flags=["--set", "pool.min=2"]
    ) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Static programs by name."""
    made = {}
    where = tmp_path_factory.mktemp("programs")
    for name, source in (
        ("server", SERVER),
        ("edges", EDGES),
        ("vectors", VECTORS),
        ("client", CLIENT),
    ):
        (where / f"{name}.c").write_text(source)
        made[name] = where / name
        subprocess.run(
            ["gcc", "-O1", "-static", "-o", made[name], where / f"{name}.c"], check=True, timeout=harness.ANSWER_S
        )
    return made


def deploy(daemon, name, program, *args, options=()):
    daemon.unictl("deploy", name, program, *options, "--", *args).ok()


def busybox(daemon, name, *args, options=()):
    if not BUSYBOX.exists():
        pytest.skip("there is no busybox")
    deploy(daemon, name, BUSYBOX, *args, options=options)


def test_filter_is_the_program_as_on_the_host(real, name):
    busybox(real, name, "gzip", "-c")
    data = random.Random(1).randbytes(300000) + bytes(1 << 20)
    answer = real.call(name, data).ok()
    assert gzip.decompress(answer.body) == data
    receipt = real.receipt(answer.headers["X-Unid-Invocation-Id"])
    assert receipt["calls"] > 0
    assert receipt["unsupported"] == []


def test_filter_that_fails_is_502_with_its_status_and_words(real, name):
    busybox(real, name, "sh", "-c", "read a; echo no $a >&2; exit 3")
    problem = real.call(name, b"luck\n").problem(502)
    assert problem["exit"]["status"] == 3
    assert problem["log_tail"] == "no luck\n"


def test_missing_system_call_is_in_the_502(real, name):
    busybox(real, name, "sh", "-c", "read a; b=$(echo $a); exit 1")
    problem = real.call(name, b"x\n").problem(502)
    assert [call["name"] for call in problem["unsupported"]] in (["clone"], ["fork"], ["vfork"])
    assert "unsupported system call: " in problem["detail"]


def test_cgi_program_gets_its_request(real, name):
    script = 'echo "Status: 201 Made"; echo; echo "$PATH_INFO $QUERY_STRING $CONTENT_LENGTH $MINE"; read a; echo $a'
    busybox(real, name, "sh", "-c", script, options=["-i", "cgi", "--env", "MINE=v"])
    for _ in range(2):
        answer = real.post(f"/fn/{name}/p?q=1", b"body\n")
        assert (answer.status, answer.body) == (201, b"/p q=1 5 v\nbody\n")


def test_each_request_is_the_first_of_a_started_server(real, compiled, name):
    deploy(real, name, compiled["server"], options=["-i", "http"])
    connection = real.connection()
    for _ in range(5):
        connection.request("GET", f"/fn/{name}/x?y", headers={"X-Mine": "1"})
        response = connection.getresponse()
        body = response.read()
        assert (response.status, response.headers["X-Seen"]) == (200, "1")
        assert body.startswith(b"GET /x?y HTTP/1.1\r\n")
        assert b"\r\nX-Mine: 1\r\n" in body
    connection.close()
    answer = real.get(f"/fn/{name}/big").ok()
    assert answer.body == b"b" * (16 << 20)


def test_vector_registers_are_those_of_the_snapshot(real, compiled, name):
    deploy(real, name, compiled["vectors"], options=["-i", "http"])
    answers = [real.get(f"/fn/{name}").ok().body for _ in range(3)]
    if answers[0] == b"none\n":
        pytest.skip("the guest's CPU has no AVX")
    assert answers == [b"kept\n"] * 3


def test_body_that_comes_late_is_told_of(real, compiled, name):
    deploy(real, name, compiled["edges"], options=["-i", "http"])
    for pieces in ([b"and bread"], [b"and", b" ", b"bread"]):
        with real.raw() as s:
            head = f"POST /fn/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"
            s.sendall(head.encode())
            for piece in pieces:
                time.sleep(0.05)
                s.sendall(piece)
            answer = b"".join(iter(lambda: s.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"    9\n"), answer


def test_allowed_connections_are_made_and_others_are_not(real, compiled, name):
    data = random.Random(2).randbytes(1 << 20)
    with server(echo) as port:
        deploy(real, name, compiled["client"], port, options=["--egress", f"localhost:{port}"])
        answer = real.call(name, data).ok()
        assert answer.body == data.upper()
        receipt = real.receipt(answer.headers["X-Unid-Invocation-Id"])
        assert receipt["egress"] == {
            "connections": 1,
            "refused": 0,
            "bytes_in": len(data),
            "bytes_out": len(data),
        }
        deploy(real, f"{name}no", compiled["client"], port)
        assert real.call(f"{name}no", b"x").ok().body.startswith(b"connect: ")
    log = harness.wait_for(lambda: log_text(real, f"{name}no"), "the log is there")
    assert f"--egress 127.0.0.1:{port}" in log


def test_program_of_the_sdk_says_that_it_is_one(real, name):
    if not (harness.EXAMPLES / "hello").exists():
        pytest.skip(f"there are no examples in {harness.EXAMPLES}")
    for interface in ("cgi", "http"):
        refused = real.unictl("deploy", name, harness.EXAMPLES / "hello", "-i", interface)
        assert refused.status == 1
        assert "deploy it with --interface sdk" in refused.err
    real.unictl("deploy", name, harness.EXAMPLES / "hello", "-i", "filter").ok()
    real.get(f"/fn/{name}").ok()
