"""programs.py - the section `programs` of bench/run: unmodified Linux programs in VMs, against the same
programs on the host in the same run.
"""
import http.client
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from harness import BUILD, Daemon, first_byte_ms, get, median, p99, pss_kib, receipts_of, row
from native import have_kvm

CALLS_C = r"""
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 2000000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void)
{
    struct timespec t;
    char c;
    double a, b, d;
    if (read(0, &c, 1) < 0) {
        return 1;
    }
    a = now();
    for (int i = 0; i < ROUNDS; i++) {
        getpid();
    }
    b = now();
    for (int i = 0; i < ROUNDS; i++) {
        clock_gettime(CLOCK_MONOTONIC, &t);
    }
    d = now();
    printf("%.1f %.1f\n", (b - a) / ROUNDS, (d - b) / ROUNDS);
    return 0;
}
"""
HELLO_C = '#include <stdio.h>\nint main(void) { getchar(); puts("hello"); return 0; }\n'
LUA = "local x, s = io.read(), 0 for i = 1, 3e7 do s = s + i % 7 * 0.5 end print(s, x)"
SLOW_SERVER = """\
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(1.5)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")
http.server.HTTPServer(("127.0.0.1", 8080), Slow).serve_forever()
"""
NGINX = """\
daemon off; master_process off; pid /tmp/nginx.pid; error_log stderr; user root;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e; server {{ listen 8080; root {site}; }} }}
"""
PYTHON, STDLIB = "/usr/bin/python3.11", ["--with", "/usr/lib/python3.11"]
PAIRS = 7
BIG_BODY = ["--set", "limits.max_request_bytes=268435456"]


def deploy(daemon, name, program, *args, options=()):
    done = subprocess.run(
        [
            BUILD / "bin" / "unictl",
            "--host",
            "http://%s:%d" % daemon.address,
            "deploy",
            name,
            program,
            *options,
            "--",
            *args,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)


def post(daemon, name, data):
    """Milliseconds from connecting to the last byte, and the answer, which is read while the body is
    still being sent."""
    begin = time.perf_counter()
    connection = socket.create_connection(daemon.address)
    head = f"POST /fn/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode())
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    answer = http.client.HTTPResponse(connection, method="POST")
    answer.begin()
    body = answer.read()
    took = (time.perf_counter() - begin) * 1e3
    sender.join()
    connection.close()
    if answer.status != 200:
        raise SystemExit(body.decode(errors="replace"))
    return took, body


def on_host(command, data=b"", env=None):
    """Milliseconds from fork to the end of output, and the output."""
    begin = time.perf_counter()
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, env=env or {}, check=True)
    return (time.perf_counter() - begin) * 1e3, done.stdout


def first_on_host(command, env=None):
    """Milliseconds from fork to the first byte of output."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env or {}
    ) as process:
        os.read(process.stdout.fileno(), 1)
        took = (time.perf_counter() - begin) * 1e3
        process.stdout.read()
    return took


def compare(daemon, what, command, data, goal, options=()):
    """The whole of a request against the whole of a process, in turn."""
    deploy(daemon, "work", command[0], *command[1:], options=options)
    ours, theirs, cpu = [], [], []
    for i in range(PAIRS + 1):
        vm_ms, body = post(daemon, "work", data)
        before = os.times()
        host_ms, out = on_host(command, data)
        after = os.times()
        if body != out:
            raise SystemExit(f"{what}: another output than on the host")
        if i:
            ours.append(vm_ms)
            theirs.append(host_ms)
            cpu.append(
                (after.children_user - before.children_user + after.children_system - before.children_system)
                * 1e3
            )
    row(f"{what}: VM, host, median", f"{median(ours):.0f}, {median(theirs):.0f} ms")
    row("  ratio, pair by pair: median", f"{median([o / t for o, t in zip(ours, theirs)]):.3f}", goal)
    vm_cpu = [r["cpu_us"] / 1e3 for r in receipts_of(daemon, "work", PAIRS)[:PAIRS]]
    row(
        "  CPU time of the monitor, of the process: median, ratio",
        f"{median(vm_cpu):.0f}, {median(cpu):.0f} ms, {median(vm_cpu) / median(cpu):.3f}",
    )


def bench_work(daemon):
    rng = random.Random(1)
    words = [b"%x" % rng.getrandbits(rng.choice((12, 20, 40))) for _ in range(5000)]
    text = b" ".join(rng.choices(words, k=3_500_000))[:20_000_000]
    compare(daemon, "gzip of 20 MB (busybox)", ["/bin/busybox", "gzip", "-c"], text, "<= 1.05")
    compare(daemon, "sha256sum of 100 MB (busybox)", ["/bin/busybox", "sha256sum"], text * 5, "<= 1.05")
    if shutil.which("lua5.4"):
        compare(daemon, "a loop in Lua", ["/usr/bin/lua5.4", "-e", LUA], b"x\n", "<= 1.05")
    if shutil.which("jq"):
        item = b'{"id":%d,"name":"%s","v":[1,2.5,null,true],"t":{"a":"b"}}'
        rows = b",".join(item % (i, words[i % 5000]) for i in range(180_000))
        compare(
            daemon,
            "jq on %.0f MB" % (len(rows) / 1e6),
            ["/usr/bin/jq", "-c", "map(.id) | add"],
            b"[" + rows + b"]",
            "<= 1.05",
            options=["-m", "512M"],
        )


def compiled(place, name, source):
    (place / f"{name}.c").write_text(source)
    subprocess.run(["gcc", "-O2", "-static", "-o", place / name, place / f"{name}.c"], check=True)
    return place / name


def latency(daemon, name, path="", rounds=150, pause_s=0.003):
    """Milliseconds from accepting to the first byte (receipts), and those at the client."""
    for _ in range(10):
        get(daemon.address, f"/fn/{name}{path}")
    client = []
    for _ in range(rounds):
        time.sleep(pause_s)
        client.append(get(daemon.address, f"/fn/{name}{path}")[0])
    return receipts_of(daemon, name, rounds), client


def show_latency(daemon, what, name, goal, path="", pause_s=0.003):
    receipts, client = latency(daemon, name, path, pause_s=pause_s)
    times = [first_byte_ms(r) for r in receipts]
    row(f"{what}: accepted to first byte, p50, p99", f"{median(times):.2f}, {p99(times):.2f} ms", goal)
    row("  at the client: p50", f"{median(client):.2f} ms")
    row(
        "  calls, CPU us, exits, peak KiB (median)",
        ", ".join(
            f"{median([r.get(k) or 0 for r in receipts]):.0f}"
            for k in ("calls", "cpu_us", "exits", "peak_rss_kib")
        ),
    )


def bench_latencies(daemon, place):
    deploy(daemon, "hello", compiled(place, "hello", HELLO_C))
    show_latency(daemon, "hello (static glibc)", "hello", "<= 0.7 ms")
    site = place / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>hello</h1>\n" * 50)
    deploy(
        daemon,
        "py",
        PYTHON,
        "-m",
        "http.server",
        "--directory",
        str(site),
        "8080",
        options=["-i", "http", "-m", "128M", "--with", str(site), *STDLIB],
    )
    for ms in (3, 20):
        show_latency(daemon, f"python3 -m http.server, {ms} ms between requests", "py", "<= 3 ms",
                     "/index.html", pause_s=ms / 1e3)
    if os.path.exists("/usr/sbin/nginx"):
        config = place / "nginx.conf"
        config.write_text(NGINX.format(site=site))
        deploy(
            daemon,
            "nginx",
            "/usr/sbin/nginx",
            "-c",
            str(config),
            options=[
                "-i",
                "http",
                "--with",
                str(site),
                "--with",
                str(config),
                "--with",
                "/etc/passwd",
                "--with",
                "/etc/group",
            ],
        )
        show_latency(daemon, "nginx, static page", "nginx", "<= 1.5 ms", "/index.html")


def against_exec(daemon, what, name, command, goal, env=None):
    """Requests against fork and exec of the same, in turn, each to its first byte."""
    ours, theirs = [], []
    for i in range(42):
        time.sleep(0.01)
        vm_ms = get(daemon.address, f"/fn/{name}")[0]
        time.sleep(0.01)
        host_ms = first_on_host(command, env)
        if i > 1:
            ours.append(vm_ms)
            theirs.append(host_ms)
    row(f"{what}, to the first byte: VM, host, p50", f"{median(ours):.2f}, {median(theirs):.2f} ms")
    row("  ratio of the p50", f"{median(ours) / median(theirs):.2f}", goal)


def bench_exec(daemon, place):
    deploy(
        daemon,
        "print",
        PYTHON,
        "-c",
        "import sys; sys.stdin.read(); print(1)",
        options=["-m", "128M", *STDLIB],
    )
    against_exec(
        daemon,
        "python3 from its snapshot, python3 -c 'print(1)'",
        "print",
        [PYTHON, "-c", "print(1)"],
        "<= 0.2",
    )
    if not shutil.which("php-cgi"):
        print("  skipped: there is no php-cgi")
        return
    page = place / "hello.php"
    page.write_text("<?php echo 'hello';\n")
    deploy(
        daemon,
        "php",
        "/usr/bin/php-cgi",
        str(page),
        options=["-i", "cgi", "-m", "128M", "--with", str(page), "--with", "/usr/share/zoneinfo"],
    )
    env = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REDIRECT_STATUS": "200",
        "REQUEST_METHOD": "GET",
        "SCRIPT_FILENAME": str(page),
    }
    against_exec(daemon, "php-cgi hello", "php", ["/usr/bin/php-cgi"], "<= 1.0", env)


def running_pss(daemon, count):
    """PSS of all monitors and unid together while `count` copies of the server answer."""
    threads = [threading.Thread(target=get, args=(daemon.address, "/fn/slow")) for _ in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 1
    while len(daemon.instances("running")) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    total = sum(pss_kib(i["pid"]) for i in daemon.instances("running"))
    for thread in threads:
        thread.join()
    return total


def bench_memory(daemon, place):
    if os.geteuid():
        print("  skipped: monitors' memory can be read by root only")
        return
    script = place / "slow.py"
    script.write_text(SLOW_SERVER)
    deploy(
        daemon,
        "slow",
        PYTHON,
        str(script),
        options=["-i", "http", "-m", "128M", "--with", str(script), *STDLIB],
    )
    get(daemon.address, "/fn/slow")
    one, nine = running_pss(daemon, 1), running_pss(daemon, 9)
    row("PSS that a running copy of the python server adds", f"{(nine - one) / 8 / 1024:.2f} MiB", "<= 4 MiB")


def bench_programs():
    print("programs: Linux programs in VMs, and the same on the host (kvm, isolation vm)")
    if not have_kvm():
        return
    print("  load of the machine: " + " ".join(f"{v:.1f}" for v in os.getloadavg()))
    with tempfile.TemporaryDirectory(prefix="unid-bench-") as made, Daemon(
        "--driver", "kvm", "--pool-min", "4", *BIG_BODY
    ) as daemon:
        place = pathlib.Path(made)
        deploy(daemon, "calls", compiled(place, "calls", CALLS_C))
        runs = [post(daemon, "calls", b"x")[1].split() for _ in range(5)]
        row("getpid() in the VM", f"{min(float(r[0]) for r in runs):.1f} ns", "<= 15 ns")
        row("clock_gettime() in the VM", f"{min(float(r[1]) for r in runs):.1f} ns", "<= 40 ns")
        there = on_host([str(place / "calls")], b"x")[1].split()
        row("  on the host", ", ".join(f"{float(v):.1f}" for v in there) + " ns")
        bench_latencies(daemon, place)
        bench_exec(daemon, place)
        bench_memory(daemon, place)
        bench_work(daemon)
    libos = BUILD / "guest" / "libos" / "libos.elf"
    sizes = subprocess.run(["size", libos], check=True, stdout=subprocess.PIPE, text=True).stdout
    text, data, bss = map(int, re.findall(r"\d+", sizes.splitlines()[1])[:3])
    row(
        "the library OS: code and data, with zeroed memory",
        f"{(text + data) / 1024:.0f}, {(text + data + bss) / 1024:.0f} KiB",
        "<= 256 KiB",
    )
