"""HTTP as attackers speak it: smuggling, slow clients, heads without end. The daemon refuses,
closes, and goes on serving everybody else."""

import socket

import pytest

from harness import closed, read_answer, wait_for


def send(daemon, data):
    """Sends bytes on a connection of their own; gives everything that comes back until it is
    closed."""
    with daemon.raw() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
        return got


def statuses(got):
    """Of the final answers: 100 may come before any of them."""
    lines = [line for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return [int(line.split()[1]) for line in lines if not line.startswith(b"HTTP/1.1 100")]


HOST = b"Host: localhost\r\n"
SMUGGLED = b"GET /fn/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head, body",
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
        (b"Content-Length: 5, 6\r\n", b"hello"),
        (b"Content-Length: +5\r\n", b"hello"),
        (b"Content-Length: -5\r\n", b"hello"),
        (b"Content-Length: 0x5\r\n", b"hello"),
        (b"Content-Length: 5 5\r\n", b"hello"),
        (b"Content-Length: \r\n", b""),
        (b"Content-Length: 99999999999999999999\r\n", b"hello"),
        (b"Content-Length : 5\r\n", b"hello"),
        (b"Content-Length:\x0b5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"5;\r\nhello\r\n0\r\n\r\nx"[:4] + b"zz\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0x5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"5\nhello\n0\n\n"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhelloXX0\r\n\r\n"),
        (b" Folded: 1\r\n", b""),
        (b"A: 1\r\n folded\r\n", b""),
        (b"A\0B: 1\r\n", b""),
        (b"A: a\0b\r\n", b""),
        (b"A: a\rb\r\n", b""),
        (b": novalue\r\n", b""),
        (b"NoColon\r\n", b""),
        (b"A B: 1\r\n", b""),
    ],
)
def test_ambiguous_messages_are_refused_and_the_connection_closed(shared, head, body):
    got = send(shared, b"POST /fn/nobody HTTP/1.1\r\n" + HOST + head + b"\r\n" + body + SMUGGLED)
    seen = statuses(got)
    assert len(seen) <= 1 or seen == [404, 400], (seen, got[:300])
    assert not seen or seen[-1] in (400, 413, 501), got[:300]
    assert b"smuggled" not in got
    shared.get("/healthz").ok()


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET /\r\n",
        b"get /healthz HTTP/1.1\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / http/1.1\r\n",
        b"GET /a b HTTP/1.1\r\n",
        b"GET /\x00 HTTP/1.1\r\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n",
        b"GET healthz HTTP/1.1\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\n",
        b"FROB / HTTP/1.1\r\n",
        b"\r\n\r\n\r\nX\r\n",
    ],
)
def test_malformed_request_lines_are_refused(shared, line):
    got = send(shared, line + HOST + b"\r\n")
    assert not statuses(got) or statuses(got)[0] in (400, 404, 405, 414, 501, 505), got[:200]
    assert len(statuses(got)) <= 1
    shared.get("/healthz").ok()


def test_host_must_be_there_once(shared):
    assert statuses(send(shared, b"GET /healthz HTTP/1.1\r\n\r\n")) == [400]
    assert statuses(send(shared, b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")) == [400]


def test_head_without_end_is_cut(shared):
    for head in (
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: 1\r\n" % i for i in range(5000)),
    ):
        got = send(shared, head)
        assert statuses(got) and statuses(got)[0] in (400, 414, 431), got[:200]
    shared.get("/healthz").ok()


def test_too_many_fields_are_431(shared):
    fields = b"".join(b"A%d: 1\r\n" % i for i in range(150))
    assert statuses(send(shared, b"GET /healthz HTTP/1.1\r\n" + HOST + fields + b"\r\n")) == [431]
    fields = b"".join(b"A%d: 1\r\n" % i for i in range(90))
    assert statuses(send(shared, b"GET /healthz HTTP/1.1\r\n" + HOST + fields + b"\r\n")) == [200]


def test_long_chunk_extensions_and_trailers_are_bounded(shared, name):
    shared.deploy(name, "count")
    start = (
        b"POST /fn/%s HTTP/1.1\r\n" % name.encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    )
    got = send(shared, start + b"1;" + b"x" * 1_000_000 + b"\r\na\r\n0\r\n\r\n")
    assert statuses(got) in ([], [400], [413], [431])
    got = send(
        shared,
        start + b"1\r\na\r\n0\r\n" + b"".join(b"T%d: 1\r\n" % i for i in range(100_000)) + b"\r\n",
    )
    assert statuses(got) in ([], [400], [413], [431])
    got = send(shared, start + b"1\r\na\r\n0\r\nContent-Length: 5\r\nHost: evil\r\n\r\n")
    assert statuses(got) in ([200], [400])
    shared.call(name, b"x").ok()


@pytest.fixture
def impatient(make_unid):
    return make_unid(
        flags=[
            "--set",
            "http.head_timeout_ms=1000",
            "--set",
            "http.idle_timeout_ms=1000",
            "--set",
            "http.stall_timeout_ms=1000",
        ]
    ).start()


def test_slow_head_is_cut_though_bytes_keep_coming(impatient):
    with impatient.raw() as sock:
        sock.settimeout(0.05)
        try:
            for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 1000:
                sock.sendall(bytes([byte]))
                try:
                    if not sock.recv(4096):
                        break
                except TimeoutError:
                    pass
            else:
                raise AssertionError("a slow head is read for ever")
        except (BrokenPipeError, ConnectionResetError):
            pass
    impatient.get("/healthz").ok()


def test_idle_connection_is_closed(impatient):
    with impatient.raw() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert read_answer(sock).status == 200
        assert closed(sock)


def test_body_that_stands_still_is_given_up(impatient):
    impatient.deploy("f", "count")
    with impatient.raw() as sock:
        sock.sendall(b"POST /fn/f HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nabc")
        answer = read_answer(sock)
        assert answer is None or answer.status in (400, 408)
        assert closed(sock)
    impatient.call("f", b"abc").ok()


def test_client_that_does_not_read_is_given_up(impatient):
    impatient.deploy("f", "size", "50000000")
    with impatient.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /fn/f HTTP/1.1\r\n" + HOST + b"\r\n")
        wait_for(
            lambda: not [i for i in impatient.instances() if i["state"] in ("running", "bound")]
            and impatient.get("/api/v1/invocations?function=f").json["items"],
            "its VM is gone",
        )


def test_many_idle_connections_do_not_hinder_others(shared):
    sockets = [shared.raw() for _ in range(500)]
    try:
        for sock in sockets[::2]:
            sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        shared.get("/healthz").ok()
    finally:
        for sock in sockets:
            sock.close()


def test_idle_connections_over_the_limit_make_room(make_unid):
    unid = make_unid(flags=["--set", "http.max_connections=16"]).start()
    sockets = [unid.raw() for _ in range(40)]
    try:
        unid.get("/healthz").ok()
        for sock in sockets:
            sock.settimeout(0.05)
        wait_for(lambda: sum(not closed(sock) for sock in sockets) <= 16, "the others are closed")
        unid.get("/healthz").ok()
    finally:
        for sock in sockets:
            sock.close()


def test_endless_pipeline_is_held_back_not_gathered(unid):
    unid.deploy("f", "sleep", "50")
    with unid.raw() as sock:
        request = b"GET /fn/f HTTP/1.1\r\n" + HOST + b"\r\n"
        sock.settimeout(0.5)
        before = unid.resident_kib()
        try:
            for _ in range(200):
                sock.sendall(request * 1000)
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        assert unid.resident_kib() - before < 32 * 1024
    unid.get("/healthz").ok()


def test_random_bytes_never_end_the_daemon(shared):
    import random

    rng = random.Random(20261121)
    request = (
        b"POST /fn/nobody HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    for _ in range(150):
        data = bytearray(request)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            choice = rng.random()
            if choice < 0.5:
                data[at] = rng.randrange(256)
            elif choice < 0.8:
                del data[at : at + rng.randint(1, 8)]
            else:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
        send(shared, bytes(data))
    shared.get("/healthz").ok()
