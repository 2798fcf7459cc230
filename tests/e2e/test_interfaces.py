"""Programs that speak cgi and http, and what may leave a VM: over HTTP, with the fake driver."""

import contextlib
import http.client
import socket
import threading

import pytest

import harness
from harness import read_answer, wait_for

ANSWER = "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"


@contextlib.contextmanager
def server(serve):
    """A TCP server on loopback: `serve(connection)` for each connection, in a thread. Gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(harness.ANSWER_S)
                serve(connection)
            ends.append(1)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def echo(connection):
    """Everything that comes, back in upper case, once it is whole."""
    text = b""
    while piece := connection.recv(65536):
        text += piece
    connection.sendall(text.upper())


def variables(answer):
    head, _, body = answer.body.decode().partition("\n\n")
    return dict(line.split("=", 1) for line in head.splitlines()), body


def log_text(daemon, name):
    items = daemon.get(f"/api/v1/functions/{name}/logs").ok().json["items"]
    return "\n".join(item["text"] for item in items)


# --- cgi ------------------------------------------------------------------------------------------


def test_cgi_program_is_told_its_request(shared, name):
    shared.deploy(name, "cgi", interface="cgi", env={"MINE": "v"})
    answer = shared.post(
        f"/fn/{name}/a%20b?x=1",
        b"the body",
        headers={"Content-Type": "a/b", "X-Mine": "1", "Proxy": "evil"},
    ).ok()
    seen, body = variables(answer)
    assert body == "the body"
    assert answer.headers["Content-Type"] == "text/plain"
    assert seen["SCRIPT_NAME"] == f"/fn/{name}"
    assert seen["PATH_INFO"] == "/a b"
    assert seen["QUERY_STRING"] == "x=1"
    assert seen["REQUEST_URI"] == f"/fn/{name}/a%20b?x=1"
    assert seen["REQUEST_METHOD"] == "POST"
    assert seen["CONTENT_LENGTH"] == "8"
    assert seen["CONTENT_TYPE"] == "a/b"
    assert seen["SERVER_PORT"] == str(shared.port)
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert seen["HTTP_X_MINE"] == "1"
    assert seen["MINE"] == "v"
    assert seen["UNID_INVOCATION_ID"] == answer.headers["X-Unid-Invocation-Id"]
    assert "HTTP_PROXY" not in seen


def test_cgi_path_of_the_bare_name_and_of_a_version(shared, name):
    shared.deploy(name, "cgi", interface="cgi")
    seen, _ = variables(shared.get(f"/fn/{name}:1?q").ok())
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == (
        f"/fn/{name}:1",
        "",
        "q",
    )
    seen, _ = variables(shared.get(f"/fn/{name}/", unix=True).ok())
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == (f"/fn/{name}", "/")


def test_cgi_status_fields_and_redirects(shared, name):
    shared.deploy(name, "say", "Status: 418 Tea\\nSet-Cookie: a\\nSet-Cookie: b\\n\\npot", interface="cgi")
    answer = shared.get(f"/fn/{name}")
    assert (answer.status, answer.body) == (418, b"pot")
    assert answer.headers.get_all("Set-Cookie") == ["a", "b"]
    shared.deploy(f"{name}r", "say", "Location: /fn/other\\n\\n", interface="cgi")
    answer = shared.get(f"/fn/{name}r")
    assert (answer.status, answer.headers["Location"]) == (302, "/fn/other")


def test_cgi_body_in_chunks_gets_its_length(shared, name):
    shared.deploy(name, "cgi", interface="cgi")
    chunked = {"Transfer-Encoding": "chunked"}
    seen, body = variables(shared.call(name, iter([b"abc", b"def"]), headers=chunked).ok())
    assert (seen["CONTENT_LENGTH"], body) == ("6", "abcdef")
    answer = shared.call(name, iter([b"x" * 65536] * 16), headers=chunked)
    assert "Content-Length" in answer.problem(411)["detail"]
    assert shared.receipt(answer.headers["X-Unid-Invocation-Id"])["outcome"] == "length-required"
    path = f"/api/v1/functions/{name}/invocations"
    shared.post(path, iter([b"x" * 65536] * 16), headers=chunked).problem(411)


@pytest.mark.parametrize(
    "output, why",
    [
        (["hello\\n\\n"], "no \"Name: value\""),
        (["HTTP/1.1 200 OK\\n\\n"], "Status: 200"),
        (["X-A: b\\n\\n"], "none of Content-Type"),
        (["Content-Type: a/b\\n"], "within the CGI header"),
    ],
)
def test_broken_cgi_answer_is_502_with_the_reason(shared, name, output, why):
    shared.deploy(name, "say", *output, interface="cgi")
    problem = shared.get(f"/fn/{name}").problem(502)
    assert why in problem["detail"]
    assert problem["exit"]["kind"] == "protocol"
    assert why in problem["exit"]["detail"]


def test_filter_that_fails_before_output_is_502_with_its_log(shared, name):
    shared.deploy(name, "exit", "3", "no such luck", interface="filter")
    problem = shared.call(name, b"x").problem(502)
    assert problem["exit"]["status"] == 3
    assert "no such luck" in problem["log_tail"]


# --- http -----------------------------------------------------------------------------------------


def test_server_is_asked_as_by_a_proxy_and_ended_behind_its_answer(shared, name):
    shared.deploy(name, "http", interface="http")
    body = b"b" * 300000
    answer = shared.post(f"/fn/{name}/p?q", body, headers={"X-Mine": "1"}).ok()
    head, _, rest = answer.body.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert rest == body
    assert lines[0] == "POST /p?q HTTP/1.1"
    assert f"Host: 127.0.0.1:{shared.port}" in lines
    assert "X-Forwarded-For: 127.0.0.1" in lines
    assert f"X-Forwarded-Prefix: /fn/{name}" in lines
    assert "Content-Length: 300000" in lines
    assert "Connection: close" in lines
    assert answer.headers["Keep-Alive"] is None
    assert answer.headers["X-Trailer"] is None
    receipt = shared.receipt(answer.headers["X-Unid-Invocation-Id"])
    assert (receipt["outcome"], receipt["exit_reason"]) == ("ok", "done")
    wait_for(lambda: not [i for i in shared.instances() if i["function"] == name], "the VM is gone")


def test_body_in_chunks_is_announced_as_such(shared, name):
    shared.deploy(name, "http", interface="http")
    chunked = {"Transfer-Encoding": "chunked"}
    answer = shared.call(name, iter([b"abc", b"def"]), headers=chunked).ok()
    head, _, body = answer.body.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"abcdef"


def test_answers_of_servers_that_keep_their_connection(shared, name):
    shared.deploy(name, "serve", ANSWER, interface="http")
    connection = shared.connection()
    for _ in range(3):
        connection.request("GET", f"/fn/{name}")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"hello")
        assert response.headers["Content-Length"] == "5"
    connection.close()


def test_answer_that_ends_with_the_connection(shared, name):
    shared.deploy(name, "say-exit", "0", "HTTP/1.0 200 OK\\r\\n\\r\\n", "all", "of it", interface="http")
    assert shared.get(f"/fn/{name}").ok().body == b"allof it"


def test_head_204_and_304_have_no_body(shared, name):
    shared.deploy(name, "serve", "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\n", interface="http")
    answer = shared.request("HEAD", f"/fn/{name}").ok()
    assert (answer.headers["Content-Length"], answer.body) == ("5", b"")
    for status in (204, 304):
        shared.deploy(
            f"{name}s{status}", "serve", f"HTTP/1.1 {status} X\\r\\nETag: \"e\"\\r\\n\\r\\n", interface="http"
        )
        answer = shared.get(f"/fn/{name}s{status}")
        assert (answer.status, answer.body, answer.headers["ETag"]) == (status, b"", '"e"')
        assert answer.headers["Content-Length"] is None


@pytest.mark.parametrize(
    "output",
    [
        "SSH-2.0-x\\r\\n",
        "HTTP/1.1 101 Switching\\r\\n\\r\\n",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\nContent-Length: 2\\r\\n\\r\\nxx",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
    ],
)
def test_broken_http_answer_is_502(shared, name, output):
    shared.deploy(name, "serve", output, interface="http")
    problem = shared.get(f"/fn/{name}").problem(502)
    assert "interface http" in problem["detail"]


def test_answer_cut_short_cuts_the_connection(shared, name):
    shared.deploy(
        name, "say-exit", "0", "HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\npart", interface="http"
    )
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        shared.get(f"/fn/{name}")


def test_large_answer_waits_for_a_slow_client(shared, name):
    size = 64 << 20
    shared.deploy(
        name, "serve-size", str(size), f"HTTP/1.1 200 OK\\r\\nContent-Length: {size}\\r\\n\\r\\n",
        interface="http",
    )
    before = shared.resident_kib("VmRSS")
    sock = shared.raw()
    sock.sendall(f"GET /fn/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    wait_for(
        lambda: [i for i in shared.instances() if i["function"] == name and i["state"] == "running"],
        "it runs",
    )
    # Nothing is read for as long as the daemon still moves bytes into the kernel's buffers.
    assert shared.resident_kib("VmRSS") - before < size >> 11
    answer = read_answer(sock)
    sock.close()
    assert len(answer.body) == size
    assert answer.body[:16] == b"0123456789abcdef"


# --- what goes out --------------------------------------------------------------------------------


def test_allowed_connection_carries_bytes_both_ways_and_is_counted(shared, name):
    with server(echo) as port:
        shared.deploy(name, "net", f"localhost:{port}", "ping", egress=[f"localhost:{port}"])
        answer = shared.get(f"/fn/{name}").ok()
    assert answer.body == b"PING"
    receipt = shared.receipt(answer.headers["X-Unid-Invocation-Id"])
    assert receipt["egress"] == {"connections": 1, "refused": 0, "bytes_in": 4, "bytes_out": 4}
    shown = shared.unictl("receipt", receipt["id"]).ok().text
    assert "1 connections, 0 refused, 4B in, 4B out" in shown
    assert shared.get(f"/api/v1/functions/{name}").ok().json["egress"] == [f"localhost:{port}"]
    assert f"localhost:{port}" in shared.unictl("describe", name).ok().text


def test_unictl_deploys_with_egress(shared, name, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(harness.sdk_image())
    with server(echo) as port:
        shared.unictl(
            "deploy", name, image, "--egress", f"127.0.0.1:{port}", "--egress", "*.example.test:*",
            "--", "net", f"127.0.0.1:{port}", "hi",
        ).ok()
        assert shared.get(f"/fn/{name}").ok().body == b"HI"
    refused = shared.unictl("deploy", name, image, "--egress", "nowhere")
    assert refused.status == 2
    assert "HOST:PORT" in refused.err
    refused = shared.unictl("deploy", name, image, "--egress", "*:80")
    assert refused.status == 1
    assert "egress[0]" in refused.err


@pytest.mark.parametrize("egress", [[], ["example.test:*"], ["localhost:1"], ["*.localhost:*"]])
def test_what_is_not_allowed_is_refused_and_logged(shared, name, egress):
    reached = []
    with server(lambda connection: reached.append(1)) as port:
        shared.deploy(name, "net", f"localhost:{port}", "x", egress=egress)
        assert "error 13" in shared.get(f"/fn/{name}").problem(502)["log_tail"]
        log = wait_for(lambda: log_text(shared, name), "the log is there")
        receipts = wait_for(
            lambda: shared.get(f"/api/v1/invocations?function={name}").json["items"], "the receipt"
        )
    assert not reached
    assert f"connection to localhost:{port} refused" in log
    assert f"deploy {name} again with --egress localhost:{port}" in log
    assert receipts[0]["egress"]["refused"] == 1
    assert receipts[0]["egress"]["connections"] == 0


@pytest.mark.parametrize("host, error", [("127.0.0.1", 111), ("nobody.invalid", 113)])
def test_hosts_that_do_not_answer_are_errors_of_the_program(shared, name, host, error):
    port = harness.free_port()
    shared.deploy(name, "net", f"{host}:{port}", "x", egress=[f"{host}:{port}"])
    tail = shared.get(f"/fn/{name}").problem(502)["log_tail"].splitlines()
    assert tail[0].startswith(f"unid: connect to {host}, port ") and tail[1] == f"error {error}"
    receipt = wait_for(
        lambda: shared.get(f"/api/v1/invocations?function={name}").json["items"], "the receipt"
    )[0]
    assert receipt["egress"] == {"connections": 0, "refused": 0, "bytes_in": 0, "bytes_out": 0}


def test_connections_end_with_the_invocation(shared, name):
    opened, closed = threading.Event(), threading.Event()

    def hold(connection):
        opened.set()
        while connection.recv(65536):
            pass
        closed.set()

    with server(hold) as port:
        shared.deploy(name, "net-hold", f"127.0.0.1:{port}", egress=[f"127.0.0.1:{port}"], timeout_ms=600000)
        with shared.raw() as sock:
            sock.sendall(f"GET /fn/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert opened.wait(harness.ANSWER_S) and not closed.is_set()
            [mine] = [i for i in shared.instances() if i["function"] == name]
            shared.delete(f"/api/v1/instances/{mine['id']}").ok(204)
            read_answer(sock).problem(502)
        assert closed.wait(harness.ANSWER_S)


# --- system calls that are not there --------------------------------------------------------------


def test_missing_system_calls_are_named(shared, name):
    shared.deploy(name, "unsupported", "57", "2", "101", "1")
    answer = shared.get(f"/fn/{name}").ok()
    receipt = shared.receipt(answer.headers["X-Unid-Invocation-Id"])
    assert receipt["calls"] == 3
    assert receipt["unsupported"] == [{"name": "fork", "times": 2}, {"name": "ptrace", "times": 1}]
    assert "fork (2), ptrace (1)" in shared.unictl("receipt", receipt["id"]).ok().text
    assert receipt["calls_made"] is None  # nobody asked for the list
    # As a cgi program, "ok" is no answer.
    shared.deploy(f"{name}c", "unsupported", "57", "2", interface="cgi")
    problem = shared.get(f"/fn/{name}c").problem(502)
    assert problem["detail"].endswith("; unsupported system call: fork")
    assert problem["unsupported"] == [{"name": "fork", "times": 2}]


def test_receipts_list_the_calls_that_were_made(shared, name):
    assert shared.deploy(name, "unsupported", "57", "2", "101", "1", list_calls=True)["list_calls"] is True
    made = [{"name": "fork", "times": 2}, {"name": "ptrace", "times": 1}]
    ids = []
    for _ in range(150):  # more than are written at once: from memory, and from the database
        ids.append(shared.get(f"/fn/{name}").ok().headers["X-Unid-Invocation-Id"])
    for one in (ids[0], ids[-1]):
        assert shared.receipt(one)["calls_made"] == made
    assert "Made:        fork 2, ptrace 1" in shared.unictl("receipt", ids[0]).ok().text
    digest = shared.get(f"/api/v1/functions/{name}").ok().json["image"]
    done = shared.unictl("deploy", name, digest, "--list-calls", "--json", "--", "unsupported", "57", "1")
    assert done.ok().json["list_calls"] is True


def test_a_refused_deploy_names_missing_calls(shared, name):
    config = {"image": shared.push(), "args": ["stillborn", "cannot fork", "57"]}
    problem = shared.put(f"/api/v1/functions/{name}", config).problem(422)
    assert problem["detail"].endswith("; unsupported system call: fork")
    assert problem["unsupported"] == problem["calls_made"] == [{"name": "fork", "times": 1}]


def test_interface_lambda_is_refused(shared, name):
    digest = shared.push()
    problem = shared.put(f"/api/v1/functions/{name}", {"image": digest, "interface": "lambda"}).problem(422)
    assert "lambda is not served" in problem["detail"]
