"""Unmodified Linux programs, in VMs of a real daemon and on the host: the same input gives the same
bytes. What is run is in programs.py; docs/compatibility.md has a line for each."""

import http.client
import os
import pathlib
import re
import socket
import subprocess

import pytest

import harness
import programs
from harness import free_port

DOCUMENT = programs.ROOT / "docs" / "compatibility.md"
KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not KVM, reason="/dev/kvm cannot be opened"),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """One daemon for all programs."""
    with harness.Daemon(
        tmp_path_factory.mktemp("unid"), driver="kvm", flags=["--set", "pool.min=2"]
    ) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where programs and files are made, for host and VM alike."""
    return tmp_path_factory.mktemp("programs")


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def needs(path):
    if not pathlib.Path(path).exists():
        pytest.skip(f"there is no {path}")


def deploy(daemon, name, command, *options):
    daemon.unictl("deploy", name, command[0], *options, "-m", "512M", "--", *command[1:]).ok()


def receipt(daemon, answer):
    return daemon.receipt(answer.headers["X-Unid-Invocation-Id"])


def same_as_host(daemon, name, command, data, options=(), env=None):
    """Deploys the program and compares two requests with the host's output."""
    want = programs.host(command, data, env)
    deploy(daemon, name, command, *options)
    for _ in range(2):
        answer = daemon.call(name, data).ok()
        assert answer.body == want
    assert receipt(daemon, answer)["unsupported"] == []


@named(programs.FILTERS)
def test_filter(real, name, case):
    needs(case.command[0])
    same_as_host(real, name, case.command, case.input(), case.options)


@named(programs.COMPILED)
def test_compiled(real, place, name, case):
    program = case.make(place)
    if not program:
        pytest.skip(f"there is no {case.compiler}")
    same_as_host(real, name, [str(program), "word"], programs.text(20000))


def test_python_script(real, place, name):
    needs(programs.PYTHON)
    script = place / "summary.py"
    script.write_text(programs.PYTHON_SCRIPT)
    script.chmod(0o755)
    same_as_host(real, name, [str(script)], programs.records(3000), programs.SCRIPT_WITH)


# --- servers --------------------------------------------------------------------------------------


class OnHost:
    """A server on the host; use as a context manager."""

    def __init__(self, command, port, env=None):
        self.command, self.port, self.env = command, port, env

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command,
            env=self.env or {},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        harness.wait_for(self.listens, "the server on the host listens")
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()

    def listens(self):
        assert self.process.poll() is None, self.process.returncode
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=harness.ANSWER_S)
        connection.request(method, path, body, {"Connection": "close", **headers})
        response = connection.getresponse()
        return harness.Answer(response.status, response.headers, response.read())


# Fields that belong to the way of the answer, or say when it was made.
OF_THE_WAY = ("connection", "keep-alive", "date", "transfer-encoding", "content-length")


def fields(answer):
    return sorted(
        (k.lower(), v)
        for k, v in answer.headers.items()
        if k.lower() not in OF_THE_WAY and k.lower() not in ("server-timing", "x-unid-invocation-id")
    )


def same_server(daemon, name, host, asks):
    for method, path, body, headers in asks:
        want = host.ask(method, path, body, headers)
        got = daemon.request(method, f"/fn/{name}{path}", body, headers)
        assert (got.status, fields(got)) == (want.status, fields(want)), path
        assert got.body == want.body, path


GETS = [("GET", path, None, {}) for path in ("/index.html", "/words.txt", "/big.bin", "/none")]


def test_go_http_server(real, place, name):
    program = programs.GO.make(place)
    if not program:
        pytest.skip("there is no go")
    port = free_port()
    data = programs.text(2000)
    deploy(real, name, [str(program)], "-i", "http", "--env", f"PORT={port}")
    with OnHost([str(program)], port, {"PORT": str(port)}) as host:
        same_server(
            real,
            name,
            host,
            [
                ("POST", "/count?a=1&b=2", data, {"Content-Type": "text/plain"}),
                ("POST", "/gzip", data, {"Content-Type": "text/plain"}),
                ("GET", "/none", None, {}),
            ],
        )


def test_busybox_httpd(real, place, name):
    needs(programs.BUSYBOX)
    port = free_port()
    site = programs.site(place / "httpd")
    command = [programs.BUSYBOX, "httpd", "-f", "-p", str(port), "-h", str(site)]
    deploy(real, name, command, "-i", "http", "--env", f"PORT={port}", "--with", site)
    with OnHost(command, port) as host:
        same_server(real, name, host, GETS)


def test_python_http_server(real, place, name):
    needs(programs.PYTHON)
    port = free_port()
    site = programs.site(place / "python")
    command = [programs.PYTHON, "-m", "http.server", "--directory", str(site), "-b", "127.0.0.1", str(port)]
    deploy(real, name, command, "-i", "http", "--env", f"PORT={port}", "--with", site, *programs.SCRIPT_WITH)
    with OnHost(command, port) as host:
        same_server(real, name, host, GETS[:3])


def test_nginx(real, place, name):
    needs("/usr/sbin/nginx")
    port = free_port()
    site = programs.site(place / "nginx")
    config = place / "nginx.conf"
    config.write_text(programs.NGINX_CONF.format(tmp="/tmp", port=port, site=site))
    command = ["/usr/sbin/nginx", "-c", str(config)]
    with_ = [w for p in (site, config, "/etc/passwd", "/etc/group") for w in ("--with", p)]
    deploy(real, name, command, "-i", "http", "--env", f"PORT={port}", *with_)
    config.write_text(programs.NGINX_CONF.format(tmp=place, port=port, site=site))
    squeezed = [
        ("GET", "/words.txt", None, {"Accept-Encoding": "gzip"}),
        ("GET", "/big.bin", None, {"Range": "bytes=100-1999"}),
    ]
    with OnHost(command, port) as host:
        same_server(real, name, host, GETS + squeezed)


def test_lighttpd(real, place, name):
    needs("/usr/sbin/lighttpd")
    port = free_port()
    site = programs.site(place / "lighttpd")
    config = place / "lighttpd.conf"
    config.write_text(programs.LIGHTTPD_CONF.format(port=port, site=site))
    command = ["/usr/sbin/lighttpd", "-D", "-f", str(config)]
    along = programs.along(site, config, "/usr/lib/lighttpd")
    deploy(real, name, command, "-i", "http", "--env", f"PORT={port}", *along)
    with OnHost(command, port) as host:
        same_server(real, name, host, [*GETS[:3], ("GET", "/big.bin", None, {"Range": "bytes=100-1999"})])


@pytest.mark.parametrize("opcache", programs.OPCACHES, ids=["plain", "opcache"])
def test_php_page(real, place, name, opcache):
    needs(programs.PHP)
    for path in opcache:
        needs(path)
    page = place / "page.php"
    page.write_text(programs.PHP_PAGE)
    os.utime(page, (1e9, 1e9))  # opcache leaves out what changed in the last 2 s (opcache.file_update_protection)
    along = programs.along(page, "/etc/php", "/usr/share/zoneinfo", *opcache)
    # In memory of the default size, where opcache wants 128 MiB and uses 9 of them.
    real.unictl("deploy", name, programs.PHP, "-i", "cgi", *along, "--", str(page)).ok()
    body = b"x=1&y=two"
    kind = "application/x-www-form-urlencoded"
    answer = real.post(f"/fn/{name}/?q=a%20b", body, headers={"Content-Type": kind}).ok()
    env = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REDIRECT_STATUS": "200",
        "REQUEST_METHOD": "POST",
        "SCRIPT_FILENAME": str(page),
        "QUERY_STRING": "q=a%20b",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
    }
    head, _, want = programs.host([programs.PHP], body, env).partition(b"\r\n\r\n")
    assert answer.body == want
    assert b"X-Page: yes" in head and answer.headers["X-Page"] == "yes"
    assert answer.headers["X-Cached"] == ("1" if opcache else "none")
    assert receipt(real, answer)["peak_rss_kib"] < 64 << 10


# --- what is not there ----------------------------------------------------------------------------


@named(programs.MISSING)
def test_missing_call_is_named(real, name, case):
    needs(case.command[0])
    deploy(real, name, case.command, *case.options)
    problem = real.call(name, case.data).problem(502)
    assert {call["name"] for call in problem["unsupported"]} == case.calls
    assert all(call in problem["detail"] for call in case.calls)


def test_document_has_a_line_for_each_program():
    lines = set(re.findall(r"^\| `([\w.-]+)` ", DOCUMENT.read_text(), re.M))
    cases = {case.name for case in programs.FILTERS + programs.COMPILED + programs.MISSING}
    cases |= {"go-http", "busybox-httpd", "python3-script", "python3-http", "nginx", "lighttpd", "php-cgi"}
    assert cases == lines
