"""unictl against a server that follows a script: what a real daemon does only when it is ill, and
what must be on the wire. No daemon takes part."""

import hashlib
import json
import socket
import subprocess
import threading
import time

import pytest

import harness

pytestmark = pytest.mark.usefixtures("needs_no_daemon")


class Stub:
    """Answers each request with the next of `answers`: bytes, or a function of (connection, head,
    body)."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.answers, self.requests = [], []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(harness.ANSWER_S)
                head = self.read_head(connection)
                if not head:
                    continue
                answer = self.answers.pop(0)
                if callable(answer):
                    answer(self, connection, head)
                else:
                    self.requests.append((head, self.read_body(connection, head)))
                    connection.sendall(answer)

    @staticmethod
    def read_head(connection):
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            if not byte:
                return ""
            data += byte
        return data.decode()

    @staticmethod
    def read_body(connection, head):
        fields = {
            k.lower(): v for k, v in (l.split(": ", 1) for l in head.split("\r\n")[1:] if ": " in l)
        }
        if fields.get("expect"):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        file = connection.makefile("rb")
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(file.readline(), 16):
                body += file.read(size)
                file.readline()
            file.readline()
            return body
        return file.read(int(fields.get("content-length", 0)))

    def run(self, *words, **more):
        return harness.unictl("--host", self.host, *words, **more)


@pytest.fixture
def stub():
    s = Stub()
    yield s
    s.listener.close()
    assert not s.answers, "unictl asked less often than expected"


def answer(status, body=b"", kind="application/json", *fields):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join(lines + ["", ""]).encode() + body


def problem(status, **more):
    return answer(
        status,
        {"type": "about:blank", "title": "No", "status": status, **more},
        "application/problem+json",
    )


FUNCTION = {
    "name": "f",
    "version": 3,
    "url": "/fn/f",
    "image": "sha256:" + "a" * 64,
    "kind": "sdk",
    "image_size": 1840,
    "interface": "filter",
    "driver": "auto",
    "isolation": "vm",
    "snapshot": "ready",
    "memory_mib": 64,
    "timeout_ms": 30000,
    "concurrency": 4,
    "args": ["x"],
    "env": {"K": "V"},
    "created_at": "2020-01-01T00:00:00.000000Z",
}


@pytest.mark.parametrize(
    "status, code",
    [
        (400, 1),
        (401, 1),
        (404, 1),
        (409, 1),
        (413, 1),
        (429, 1),
        (500, 1),
        (502, 4),
        (503, 1),
        (504, 5),
        (507, 1),
    ],
)
def test_statuses_become_exit_statuses(stub, status, code):
    stub.answers = [problem(status, detail="because")]
    done = stub.run("invoke", "f")
    assert done.status == code
    assert done.out == b""
    assert done.err.startswith("unictl: No: because")


def test_problem_is_also_the_json_document(stub):
    stub.answers = [problem(404, detail="nothing here")]
    done = stub.run("ls", "--json")
    assert (done.status, done.json["detail"]) == (1, "nothing here")


def test_fault_and_log_tail_are_shown_without_control_characters(stub):
    stub.answers = [
        problem(
            502,
            detail="page fault",
            log_tail="one\n\x1b[31mtwo",
            invocation_id="I" * 26,
            exit={
                "kind": "fault",
                "status": 0,
                "fault": {
                    "vector": 14,
                    "name": "page fault",
                    "error_code": 4,
                    "rip": "0x200134",
                    "address": "0x10",
                },
            },
        )
    ]
    done = stub.run("invoke", "f")
    assert done.status == 4
    assert "page fault at rip 0x200134, address 0x10" in done.err
    assert "one\n?[31mtwo\n" in done.err
    assert "unictl receipt " + "I" * 26 in done.err


def test_retry_after_is_shown(stub):
    stub.answers = [
        answer(
            429,
            {"type": "x", "title": "Busy", "status": 429},
            "application/problem+json",
            "Retry-After: 7",
        )
    ]
    assert "try again in 7 s" in stub.run("invoke", "f").err


def test_answer_that_breaks_off_is_the_functions_failure(stub):
    stub.answers = [
        b"HTTP/1.1 200 OK\r\nX-Unid-Invocation-Id: ABC\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n"
    ]
    done = stub.run("invoke", "f")
    assert (done.status, done.out) == (4, b"hello")
    assert "unictl receipt ABC" in done.err


def test_no_answer_at_all_is_no_daemon(stub):
    stub.answers = [b""]
    assert stub.run("ls").status == 3


def test_something_else_than_unid_is_said_so(stub):
    stub.answers = [answer(200, b"<html>", "text/html")]
    done = stub.run("ls")
    assert done.status == 1
    assert "is that unid?" in done.err


def test_functions_own_5xx_is_its_failure_and_4xx_is_an_answer(stub):
    stub.answers = [answer(500, b"broken", "text/plain"), answer(404, b"no page", "text/plain")]
    done = stub.run("invoke", "f")
    assert (done.status, done.out) == (4, b"broken")
    done = stub.run("invoke", "f")
    assert (done.status, done.out) == (0, b"no page")


def test_invoke_sends_what_it_was_given(stub):
    stub.answers = [answer(200, b"done", "text/plain")] * 3
    stub.run(
        "invoke", "f:2", "--data", "text", "--header", "X-A: 1", "--header", "content-type: a/b"
    ).ok()
    head, body = stub.requests[-1]
    assert head.startswith(
        "POST /api/v1/functions/f/invocations?mode=sync&qualifier=2 HTTP/1.1\r\n"
    )
    assert "X-A: 1\r\n" in head and "content-type: a/b\r\n" in head and "form" not in head
    assert body == b"text"
    stub.run("invoke", "f", "--data", "-", stdin=b"x" * 100000).ok()
    head, body = stub.requests[-1]
    assert "Content-Type: application/octet-stream\r\n" in head
    assert body == b"x" * 100000
    stub.run("invoke", "f").ok()
    head, body = stub.requests[-1]
    assert "Content-Length: 0\r\n" in head and "Content-Type" not in head


def test_file_is_sent_with_its_length(stub, tmp_path):
    data = bytes(range(256)) * 20000
    (tmp_path / "data").write_bytes(data)
    stub.answers = [answer(200, b"done", "text/plain")]
    stub.run("invoke", "f", "--data", f"@{tmp_path}/data").ok()
    head, body = stub.requests[-1]
    assert f"Content-Length: {len(data)}\r\n" in head
    assert body == data


def test_answer_is_shown_while_standard_input_is_still_open(stub):
    """A function that answers line by line can be talked to."""

    def talk(self, connection, head):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        file = connection.makefile("rb")
        while size := int(file.readline(), 16):
            piece = file.read(size)
            file.readline()
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")

    stub.answers = [talk]
    process = subprocess.Popen(
        [harness.UNICTL, "--host", stub.host, "invoke", "f", "--data", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    for word in (b"one\n", b"two\n"):
        process.stdin.write(word)
        process.stdin.flush()
        assert process.stdout.readline() == word
    process.stdin.close()
    assert process.wait(harness.ANSWER_S) == 0
    process.stdout.close()


def test_invoke_json_holds_any_bytes(stub):
    stub.answers = [
        answer(
            200, b"text", "text/plain", "X-Unid-Invocation-Id: ABC", "Server-Timing: queue;dur=1"
        ),
        answer(200, b"\xff\x00\xfe", "text/plain"),
    ]
    done = stub.run("invoke", "f", "--json").json
    assert done == {
        "status": 200,
        "body": "text",
        "invocation_id": "ABC",
        "content_type": "text/plain",
        "server_timing": "queue;dur=1",
    }
    assert stub.run("invoke", "f", "--json").json["body_base64"] == "/wD+"


def test_include_shows_the_head(stub):
    stub.answers = [answer(200, b"body", "text/plain", "Server-Timing: queue;dur=1")]
    done = stub.run("invoke", "f", "--include")
    assert done.out == b"body"
    assert done.err.startswith("HTTP/1.1 200 X\n") and "Server-Timing: queue;dur=1\n" in done.err


def test_token_is_sent_from_file_or_environment(stub, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    stub.answers = [answer(200, {"items": [], "next": None})] * 2
    stub.run("ls", "--token-file", tmp_path / "token").ok()
    assert "Authorization: Bearer secret\r\n" in stub.requests[-1][0]
    stub.run("ls", env={"UNID_TOKEN": "other"}).ok()
    assert "Authorization: Bearer other\r\n" in stub.requests[-1][0]


def test_proxy_of_the_environment_is_not_used(stub):
    stub.answers = [answer(200, {"items": [], "next": None})]
    stub.run("ls", env={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}).ok()


def test_deploy_pushes_only_what_is_not_there(stub, tmp_path):
    program = tmp_path / "prog"
    program.write_bytes(b"abc")
    digest = "sha256:" + hashlib.sha256(b"abc").hexdigest()
    image = {
        "digest": digest,
        "kind": "sdk",
        "size": 3,
        "created_at": "2020-01-01T00:00:00Z",
        "function_versions": 0,
    }
    stub.answers = [
        problem(404),
        answer(201, image),
        answer(201, FUNCTION),
        answer(200, image),
        answer(200, FUNCTION),
    ]
    done = stub.run(
        "deploy", "f", program, "-m", "64M", "--timeout=2m", "-c4", "-e", "K=V=W", "--", "-x", "y"
    )
    assert done.ok().text == f"f version 3 {stub.host}/fn/f\n"
    assert [r[0].split(" HTTP")[0] for r in stub.requests] == [
        f"GET /api/v1/images/{digest.replace(':', '%3A')}",
        f"POST /api/v1/images?digest={digest.replace(':', '%3A')}",
        "PUT /api/v1/functions/f",
    ]
    assert stub.requests[1][1] == b"abc"
    assert json.loads(stub.requests[2][1]) == {
        "image": digest,
        "memory_mib": 64,
        "timeout_ms": 120000,
        "concurrency": 4,
        "env": {"K": "V=W"},
        "args": ["-x", "y"],
    }
    assert stub.run("deploy", "f", program, "--json").ok().json == FUNCTION
    assert len(stub.requests) == 5


def test_listing_follows_pages(stub):
    stub.answers = [
        answer(200, {"items": [FUNCTION], "next": "a b"}),
        answer(200, {"items": [{**FUNCTION, "name": "g"}], "next": None}),
    ]
    done = stub.run("ls", "--json").ok().json
    assert [f["name"] for f in done["items"]] == ["f", "g"] and done["next"] is None
    assert "cursor=a%20b" in stub.requests[1][0]


def test_listing_is_aligned(stub):
    stub.answers = [
        answer(200, {"items": [FUNCTION, {**FUNCTION, "name": "a-longer-name"}], "next": None})
    ]
    lines = stub.run("ls").ok().text.splitlines()
    assert lines[0].split() == [
        "NAME",
        "VERSION",
        "IMAGE",
        "INTERFACE",
        "MEMORY",
        "TIMEOUT",
        "CONCURRENCY",
        "CREATED",
    ]
    assert lines[1].split()[:7] == ["f", "3", "a" * 12, "filter", "64MiB", "30s", "4"]
    assert len({line.index("a" * 12) for line in lines[1:]}) == 1
    assert lines[1].endswith("years ago")


INVOCATION = "01M7Y6ZREHPH8AH4YC1V95PPM"


def bench_answer(n):
    return (
        f"HTTP/1.1 200 OK\r\nX-Unid-Invocation-Id: {INVOCATION}{n}\r\nContent-Length: 2\r\n\r\nok"
    ).encode()


def bench_receipts(numbers, more):
    items = [
        {"id": f"{INVOCATION}{n}", "version": 1, "driver": "kvm", "fresh": n != 5,
         "phases": {"queue_us": n, "run_us": 10}}
        for n in numbers
    ]  # fmt: skip
    return answer(200, {"items": items, "next": "later" if more else None})


def test_bench_uses_one_connection_and_finds_its_receipts_behind_others(stub):
    seen = []

    def four_requests(stub, connection, head):
        for n in (4, 5, 6, 7):
            seen.append(head.split("\r\n")[0])
            connection.sendall(bench_answer(n))
            if n < 7:
                head = stub.read_head(connection)

    stub.answers = [
        four_requests,
        bench_receipts([9, 8, 6], more=True),  # one is missing, and the list may be too short
        bench_receipts([9, 8, 7, 6, 5, 4], more=True),
    ]
    done = stub.run("bench", "f", "-n", 3, "--warmup", 1, "--json").ok().json
    assert seen == ["GET /fn/f HTTP/1.1"] * 4
    assert (done["receipts"], done["fresh"]) == (3, 2)
    assert done["times"]["queue_us"] == {"p50": 6, "p90": 7, "p99": 7, "max": 7}
    assert done["times"]["total_us"] == {"p50": 16, "p90": 17, "p99": 17, "max": 17}
    limits = [head.split("limit=")[1].split()[0] for head, _ in stub.requests]
    assert limits == ["3", "6"]


def test_bench_of_something_else_than_unid_is_said_so(stub):
    stub.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    done = stub.run("bench", "f")
    assert done.status == 1 and "names no invocation" in done.err


def test_logs_follow_prints_each_line_as_it_comes(stub):
    release = threading.Event()

    def stream(self, connection, head):
        assert head.startswith("GET /api/v1/functions/f/logs?limit=5&follow=1 ")
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        line = json.dumps({"at": "T", "invocation_id": "I", "text": "one"}).encode() + b"\n"
        connection.sendall(b"%x\r\n%s\r\n" % (len(line) - 9, line[:-9]))
        connection.sendall(b"9\r\n%s\r\n" % line[-9:])
        assert release.wait(harness.ANSWER_S)
        connection.sendall(b"0\r\n\r\n")

    stub.answers = [stream]
    process = subprocess.Popen(
        [harness.UNICTL, "--host", stub.host, "logs", "f", "-f", "-n", "5"], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"T  I  one\n"
    release.set()
    assert process.wait(harness.ANSWER_S) == 0
    process.stdout.close()


def test_logs_json_is_one_object_a_line(stub):
    items = [{"at": "T", "invocation_id": "I", "text": t} for t in ("one", "two")]
    stub.answers = [answer(200, {"items": items, "next": None})]
    done = stub.run("logs", "f", "--json").ok()
    assert [json.loads(line) for line in done.text.splitlines()] == items


def test_rm_goes_on_after_a_refusal(stub):
    stub.answers = [answer(204), problem(404), answer(204)]
    done = stub.run("rm", "a", "b", "c")
    assert (done.status, done.text) == (1, "a\nc\n")


def test_doctor_joins_the_daemons_findings_with_its_own(stub):
    report = {
        "findings": [{"check": "kvm", "status": "fail", "detail": "no", "fix": "do this"}],
        "drivers": [
            {
                "name": "libvirt",
                "usable": True,
                "accelerator": "tcg",
                "shell_us": 300000,
                "start_us": 4500,
                "guest_ops_per_ms": 1000,
                "detail": "fine",
            }
        ],
    }
    stub.answers = [answer(200, report), answer(200, report)]
    text = stub.run("doctor").ok().text
    assert "fail  kvm            no\n" in text and "mend: do this\n" in text
    assert "libvirt   yes" in text and "300.00ms" in text and "4.50ms" in text
    joined = stub.run("doctor", "--json").ok().json
    assert joined["drivers"] == report["drivers"]
    # What both have looked at, the daemon knows better.
    assert [f for f in joined["findings"] if f["check"] == "kvm"] == report["findings"]
    assert {"qemu", "tmpfs", "state-dir"} <= {f["check"] for f in joined["findings"]}


def test_doctor_without_daemon_checks_this_machine(tmp_path):
    done = harness.unictl("--host", f"unix://{tmp_path}/none.sock", "doctor", "--json")
    assert done.status == 3
    assert "start it with `unid`" in done.err
    checks = {f["check"]: f for f in done.json["findings"]}
    assert {"kvm", "qemu", "libvirt", "tmpfs", "state-dir", "runtime-dir"} <= set(checks)
    assert all(f["status"] == "ok" or f["fix"] for f in checks.values())


def test_doctor_names_what_is_missing(tmp_path):
    (tmp_path / "file").write_text("")
    done = harness.unictl(
        "--host", f"unix://{tmp_path}/none.sock", "doctor", env={"PATH": str(tmp_path)}
    )
    assert "fail  qemu" in done.text and "apt-get install qemu-system-x86" in done.text


@pytest.mark.parametrize(
    "words, hint",
    [
        ((), "unictl help"),
        (("frobnicate",), "there is no verb 'frobnicate'\n"),
        (("depoly", "x"), "did you mean 'deploy'?"),
        (("image", "puhs", "x"), "did you mean 'image push'?"),
        (("image",), "image is followed by one of ls, push, rm, tag, untag\n"),
        (("--frob", "ls"), "unknown option --frob"),
        (("ls", "extra"), "ls does not take 'extra'"),
        (("ls", "--", "extra"), "nothing behind --"),
        (("ls", "--json=1"), "--json takes no value"),
        (("deploy", "f"), "deploy needs NAME PROGRAM|IMAGE"),
        (("deploy", "F", "x"), "'F' is no function name"),
        (("deploy", "f", "x", "y"), "go behind --"),
        (("deploy", "f", "x", "--memory", "64MB"), "'64MB' is no size"),
        (("deploy", "f", "x", "--memory", "1K"), "not a whole number of MiB"),
        (("deploy", "f", "x", "--memory", "1T"), "not a whole number of MiB"),
        (("deploy", "f", "x", "--timeout", "30"), "'30' is no time"),
        (("deploy", "f", "x", "--timeout", "1h"), "not from 1ms to 15m"),
        (("deploy", "f", "x", "--concurrency", "0"), "0 is not from 1 to 10000"),
        (("deploy", "f", "x", "--env", "KV"), "'KV' is not K=V"),
        (("deploy", "f", "x", "--interface", "gui"), "none of filter"),
        (("deploy", "f", "x", "--interface", "cg"), "none of filter"),
        (("deploy", "f", "x", "--driver", "qemu"), "none of auto, kvm, libvirt, fake"),
        (("deploy", "f", "x", "--isolation", "none"), "none of vm, reset"),
        (("deploy", "f", "x", "--snapshot", "never"), "none of ready, start"),
        (("deploy", "f", "x", "--mem", "64M"), "did you mean --memory?"),
        (("invoke", "f:"), "no version or alias"),
        (("invoke", "f", "--header", "novalue"), "is not K:V"),
        (("invoke", "f", "--header", "A: b\r\nC: d"), "is not K:V"),
        (("invoke", "f", "--header", "Content-Length: 3"), "sets Content-Length itself"),
        (("rollback", "f", "one"), "'one' is no whole number"),
        (("rollback", "f", "0"), "0 is not from 1"),
        (("logs", "f", "-n", "0"), "0 is not from 1 to 1000"),
        (("top", "f"), "top does not take 'f'"),
        (("top", "-d", "0.01"), "--interval: 0.01 is not from 0.1 to 3600 seconds"),
        (("top", "--interval", "often"), "'often' is no time"),
        (("top", "-n", "-1"), "--iterations: '-1' is no whole number"),
        (("receipt", "nonsense"), "no invocation's id"),
        (("image", "rm", "sha256:1"), "is no digest"),
        (("image", "rm", "0123abc"), "is no digest"),
        (("image", "tag", "x"), "image tag needs IMAGE TAG"),
        (("volume",), "volume is followed by one of create, ls, describe, rm\n"),
        (("volume", "create", "v"), "--size is missing"),
        (("volume", "create", "v", "--size", "1000"), "not a whole number of MiB"),
        (("volume", "create", "v", "--size", "17T"), "not a whole number of MiB from 1M to 16T"),
        (("volume", "create", "v", "--size", "1GB"), "'1GB' is no size"),
        (("volume", "rm"), "volume rm needs NAME..."),
        (("deploy", "f", "x", "--volume", "v"), "add --service"),
        (("help", "nonsense"), "there is no verb"),
        (("ls", "--host", "127.0.0.1:7070"), "is no address"),
        (("ls", "--host", "http://[::1"), "is no address"),
        (("invoke", "f", "--data", "@"), "no file behind '@'"),
    ],
)
def test_wrong_usage_is_2_and_says_why(words, hint, tmp_path):
    done = harness.unictl(*words, env={"UNID_HOST": f"unix://{tmp_path}/none.sock"})
    assert done.status == 2, done
    assert done.err.startswith("unictl: ") and hint in done.err
    assert done.out == b""


VERBS = [
    "deploy",
    "apply",
    "delete",
    "check",
    "invoke",
    "ls",
    "describe",
    "rm",
    "versions",
    "rollback",
    "alias set",
    "alias ls",
    "alias rm",
    "ps",
    "top",
    "logs",
    "receipts",
    "receipt",
    "replay",
    "watch",
    "deadletter ls",
    "deadletter show",
    "deadletter redrive",
    "deadletter rm",
    "bench",
    "image ls",
    "image push",
    "image rm",
    "image tag",
    "image untag",
    "volume create",
    "volume ls",
    "volume describe",
    "volume rm",
    "trigger add",
    "trigger ls",
    "trigger show",
    "trigger rm",
    "doctor",
    "version",
    "help",
]


def test_help_names_every_verb():
    text = harness.unictl("help").ok().text
    assert all(f"\n  {verb} " in text for verb in VERBS)
    assert [v["verb"] for v in harness.unictl("help", "--json").ok().json["verbs"]] == VERBS
    assert harness.unictl("--help").ok().text == text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_place_in_the_manual(verb):
    text = harness.unictl(*verb.split(), "--help").ok().text
    assert text.startswith(f"Usage: unictl {verb}")
    assert harness.unictl("help", *verb.split()).ok().text == text
    assert f"Cm {verb}" in (harness.ROOT / "docs/man/unictl.1").read_text()


VOLUME = {
    "name": "data",
    "format": "raw",
    "size": 3 << 30,
    "allocated": 4096,
    "image": None,
    "used_by": ["db"],
    "created_at": "2020-01-01T00:00:00.000000Z",
}


def test_volumes_are_made_and_shown(stub):
    stub.answers = [answer(201, VOLUME), answer(201, VOLUME)]
    assert stub.run("volume", "create", "data", "--size", "3G").ok().text == "data\n"
    head, body = stub.requests[-1]
    assert head.startswith("PUT /api/v1/volumes/data ")
    assert json.loads(body) == {"size_mib": 3072}
    digest = "sha256:" + "a" * 64
    stub.run("volume", "create", "data", "--from", digest, "--size", "1M").ok()
    assert json.loads(stub.requests[-1][1]) == {"size_mib": 1, "image": digest}
    unused = {**VOLUME, "name": "spare", "used_by": [], "size": 1536 << 20}
    stub.answers = [answer(200, {"items": [VOLUME, unused], "next": None}), answer(200, VOLUME)]
    first, second = stub.run("volume", "ls").ok().text.splitlines()[1:]
    assert first.split()[:5] == ["data", "raw", "3GiB", "4.10kB", "db"]
    assert second.split()[:5] == ["spare", "raw", "1536MiB", "4.10kB", "-"]
    text = stub.run("volume", "describe", "data").ok().text
    assert "Used by:     db\n" in text and "From image:  -\n" in text
    stub.answers = [answer(204), problem(409, detail="volume b is used by function db")]
    done = stub.run("volume", "rm", "a", "b")
    assert (done.status, done.text) == (1, "a\n")
    assert "used by function db" in done.err


@pytest.mark.parametrize("name", ["netkernel", "multiboot1", "multiboot2", "linux64"])
def test_deploy_sends_a_kernel_as_it_is(stub, name):
    kernel = (harness.BUILD / f"tests/guests/{name}.elf").read_bytes()
    image = {
        "digest": "sha256:" + hashlib.sha256(kernel).hexdigest(),
        "kind": "pvh",
        "size": len(kernel),
        "created_at": "2020-01-01T00:00:00Z",
        "function_versions": 0,
    }
    stub.answers = [problem(404), answer(201, image), answer(201, FUNCTION)]
    stub.run("deploy", "f", harness.BUILD / f"tests/guests/{name}.elf").ok()
    assert stub.requests[1][1] == kernel


def test_deploy_sends_what_a_machine_gets_besides(stub):
    kernel, initrd, disk = ("sha256:" + c * 64 for c in "abc")
    stub.answers = [answer(201, FUNCTION)]
    stub.run(
        *["deploy", "f", kernel, "--initrd", initrd, "--disk", disk, "--service"],
        *["--volume", "one", "--volume", "two"],
    ).ok()
    assert json.loads(stub.requests[-1][1])["machine"] == {
        "initrd": initrd,
        "disk": disk,
        "service": True,
        "volumes": ["one", "two"],
    }


@pytest.mark.parametrize(
    "words",
    [
        ("ls",),
        ("describe", "f"),
        ("rm", "f"),
        ("versions", "f"),
        ("rollback", "f"),
        ("ps",),
        ("top",),
        ("logs", "f"),
        ("logs", "f", "-f"),
        ("receipts",),
        ("receipt", "01" + "0" * 24),
        ("image", "ls"),
        ("invoke", "f"),
        ("bench", "f"),
        ("image", "rm", "sha256:" + "0" * 64),
        ("image", "tag", "one", "two"),
        ("image", "untag", "one"),
        ("volume", "create", "one", "--size", "1M"),
        ("volume", "ls"),
        ("volume", "describe", "one"),
        ("volume", "rm", "one"),
        ("version",),
        ("deploy", "f", "sha256:" + "0" * 64),
    ],
)
def test_no_daemon_is_3_and_says_how_to_start_one(words, tmp_path):
    done = harness.unictl("--host", f"unix://{tmp_path}/none.sock", *words)
    assert done.status == 3
    assert "no daemon at unix://" in done.err and "start it with `unid`" in done.err


def test_socket_of_the_runtime_directory_is_the_default(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "unid.sock"))
    listener.close()  # nobody listens any more
    done = harness.unictl("ls", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert done.status == 3
    assert (
        f"no daemon at unix://{tmp_path}/unid.sock" in done.err or "/run/unid/unid.sock" in done.err
    )


def test_missing_files_are_told_before_anything_is_sent(tmp_path):
    host = f"unix://{tmp_path}/none.sock"
    for words in (
        ("deploy", "f", "./none"),
        ("image", "push", tmp_path / "none"),
        ("deploy", "f", "sha256:" + "0" * 64, "--initrd", tmp_path / "none"),
        ("volume", "create", "v", "--from", tmp_path / "none"),
        ("image", "push", tmp_path),
        ("invoke", "f", "--data", f"@{tmp_path}/none"),
        ("invoke", "f", "--data", f"@{tmp_path}"),
    ):
        done = harness.unictl("--host", host, *words)
        assert done.status == 1, done


def test_progress_bar_appears_on_a_terminal_after_a_second(stub, tmp_path):
    import os
    import pty

    (tmp_path / "prog").write_bytes(b"x" * 8_000_000)

    def slowly(self, connection, head):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        size, end = 8_000_000, time.monotonic() + 1.5
        while size:
            if size < 4_000_000 and time.monotonic() < end:
                time.sleep(0.05)
                continue
            size -= len(connection.recv(min(size, 65536)))
        connection.sendall(answer(201, {"digest": "sha256:" + "0" * 64}))

    stub.answers = [problem(404), slowly]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [harness.UNICTL, "--host", stub.host, "image", "push", tmp_path / "prog"],
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass
    os.close(ours)
    assert process.wait(harness.ANSWER_S) == 0
    assert process.stdout.read() == b"sha256:" + b"0" * 64 + b"\n"
    process.stdout.close()
    assert b"\rprog [" in shown and b"% " in shown and shown.endswith(b"\r\x1b[K")
