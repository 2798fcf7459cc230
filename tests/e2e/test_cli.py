"""Every verb of unictl against a daemon with the fake driver."""

import json
import re
import subprocess
import sys
import tarfile

import pytest

import harness
from harness import disk_image, sdk_image, wait_for


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "prog"
    path.write_bytes(sdk_image(b"program"))
    return path


@pytest.mark.parametrize("unix", [True, False])
def test_deploy_invoke_and_look(unid, program, unix):
    def run(*words, **more):
        return unid.unictl(*words, unix=unix, **more)

    done = run(
        "deploy",
        "shout",
        program,
        "--memory",
        "16M",
        "--timeout",
        "5s",
        "--concurrency",
        "2",
        "--env",
        "MODE=loud",
        "--driver",
        "fake",
        "--isolation",
        "reset",
        "--",
        "echo",
    ).ok()
    assert done.text.startswith("shout version 1 http://") and "/fn/shout" in done.text
    assert run("invoke", "shout", "--data", "hello").ok().out == b"hello"
    assert (
        run("invoke", "shout", "--data", "-", stdin=b"x" * 3_000_000).ok().out == b"x" * 3_000_000
    )
    row = run("ls").ok().text.splitlines()[1].split()
    assert row[:2] == ["shout", "1"] and "16MiB" in row and "5s" in row
    text = run("describe", "shout").ok().text
    assert (
        "MODE=loud" in text
        and "live -> 1" in text
        and "Recent receipts:" in text
        and "/fn/shout" in text
        and re.search("Driver: +fake\n", text)
        and re.search("Isolation: +reset\n", text)
    )
    assert run("rm", "shout").ok().text == "shout\n"
    assert run("ls").ok().text.splitlines()[1:] == []
    assert run("invoke", "shout").status == 1


def test_deploying_twice_pushes_once(unid, program):
    first = unid.unictl("deploy", "f", program, "--json", "--", "hello").ok().json
    assert unid.unictl("deploy", "f", program, "--json", "--", "hello").ok().json == first
    assert (
        unid.unictl("deploy", "g", first["image"], "--json", "--", "hello").ok().json["version"]
        == 1
    )
    assert len(unid.get("/api/v1/images").ok().json["items"]) == 1


def test_deploy_by_tag(unid, program):
    digest = unid.unictl("image", "push", program, "--tag", "team/app:1").ok().text.strip()
    assert (
        unid.unictl("deploy", "f", "team/app:1", "--json", "--", "hello").ok().json["image"]
        == digest
    )
    done = unid.unictl("deploy", "f", "no-such-thing")
    assert done.status == 1 and "neither a file here nor an image" in done.err


def test_images_are_tagged_untagged_and_named_by_a_beginning(unid, program, tmp_path):
    digest = unid.unictl("image", "push", program, "--tag", "one").ok().text.strip()
    (tmp_path / "other").write_bytes(sdk_image(b"other"))
    other = unid.unictl("image", "push", tmp_path / "other").ok().text.strip()
    short = digest.removeprefix("sha256:")[:8]
    assert unid.unictl("image", "tag", short, "team/app:1").ok().text == f"team/app:1 -> {digest}\n"
    assert unid.unictl("image", "tag", "one", "two", "--json").ok().json["digest"] == digest
    unid.unictl("image", "tag", f"sha256:{short}", "three").ok()
    # A tag that reads like the beginning of another image's digest is still a tag.
    unid.unictl("image", "tag", other, short).ok()
    assert unid.unictl("image", "tag", short, "four", "--json").ok().json["digest"] == other
    heads, first, second = unid.unictl("image", "ls").ok().text.splitlines()
    assert heads.split()[-1] == "TAGS"
    assert first.endswith("  one, team/app:1, three, two") and second.endswith(f"  {short}, four")
    for ref in ("nothing", "00000000", "sha256:" + "0" * 10):
        done = unid.unictl("image", "tag", ref, "x")
        assert done.status == 1 and f"no image {ref}" in done.err
    assert unid.unictl("image", "tag", "sha256:" + "0" * 64, "x").status == 1
    assert unid.unictl("image", "tag", "one", "no good").status == 1
    assert unid.unictl("image", "untag", "team/app:1").ok().text == "team/app:1\n"
    assert unid.unictl("image", "untag", "team/app:1").status == 1
    assert unid.unictl("image", "untag", "one", "--json").ok().json == {"removed": ["one"]}
    assert unid.unictl("image", "rm", short).ok().text == digest + "\n"
    assert unid.unictl("image", "rm", short).status == 1
    assert unid.unictl("image", "rm", "four").status == 2
    for tag in (short, "four"):
        unid.unictl("image", "untag", tag).ok()
    assert unid.unictl("image", "ls").ok().text.splitlines()[1].endswith(" -")


def test_deploy_of_what_cannot_run_says_what_to_do(make_unid, tmp_path):
    unid = make_unid(flags=["--set", "machines.network=none"]).start()
    (tmp_path / "disk").write_bytes(disk_image())
    done = unid.unictl("deploy", "f", tmp_path / "disk")
    assert done.status == 1 and "disk" in done.err and "unid-cc" in done.err
    (tmp_path / "prog").write_bytes(sdk_image().replace(b"unid\0", b"none\0"))
    done = unid.unictl("deploy", "f", tmp_path / "prog")
    assert done.status == 1 and "0x200000" in done.err and "library OS" in done.err
    done = unid.unictl("check", tmp_path / "prog")
    assert done.status == 1 and "problem: " in done.text and "it cannot run" in done.text
    done = unid.unictl("check", tmp_path / "prog", "--json")
    assert done.status == 1 and done.json["runs"] is False and done.json["report"]["problems"]
    (tmp_path / "nowhere").symlink_to("gone")
    done = unid.unictl("deploy", "f", tmp_path / "nowhere")
    assert done.status == 1 and "nowhere: a link that leads nowhere" in done.err
    (tmp_path / "plain").write_text("echo hello\n")
    done = unid.unictl("deploy", "f", tmp_path / "plain")
    assert done.status == 1 and "its first line begins with #!" in done.err
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(sys.executable, "bin/prog")
    done = unid.unictl("deploy", "f", tmp_path / "root.tar")
    assert done.status == 1 and "--rootfs TAR" in done.err
    assert unid.unictl("ls", "--json").ok().json["items"] == []


def test_what_is_not_as_unictl_has_it_is_told_with_the_way_to_say_it(unid, program):
    """As those do who come from other tools."""
    twice = unid.unictl("deploy", "web", program, "--publish", "8080:80")
    assert twice.status == 2 and "--publish 8080" in twice.err and "--port 80" in twice.err
    nothing = unid.unictl("deploy", "web", "")
    assert nothing.status == 2 and "empty" in nothing.err
    assert unid.unictl("receipts", "--since", "7d").ok()
    unknown = unid.unictl("receipts", "--status", "fialed")
    assert unknown.status == 1 and "ok, failed" in unknown.err
    for noun in ("trigger", "volume"):
        gone = unid.unictl(noun, "rm", "one", "two")
        assert gone.status == 1 and f"no {noun} one" in gone.err and f"no {noun} two" in gone.err
    untagged = unid.unictl("image", "untag", "one")
    assert untagged.status == 1 and "no tag one" in untagged.err
    assert "no trigger one" in unid.unictl("trigger", "show", "one").err


def test_versions_and_rollback(unid, program):
    for n in (1, 2, 3):
        unid.unictl("deploy", "f", program, "--", "size", n).ok()
    rows = unid.unictl("versions", "f").ok().text.splitlines()[1:]
    assert [r.split()[1] for r in rows] == ["3", "2", "1"]
    assert unid.unictl("rollback", "f").ok().text == "f version 2 is live\n"
    rows = unid.unictl("versions", "f").ok().text.splitlines()[1:]
    assert [r.split()[-2:] for r in rows] == [["-", "-"], ["live", "-"], ["-", "-"]]
    assert len(unid.unictl("invoke", "f").ok().out) == 2
    assert unid.unictl("rollback", "f", "1", "--json").ok().json["version"] == 1
    assert len(unid.unictl("invoke", "f:3").ok().out) == 3
    assert unid.unictl("rollback", "f").status == 1
    assert unid.unictl("rollback", "f", "9").status == 1


def test_aliases_are_set_listed_and_removed(unid, program):
    unid.unictl("deploy", "f", program, "--", "status", "201").ok()
    unid.unictl("deploy", "f", program, "--", "status", "202").ok()
    assert unid.unictl("alias", "set", "f", "stable", "1").ok().text == "f:stable is version 1\n"
    assert "201" in unid.unictl("invoke", "f:stable", "--include").ok().err
    rows = [line.split() for line in unid.unictl("alias", "ls", "f").ok().text.splitlines()]
    assert rows == [["ALIAS", "VERSION"], ["live", "2"], ["stable", "1"]]
    assert unid.unictl("alias", "set", "f", "stable", "2", "--json").ok().json == {"alias": "stable", "version": 2}
    assert unid.unictl("alias", "rm", "f", "stable").ok().text == "stable\n"
    assert unid.unictl("alias", "set", "f", "stable", "0").status == 2
    assert unid.unictl("alias", "set", "f", "stable").status == 2
    for refused in (["rm", "f", "stable"], ["rm", "f", "live"], ["set", "f", "stable", "9"], ["ls", "g"]):
        assert unid.unictl("alias", *refused).status == 1, refused
    unid.unictl("alias", "set", "f", "live", "1").ok()
    assert "201" in unid.unictl("invoke", "f", "--include").ok().err


def deploy_failing(unid, program, behaviour):
    """With a time limit that only what never ends comes to."""
    limit = "300ms" if behaviour == ["spin"] else "30s"
    unid.unictl("deploy", "f", program, "--timeout", limit, "--", *behaviour).ok()


@pytest.mark.parametrize(
    "behaviour, code, word",
    [
        (["exit", "3", "out of cheese"], 4, "out of cheese"),
        (["crash"], 4, "page fault"),
        (["lost"], 4, ""),
        (["late-exit", "1"], 4, "middle of its answer"),
        (["spin"], 5, ""),
        (["status", "500"], 4, "answered 500"),
        (["status", "404"], 0, ""),
    ],
)
def test_exit_status_says_how_it_went(unid, program, behaviour, code, word):
    deploy_failing(unid, program, behaviour)
    done = unid.unictl("invoke", "f")
    assert done.status == code and word in done.err


def test_async_invocation_and_its_receipt(unid, program):
    unid.unictl("deploy", "f", program, "--", "count").ok()
    invocation = unid.unictl("invoke", "f", "--async", "--data", "12345").ok().text.strip()
    unid.receipt(invocation)
    text = unid.unictl("receipt", invocation).ok().text
    assert "ok (200, done)" in text and "by async, attempt 1" in text and "5B in" in text
    assert [l.split()[0] for l in text.splitlines()[-8:]] == [
        "queue",
        "shell",
        "bind",
        "start",
        "first",
        "run",
        "teardown",
        "total",
    ]
    assert unid.unictl("receipt", invocation, "--json").ok().json["id"] == invocation
    assert unid.unictl("invoke", "f", "--async", "--json").ok().json["id"]
    assert unid.unictl("receipt", "01" + "0" * 24).status == 1


def test_receipts_are_listed(unid, program):
    unid.unictl("deploy", "f", program, "--", "hello").ok()
    unid.unictl("deploy", "g", program, "--", "crash").ok()
    for name in "ffgf":
        last = unid.call(name).headers["X-Unid-Invocation-Id"]
    unid.receipt(last)
    assert len(unid.unictl("receipts").ok().text.splitlines()) == 5
    assert len(unid.unictl("receipts", "f").ok().text.splitlines()) == 4
    assert [
        r["function"]
        for r in unid.unictl("receipts", "--status", "failed", "--json").ok().json["items"]
    ] == ["g"]
    newest = max(r["id"] for r in unid.unictl("receipts", "--json").ok().json["items"])
    assert [r["id"] for r in unid.unictl("receipts", "-n1", "--json").ok().json["items"]] == [
        newest
    ]


PHASES = ["queue_us", "shell_us", "bind_us", "start_us", "first_byte_us", "run_us", "teardown_us"]


def test_bench_shows_where_the_time_goes(unid, program):
    unid.unictl("deploy", "f", program, "--", "sleep", 20).ok()
    text = unid.unictl("bench", "f", "-n", 5, "--warmup", 1).ok().text.splitlines()
    assert text[0] == (
        "f version 1, driver fake: 5 requests one after the other, 5 of 5 in a fresh VM"
    )
    assert text[2].split() == ["PHASE", "P50", "P90", "P99", "MAX", "MEANING"]
    assert not any(line != line.rstrip() for line in text)
    client = next(line for line in text if line.startswith("at the client"))
    assert all(float(word.removesuffix("ms")) >= 20 for word in client.split()[3:7])
    assert len(unid.get("/api/v1/invocations?function=f").json["items"]) == 6


@pytest.mark.parametrize("unix", [True, False])
def test_bench_counts_only_its_own_requests(unid, program, unix):
    """Others call the same function before and after, and the warm-up does not count either."""
    unid.unictl("deploy", "f", program, "--", "count").ok()
    unid.unictl("deploy", "f", program, "--", "hello").ok()
    for _ in range(30):
        unid.call("f").ok()
    done = unid.unictl(
        "bench", "f:1", "-n", 20, "--warmup", 3, "--data", "@-", "--json",
        stdin=b"x" * 70_000, unix=unix,
    ).ok().json  # fmt: skip
    assert (done["function"], done["version"], done["driver"]) == ("f", 1, "fake")
    assert (done["requests"], done["receipts"], done["fresh"]) == (20, 20, 20)
    assert list(done["times"]) == [
        *PHASES,
        "total_us",
        "to_first_byte_us",
        "client_first_byte_us",
    ]
    for spread in done["times"].values():
        assert spread["p50"] <= spread["p90"] <= spread["p99"] <= spread["max"]
    times = done["times"]
    assert 0 < times["to_first_byte_us"]["p50"] <= times["total_us"]["p50"]
    assert times["client_first_byte_us"]["p50"] >= times["to_first_byte_us"]["p50"]
    receipts = unid.get("/api/v1/invocations?function=f&limit=100").json["items"]
    assert sorted(r["bytes_in"] for r in receipts) == [0] * 30 + [70_000] * 23


@pytest.mark.parametrize(
    "behaviour, code, word",
    [(["crash"], 4, "page fault"), (["spin"], 5, ""), (["status", "500"], 4, "answered 500")],
)
def test_bench_ends_at_the_first_failure(unid, program, behaviour, code, word):
    deploy_failing(unid, program, behaviour)
    done = unid.unictl("bench", "f")
    assert done.status == code and word in done.err and done.out == b""


def test_ps_shows_what_runs(unid, program):
    unid.unictl("deploy", "f", program, "--timeout", "1m", "--", "spin").ok()
    process = subprocess.Popen(
        [harness.UNICTL, "--host", f"unix://{unid.socket}", "invoke", "f"], stderr=subprocess.PIPE
    )
    row = wait_for(
        lambda: [l.split() for l in unid.unictl("ps").ok().text.splitlines() if " running " in l],
        "it runs",
    )[0]
    assert row[1:3] == ["running", "f"] and row[4] == "fake"
    assert any(i["id"] == row[0] for i in unid.unictl("ps", "--json").ok().json["items"])
    unid.delete(f"/api/v1/instances/{row[0]}").ok(204)
    assert process.wait(harness.ANSWER_S) == 4
    process.stderr.close()


def test_logs_are_shown_and_followed(unid, program):
    unid.unictl("deploy", "f", program, "--", "log", "one", "two").ok()
    invocation = unid.call("f").ok().headers["X-Unid-Invocation-Id"]
    wait_for(lambda: len(unid.unictl("logs", "f").ok().text.splitlines()) == 2, "the log is there")
    assert [l.split("  ")[1:] for l in unid.unictl("logs", "f").text.splitlines()] == [
        [invocation, "one"],
        [invocation, "two"],
    ]
    entries = [
        json.loads(l) for l in unid.unictl("logs", "f", "-n1", "--json").ok().text.splitlines()
    ]
    assert [e["text"] for e in entries] == ["two"]
    process = subprocess.Popen(
        [harness.UNICTL, "--host", f"unix://{unid.socket}", "logs", "f", "-f"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline().endswith(b"one\n") and process.stdout.readline().endswith(
        b"two\n"
    )
    unid.call("f").ok()
    assert process.stdout.readline().endswith(b"one\n")
    process.terminate()
    process.wait()
    process.stdout.close()


def test_images_are_pushed_listed_and_removed(unid, program, tmp_path):
    digest = unid.unictl("image", "push", program).ok().text.strip()
    assert unid.unictl("image", "push", program, "--json").ok().json["digest"] == digest
    assert unid.unictl("image", "ls").ok().text.splitlines()[1].split()[:2] == [digest, "sdk"]
    assert unid.unictl("image", "ls", "--json").ok().json["items"][0]["digest"] == digest
    assert unid.unictl("image", "rm", digest).ok().text == digest + "\n"
    assert unid.unictl("image", "rm", digest).status == 1
    (tmp_path / "text").write_text("no image\n")
    done = unid.unictl("image", "push", tmp_path / "text")
    assert done.status == 1 and done.err.startswith("unictl: ")


def test_every_listing_has_a_json_form(unid, program):
    unid.unictl("deploy", "f", program, "--", "hello").ok()
    unid.call("f").ok()
    for words in (("ls",), ("versions", "f"), ("ps",), ("receipts",), ("image", "ls")):
        assert "items" in unid.unictl(*words, "--json").ok().json
    described = unid.unictl("describe", "f", "--json").ok().json
    assert described["name"] == "f" and described["aliases"] == [{"alias": "live", "version": 1}]
    assert unid.unictl("invoke", "f", "--json").ok().json["status"] == 200
    some = unid.unictl("rm", "f", "nobody", "--json")
    assert some.status == 1 and '"no function nobody"' in some.text
    assert json.loads(some.text[some.text.index("}") + 1:]) == {"removed": ["f"]}


def test_version_shows_both_sides(unid):
    text = unid.unictl("version").ok().text.splitlines()
    assert (
        text[0].startswith("unictl ") and text[1].startswith("unid ") and "driver fake" in text[1]
    )
    both = unid.unictl("version", "--json").ok().json
    assert both["unictl"] and both["version"] and both["driver"] == "fake"
    assert unid.unictl("--version").ok().text == text[0] + "\n"


def test_both_know_the_same_flavors(unid, program):
    here = unid.unictl("deploy", "f", program, "--flavor", "nonsense")
    there = unid.unictl("deploy", "f", program, "--machine", "--json")  # as far as the image
    body = {"image": "sha256:" + "0" * 64, "machine": {"flavor": "nonsense"}}
    detail = unid.put("/api/v1/functions/f", body).problem(400)["detail"]
    assert here.status == 2 and there.status == 1
    assert here.err.splitlines()[0].split("is none of ")[1] == detail.split("is none of ")[1]


def test_check_of_an_image_takes_a_program(unid, tmp_path):
    """A root file system with two programs, which names neither."""
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        tar.add("/bin/busybox", "bin/other")
    digest = unid.unictl("image", "push", archive).ok().text.split()[0]
    told = unid.unictl("check", digest, "--program", "/bin/other").ok().text
    assert "program: /bin/other\n" in told and "it can run" in told
    assert unid.unictl("check", digest, "--program", "/bin/busybox", "--json").ok().json["runs"]
    wrong = unid.unictl("check", digest, "--program", "/bin/none")
    assert wrong.status == 1 and "/bin/none: the program is not in the root file system" in wrong.text
    assert unid.unictl("check", digest, "--program", "none").status == 1
    unid.post(f"/api/v1/images/{digest}/check?program=none").problem(400)
    assert "program: \n" in unid.unictl("check", digest).ok().text


def test_doctor_asks_the_daemon(unid):
    report = unid.unictl("doctor", "--json").ok().json
    checks = [f["check"] for f in report["findings"]]
    assert {"kvm", "qemu", "tmpfs"} <= set(checks) and len(set(checks)) == len(checks)
    assert all(f["status"] in ("ok", "warn", "fail", "skip") for f in report["findings"])
    assert all(f["status"] in ("ok", "skip") or f["fix"] for f in report["findings"])
    assert any(d["name"] == "fake" and d["usable"] for d in report["drivers"])
    said = {f["check"]: f["detail"] for f in report["findings"]}
    assert said["state-dir"] == f"{unid.state} is in use"  # not where the next one's would be
    assert said["runtime-dir"] == f"{unid.socket} is listened on"
    assert "DRIVER" in unid.unictl("doctor").ok().text


def test_reader_that_leaves_early_is_no_error_message(unid, program):
    unid.unictl("deploy", "f", program, "--", "size", 50_000_000).ok()
    process = subprocess.Popen(
        [harness.UNICTL, "--host", f"unix://{unid.socket}", "invoke", "f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.read(1000)
    process.stdout.close()
    assert process.wait(harness.ANSWER_S) != 0
    assert process.stderr.read() == b""
    process.stderr.close()
