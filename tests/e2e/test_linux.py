"""Linux programs in real virtual machines: collected by unictl, prepared by unid, run by the library OS.
Each is compared with the same program on this machine."""

import os
import shutil
import subprocess
import tarfile

import pytest

import harness

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(
        not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"
    ),
]

SOURCE = r"""
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        printf("%s|", argv[i]);
    }
    FILE *f = fopen("/data/words", "r");
    char line[64];
    while (f && fgets(line, sizeof line, f)) {
        printf("%s", line);
    }
    for (int c; (c = getchar()) != EOF;) {
        putchar(toupper(c));
    }
    if (argc > 1 && strcmp(argv[1], "fork") == 0) {
        fprintf(stderr, "fork: %s\n", fork() < 0 ? strerror(errno) : "a child");
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with harness.Daemon(tmp_path_factory.mktemp("unid"), driver="kvm") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The same source: {kind: path}."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "up.c").write_text(SOURCE)
    made = {}
    for kind, flags in (("static", ["-static"]), ("static-pie", ["-static-pie"]), ("dynamic", [])):
        made[kind] = folder / f"up-{kind}"
        subprocess.run(["gcc", "-O2", *flags, "-o", made[kind], folder / "up.c"], check=True)
    return made


def run_here(words, data=b""):
    return subprocess.run([str(w) for w in words], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("kind", ["static", "static-pie", "dynamic"])
def test_program_answers_as_on_the_host(real, programs, kind):
    real.unictl("deploy", kind, programs[kind], "--", "a b", "c").ok()
    for data in (b"", b"some text\n", b"x" * 300000):
        assert real.call(kind, data).ok().body == run_here([programs[kind], "a b", "c"], data)


def test_deploy_lists_what_it_takes_along(real, programs):
    shown = real.unictl("deploy", "listed", programs["dynamic"]).ok().err
    assert "libc.so.6" in shown and "interpreter" in shown and str(programs["dynamic"]) in shown
    deployed = real.unictl("deploy", "listed", programs["dynamic"], "--json").ok().json
    assert {f["why"] for f in deployed["collected"]} >= {"program", "interpreter"}
    assert deployed["program"] == str(programs["dynamic"])
    assert deployed["kind"] == "linux-rootfs" and deployed["interface"] == "filter"
    # The same input is the same image, so nothing is made.
    assert real.unictl("deploy", "listed", programs["dynamic"], "--json").ok().json["version"] == 1


def test_with_takes_files_along_at_their_path(real, programs, tmp_path):
    words = tmp_path / "words"
    words.write_text("of the host\n")
    script = tmp_path / "script"
    script.write_text(f"#!{programs['static']} first\n")
    script.chmod(0o755)
    real.unictl("deploy", "script", script, "--with", words, "--", "last").ok()
    assert real.call("script", b"x").ok().body == f"first|{script}|last|X".encode()


def test_rootfs_is_a_directory_or_an_archive(real, programs, tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data/words").write_text("in the root\n")
    shutil.copy(programs["static"], root / "bin/up")
    real.unictl("deploy", "root", "/bin/up", "--rootfs", root, "--", "x").ok()
    assert real.call("root", b"y").ok().body == b"x|in the root\nY"
    for mode, name in (("w", "plain.tar"), ("w:gz", "packed.tgz"), ("w:xz", "packed.txz")):
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(root, ".")
        real.unictl("deploy", "root", "/bin/up", "--rootfs", tmp_path / name, "--", name).ok()
        assert real.call("root", b"y").ok().body == f"{name}|in the root\nY".encode()
    packed = (tmp_path / "packed.tgz").read_bytes()
    real.unictl("deploy", "root", "/bin/up", "--rootfs", "-", "--", "piped", stdin=packed).ok()
    assert real.call("root", b"z").ok().body == b"piped|in the root\nZ"
    refused = real.unictl("deploy", "root", "/bin/up", "--rootfs", "-", stdin=b"no archive")
    assert refused.status == 1 and "no tar archive" in refused.err
    refused = real.unictl("deploy", "root", "/bin/down", "--rootfs", root)
    assert refused.status == 1 and "/bin/down" in refused.err
    refused = real.unictl("deploy", "root", "/bin/up", "--rootfs", tmp_path / "nowhere")
    assert refused.status == 1 and "nowhere" in refused.err


def test_check_tells_what_a_run_misses(real, programs):
    told = real.unictl("check", programs["dynamic"]).ok().text
    assert "kind: linux-dynamic" in told and "libc.so.6" in told and "it can run" in told
    assert "fork:" in told  # it imports fork(), which is not there
    told = real.unictl("check", programs["static"], "--run", "--data", "x", "--", "fork").ok().text
    assert "calls not there: clone 1" in told or "calls not there: fork 1" in told
    answer = real.unictl("check", programs["static"], "--run", "--json").ok().json
    assert answer["runs"] is True and answer["receipt"]["outcome"] == "ok"
    assert answer["receipt"]["unsupported"] == []
    made = {call["name"]: call["times"] for call in answer["receipt"]["calls_made"]}
    assert made["read"] >= 1 and "fork" not in made
    assert sum(made.values()) == answer["receipt"]["calls"]
    told = real.unictl("check", "/bin/sh", "--run", "--", "-c", "(true); exit 3")  # before its request
    assert told.status == 1 and told.err.count("unsupported system call: clone") == 1
    assert "run: failed: the program ended with status 2" in told.text
    assert "calls not there: clone 1\ncalls made: " in told.text and " clone 1" in told.text
    answer = real.unictl("check", "/bin/sh", "--run", "--json", "--", "-c", "(true)").json
    assert answer["runs"] is True and answer["problem"]["unsupported"] == [{"name": "clone", "times": 1}]
    assert not [f for f in real.unictl("ls", "--json").ok().json["items"]
                if f["name"].startswith("unictl-check")]


def test_memory_follows_the_program(real, programs):
    given = real.unictl("deploy", "mem", programs["static"], "--json").ok().json["memory_mib"]
    assert given > 64 and given % 2 == 0
    assert real.unictl("deploy", "mem", programs["static"], "--memory", "32M",
                       "--json").ok().json["memory_mib"] == 32
    refused = real.unictl("deploy", "mem", programs["static"], "--memory", "2M")
    assert refused.status == 1 and "at least" in refused.err


def test_too_little_memory_is_told_with_what_to_do(real, programs, tmp_path):
    source = tmp_path / "fill.c"
    source.write_text("""#include <fcntl.h>
#include <unistd.h>
int main(void) {
    static char block[65536];
    int fd = open("/tmp/x", O_CREAT | O_WRONLY, 0600);
    while (write(fd, block, sizeof block) > 0) {}
    return 4;
}""")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "fill", source], check=True)
    refused = real.unictl("deploy", "fill", tmp_path / "fill", "--memory", "32M")
    assert refused.status == 1 and refused.err.count("deploy with more --memory") == 1


SERVER = """
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(8000)};
    struct hostent *self;
    char name[80] = "";
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    gethostname(name, sizeof name);
    self = gethostbyname(name);
    fprintf(stderr, "%s is %s\\n", name, self ? "known" : "unknown");
    bind(fd, (struct sockaddr *)&at, sizeof at);
    listen(fd, 1);
    for (;;) {
        sleep(1);
    }
}"""


def test_servers_and_filters_are_told_apart(real, programs, tmp_path):
    refused = real.unictl("deploy", "ends", programs["static"], "-i", "http")
    assert refused.status == 1 and "a server that stays in the foreground" in refused.err
    (tmp_path / "server.c").write_text(SERVER)
    subprocess.run(["gcc", "-o", tmp_path / "server", tmp_path / "server.c"], check=True)
    refused = real.unictl("deploy", "waits", tmp_path / "server", "--timeout", "1s")
    assert refused.status == 1 and "listens on port 8000" in refused.err and "--interface http" in refused.err
    assert "unid is known" in refused.err  # its own name, without the network


def test_files_that_are_missing_at_the_start_are_named(real, programs):
    refused = real.unictl("deploy", "lacks", "/bin/cat", "--", "/etc/no-such-file")
    assert refused.status == 1
    assert "libos: not found before that (--with takes files along): /etc/no-such-file\n" in refused.err


def test_python_of_this_machine(real):
    python = shutil.which("python3", path="/usr/bin")
    library = run_here([python, "-c", "import os; print(os.path.dirname(os.__file__))"]).decode().strip()
    code = "import json, sys; print(json.dumps({'n': len(sys.stdin.read()), 'v': sys.version}))"
    real.unictl("deploy", "python", python, "--with", library, "--", "-c", code).ok()
    assert real.call("python", b"12345").ok().body == run_here([python, "-c", code], b"12345")
