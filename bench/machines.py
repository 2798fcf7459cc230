"""machines.py - the sections of bench/run for machine images: what it takes to wake a service, to plumb
its network, to pass its answers on, and whether anything is lost or left when many fall asleep and wake.

Each runs in a network namespace of its own, since unid makes taps there; where none can be made it is
skipped. The guest is the test kernel of tests/guests, run by QEMU's translation.
"""
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import random
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from harness import BUILD, Daemon, get, median, row

KERNEL = BUILD / "tests" / "guests" / "netkernel.elf"
PORT = 8080
WAKES = 15
POOLED_IDLE_MS, COLD_IDLE_MS, SHELL_KEEP_MS = 1000, 100, 1000
QEMU = "qemu-system-x86_64"
HAND_TAP, HAND_HOST, HAND_GUEST, HAND_MAC = "bench0", "10.99.0.1", "10.99.0.2", "02:00:00:00:00:02"
PATIENCE_S = 30
CLONE_NEWNET = 0x40000000


def in_namespace(section):
    """The section, run by a child in a network namespace with loopback."""
    def run():
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0 or subprocess.run(
                        ["ip", "link", "set", "lo", "up"]).returncode != 0:
                    print(f"{section.__name__[6:]}: skipped: no network namespace can be made here")
                else:
                    section()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        if os.waitpid(pid, 0)[1] != 0:
            raise SystemExit(f"{section.__name__[6:]} failed")
    return run


def machine_daemon(subnet=87, **settings):
    flags = ["--driver", "fake", "--accelerator", "tcg", "--set", "machines.network=tap", "--set",
             f"machines.range=10.{subnet}.0.0/16"]
    for key, value in settings.items():
        flags += ["--set", f"{key.replace('__', '.')}={value}"]
    return Daemon(*flags)


def deploy(daemon, name, digest, concurrency=100, **machine):
    machine = {"append": "ip={ip}/{prefix} port={port}", "port": PORT, "service": True, **machine}
    daemon.deploy(name, digest, memory_mib=64, timeout_ms=60000, concurrency=concurrency,
                  machine=machine)


def first_byte_ms(address, path):
    """From before the client connects."""
    begin = time.perf_counter()
    connection = socket.create_connection(address)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = connection.recv(65536)
    took = (time.perf_counter() - begin) * 1e3
    connection.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(answer.decode(errors="replace"))
    return took


def qemus(daemon):
    found = set()
    for pid in daemon.descendants():
        with contextlib.suppress(OSError):
            if b"-name\0guest=" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.02)


# --- QEMU by hand -----------------------------------------------------------------------------------


def make_hand_tap():
    for command in (f"ip tuntap add name {HAND_TAP} mode tap",
                    f"ip addr add {HAND_HOST}/30 dev {HAND_TAP}", f"ip link set {HAND_TAP} up",
                    f"ip neigh add {HAND_GUEST} lladdr {HAND_MAC} dev {HAND_TAP} nud permanent"):
        subprocess.run(command.split(), check=True)


def hand_command():
    """As unid's domains are, but for libvirt's sockets."""
    return [QEMU, "-machine", "microvm,usb=off,dump-guest-core=off", "-accel", "tcg", "-cpu", "max",
            "-m", "64", "-display", "none", "-no-user-config", "-nodefaults", "-no-shutdown",
            "-kernel", KERNEL, "-append", f"ip={HAND_GUEST}/30 port={PORT}", "-netdev",
            f"tap,id=n,ifname={HAND_TAP},script=no,downscript=no", "-device",
            f"virtio-net-device,netdev=n,mac={HAND_MAC}", "-chardev", "null,id=c", "-device",
            "isa-serial,chardev=c", "-sandbox", "on"]


def connect_soon(address, step_s=0.002):
    """A connection, as soon as somebody listens."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        attempt = socket.socket()
        attempt.setblocking(False)
        attempt.connect_ex(address)
        _, open_now, _ = select.select([], [attempt], [], step_s)
        if open_now and attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            attempt.setblocking(True)
            return attempt
        attempt.close()
    raise SystemExit("QEMU started by hand does not answer")


def hand_ms():
    """From exec of QEMU to the first byte of the guest's answer."""
    begin = time.perf_counter()
    process = subprocess.Popen(hand_command())
    connection = connect_soon((HAND_GUEST, PORT))
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = connection.recv(4096)
    took = (time.perf_counter() - begin) * 1e3
    connection.close()
    process.kill()
    process.wait()
    if b"200 OK" not in answer:
        raise SystemExit("QEMU started by hand answers something else")
    return took


# --- sections ---------------------------------------------------------------------------------------


def machines_of(daemon):
    client = http.client.HTTPConnection(*daemon.address)
    client.request("GET", "/api/v1/instances")
    items = json.load(client.getresponse())["items"]
    client.close()
    return [i for i in items if i["driver"] == "machine"]


def wake_pooled(daemon):
    """Of a service that sleeps with one machine made and paused."""
    before = qemus(daemon)
    took = first_byte_ms(daemon.address, "/fn/pooled/")
    until(lambda: qemus(daemon) and not qemus(daemon) & before, "asleep, another machine paused")
    time.sleep(0.2)
    return took


def wake_cold(daemon):
    until(lambda: not qemus(daemon), "asleep without a machine")
    time.sleep(0.3)
    return first_byte_ms(daemon.address, "/fn/cold/")


def wake_of_shell(daemon):
    """Of one that has none either, while a machine stands ready that was made for no service."""
    idle = [{"state": "paused", "function": None}]
    until(lambda: [{k: i[k] for k in idle[0]} for i in machines_of(daemon)] == idle,
          "asleep but for a shell")
    time.sleep(0.3)
    return first_byte_ms(daemon.address, "/fn/cold/")


def show_wakes(what, ours, hand, ratio_goal, more_goal):
    row(f"{what}: median, worst", f"{median(ours):.1f}, {max(ours):.1f} ms")
    row("  ratio to QEMU by hand, pair by pair: median",
        f"{median([o / h for o, h in zip(ours, hand)]):.2f}", ratio_goal)
    row("  more than QEMU by hand, pair by pair: median",
        f"{median([o - h for o, h in zip(ours, hand)]):.1f} ms", more_goal)


@in_namespace
def bench_sleepers():
    print(f"sleepers: waking a service (test kernel, 64 MiB, TCG), client's connect to first byte, "
          f"{WAKES} times in turn")
    make_hand_tap()
    with machine_daemon(machines__shell_keep_ms=0) as warm, machine_daemon(
            subnet=88, machines__shell_keep_ms=0) as cold, machine_daemon(subnet=89) as shells:
        deploy(warm, "pooled", warm.push(KERNEL), idle_timeout_ms=POOLED_IDLE_MS)
        for daemon in (cold, shells):
            deploy(daemon, "cold", daemon.push(KERNEL), idle_timeout_ms=COLD_IDLE_MS)
            first_byte_ms(daemon.address, "/fn/cold/")
        wake_pooled(warm)
        pooled, made, of_shell, hand = [], [], [], []
        for _ in range(WAKES):
            pooled.append(wake_pooled(warm))
            hand.append(hand_ms())
            made.append(wake_cold(cold))
            of_shell.append(wake_of_shell(shells))
    row("QEMU by hand, exec to first byte: median, worst", f"{median(hand):.1f}, {max(hand):.1f} ms")
    show_wakes("a paused machine stands ready", pooled, hand, "<= 0.5", "")
    show_wakes("none does, and no shell", made, hand, "", "<= 150 ms")
    show_wakes("none does, but a shell", of_shell, hand, "", "")
    row("  ratio to that without a shell, pair by pair: median",
        f"{median([s / m for s, m in zip(of_shell, made)]):.2f}")


@in_namespace
def bench_plumb():
    print("plumb: a guest's tap, address and rules, attached and detached, in a namespace of its own")
    done = subprocess.run([BUILD / "bench" / "netplumb"], stdout=subprocess.PIPE, check=True)
    us = json.loads(done.stdout)
    figures = us["figures"]
    others = " and ".join(str(f["beside"]) for f in figures[1:])
    for key, what, goal in (("made_us", "a new one, attached and given back", "<= 3 ms, ratio 1"),
                            ("again_us", "one that was given back lately, likewise", "<= 3 ms"),
                            ("removed_us", "what is left of it removed, later", "ratio 1")):
        times = ", ".join(f"{f[key] / 1e3:.3f}" for f in figures)
        ratios = ", ".join(f"{f[key] / figures[0][key]:.2f}" for f in figures[1:])
        row(f"{what}: alone, beside {others} others", f"{times} ms; ratio {ratios}", goal)
    row("the slowest of the others to be attached", f"{us['worst_us'] / 1e3:.1f} ms", "")


def wrk(address, path, connections=8, seconds=3):
    """Requests a second."""
    out = subprocess.run(["wrk", "--timeout", "10s", "-t1", f"-c{connections}", f"-d{seconds}s",
                          f"http://{address[0]}:{address[1]}{path}"], stdout=subprocess.PIPE,
                         check=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(out)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))


def show_proxy(what, pairs, goal):
    row(f"{what}: direct, by unid, requests a second: median",
        f"{median([d for d, _ in pairs]):.0f}, {median([u for _, u in pairs]):.0f}")
    row("  ratio, pair by pair: median", f"{median([u / d for d, u in pairs]):.2f}", goal)


@contextlib.contextmanager
def nginx(address):
    """A fast server of 64 KiB: GET /bytes/65536."""
    with tempfile.TemporaryDirectory(prefix="unid-bench-") as work:
        site = pathlib.Path(work) / "site" / "bytes"
        site.mkdir(parents=True)
        (site / "65536").write_bytes(b"x" * 65536)
        config = pathlib.Path(work) / "nginx.conf"
        config.write_text(
            f"daemon off; master_process off; pid {work}/pid; error_log stderr; user root;\n"
            "events { worker_connections 256; }\n"
            f"http {{ access_log off; sendfile on; keepalive_requests 1000000000;\n"
            + "".join(f"{kind}_temp_path {work}/{kind};" for kind in
                      ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"server {{ listen {address[0]}:{address[1]}; root {site.parent}; }} }}\n")
        process = subprocess.Popen(["nginx", "-c", config, "-e", "stderr"],
                                   stderr=subprocess.DEVNULL)
        connect_soon(address, 0.05).close()
        yield
        process.terminate()
        process.wait()


@in_namespace
def bench_proxy():
    print("proxy: an awake service, 64 KiB responses, 8 connections, wrk directly and by unid in turn")
    if not shutil.which("wrk"):
        print("  skipped: wrk is not installed")
        return
    path = "/bytes/65536"
    with machine_daemon() as daemon:
        deploy(daemon, "web", daemon.push(KERNEL))
        guest = re.search(r"hello from (\S+)", get(daemon.address, "/fn/web/")[1]).group(1)
        wrk((guest, PORT), path, seconds=1)
        pairs = [(wrk((guest, PORT), path), wrk(daemon.address, "/fn/web" + path))
                 for _ in range(5)]
        show_proxy("the test kernel", pairs, ">= 0.80")
        if not shutil.which("nginx"):
            print("  a fast server: skipped: nginx is not installed")
            return
        # The guest's address, answered by a server of the host: the guest is no limit then.
        server = ("127.0.0.1", 18080)
        rules = ("table ip bench {\nchain output {\ntype nat hook output priority -100\n"
                 f"ip daddr {guest} tcp dport {PORT} dnat to {server[0]}:{server[1]}\n}}\n}}\n")
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        with nginx(server):
            pairs = [(wrk(server, path), wrk(daemon.address, "/fn/web" + path)) for _ in range(5)]
        show_proxy("nginx on the host in the guest's place", pairs, "")


SLEEPERS, CYCLES, AT_ONCE = 20, 200, 4


def left_overs(daemon):
    """What would outlive the machines: taps, bridges, rules, QEMUs, files."""
    links = subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, text=True, check=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], stdout=subprocess.PIPE, text=True).stdout
    found = re.findall(r"^\d+: (u[tb][-0-9a-f]\S*):", links, re.M)
    found += re.findall(r"table \S+ unid\S*", tables)
    found += [f"QEMU {pid}" for pid in qemus(daemon)]
    runs = pathlib.Path("/dev/shm")
    tag = (daemon.state / "libvirt" / "tag").read_text()
    found += [str(p) for p in (runs / f"unid-{tag}").glob("s/*")]
    return found


def cycle_one(daemon, name, failed):
    try:
        first_byte_ms(daemon.address, f"/fn/{name}/")
    except (SystemExit, OSError) as e:
        failed.append(f"{name}: {e}")


@in_namespace
def bench_cycles():
    print(f"cycles: {CYCLES} wakes of {SLEEPERS} services at random, {AT_ONCE} at a time, "
          f"idle timeout {COLD_IDLE_MS} ms")
    draw, failed, woken = random.Random(1), [], 0
    with machine_daemon(machines__shell_keep_ms=SHELL_KEEP_MS) as daemon:
        digest = daemon.push(KERNEL)
        names = [f"s{i}" for i in range(SLEEPERS)]
        for name in names:
            deploy(daemon, name, digest, idle_timeout_ms=COLD_IDLE_MS)
        began = time.monotonic()
        while woken < CYCLES:
            threads = [threading.Thread(target=cycle_one, args=(daemon, name, failed))
                       for name in draw.sample(names, AT_ONCE)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            woken += AT_ONCE
            time.sleep(draw.uniform(0, 6 * COLD_IDLE_MS / 1e3))
        took = time.monotonic() - began
        deadline = time.monotonic() + PATIENCE_S
        while left_overs(daemon) and time.monotonic() < deadline:
            time.sleep(0.2)
        left = left_overs(daemon)
    row("requests, of them failed; in", f"{woken}, {len(failed)}; {took:.0f} s", "0 failed")
    row("taps, bridges, rules, machines, files left when all sleep", ", ".join(left) or "none",
        "none")
    for text in failed[:5]:
        print(f"    {text}")
