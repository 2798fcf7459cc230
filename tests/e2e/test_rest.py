"""The REST interface as docs/openapi.yaml describes it, with the fake driver: what each route does,
and each way it refuses."""

import base64
import concurrent.futures
import contextlib
import hashlib
import json
import re
import sqlite3
import subprocess
from urllib.parse import quote

import pytest

import harness
from harness import disk_image, sdk_image, wait_for

ULID = re.compile(r"^[0-9A-HJKMNP-TV-Z]{26}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
NO_DIGEST = "sha256:" + "0" * 64
NO_ID = "01" + "0" * 24


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def content_digest(data):
    return "sha-256=:" + base64.b64encode(hashlib.sha256(data).digest()).decode() + ":"


# --- system ---------------------------------------------------------------------------------------


def test_problems_are_whole_and_say_what_to_do(shared):
    shared.deploy("told", "echo")
    calls = "/api/v1/functions/told/invocations"
    assert "alias ?" in shared.post(f"{calls}?mode=async&qualifier=%ff", b"x").problem(404)["detail"]
    other = shared.request("PATCH", "/api/v1/functions/told")
    assert "GET" in other.problem(405)["detail"] and "GET" in other.headers["Allow"]
    body = {"imag": "x"}
    assert "image: is missing" in shared.put("/api/v1/functions/told", body).problem(400)["detail"]
    nul = shared.put("/api/v1/functions/told", b'{"image":"x","args":["a\\u0000b"]}',
                     headers={"Content-Type": "application/json"}).problem(400)
    assert "must not have \\u0000" in nul["detail"]
    assert "failed" in shared.get("/api/v1/invocations?status=fialed").problem(400)["detail"]
    for known in ("ok", "failed", "no-function", "interrupted", "502", ""):
        shared.get(f"/api/v1/invocations?status={known}").ok()


def test_health_readiness_and_version(shared):
    assert shared.get("/healthz").ok().json == {"status": "ok"}
    assert shared.get("/readyz").ok().json == {"status": "ready"}
    version = shared.get("/api/v1/version").ok().json
    assert version["api"] == "v1" and version["driver"] == "fake"
    assert re.match(r"^\d+\.\d+\.\d+", version["version"])


def test_openapi_document_is_the_one_in_the_tree(shared):
    answer = shared.get("/api/v1/openapi.yaml").ok()
    assert answer.body == (harness.ROOT / "docs/openapi.yaml").read_bytes()
    assert "yaml" in answer.headers["Content-Type"]


def test_metrics_are_prometheus_text(shared, name):
    shared.deploy(name, "hello")
    shared.call(name).ok()
    answer = shared.get("/metrics").ok()
    assert answer.headers["Content-Type"].startswith("text/plain")
    names = set()
    for line in answer.body.decode().splitlines():
        if line and not line.startswith("#"):
            match = re.match(r"^([a-z_:][a-z0-9_:]*)(\{[^}]*\})? [-+0-9.eE]+(inf|nan)?$", line)
            assert match, line
            names.add(match.group(1))
    assert any(n.startswith("unid_") for n in names)


def test_doctor_reports_the_driver(shared):
    report = shared.get("/api/v1/doctor").ok().json
    assert all(f["status"] in ("ok", "warn", "fail", "skip") for f in report["findings"])
    driver = [d for d in report["drivers"] if d["name"] == "fake"][0]
    assert driver["usable"] and driver["start_us"] >= 0 and driver["detail"] is not None


def test_unix_socket_serves_the_same(shared):
    assert shared.get("/healthz", unix=True).ok().json == {"status": "ok"}
    assert shared.get("/api/v1/functions", unix=True).ok().json["items"] is not None


def test_head_answers_like_get_without_a_body(shared):
    get, head = shared.get("/api/v1/version"), shared.request("HEAD", "/api/v1/version")
    assert head.status == 200 and head.body == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_unknown_paths_are_404_and_wrong_methods_405(shared):
    for path in ("/", "/api", "/api/v1/nothing", "/fn", "/fn/", "/api/v1/functions/a/b/c"):
        shared.get(path).problem(404)
    answer = shared.post("/api/v1/version")
    answer.problem(405)
    assert "GET" in answer.headers["Allow"]
    shared.delete("/api/v1/functions").problem(405)
    shared.post("/healthz").problem(405)


def test_paths_that_climb_or_do_not_decode_are_refused(shared):
    for path in (
        "/api/v1/../v1/version",
        "/api/v1/functions/%2e%2e/x",
        "/api/v1/functions/%zz",
        "/fn/a/%2",
    ):
        assert shared.get(path).status == 400, path


# --- images ---------------------------------------------------------------------------------------


def test_image_is_stored_once_and_given_back_byte_for_byte(shared):
    data = sdk_image(b"once", size=300_001)
    first = shared.post("/api/v1/images", data)
    image = first.ok(201).json
    assert image["digest"] == digest_of(data)
    assert (image["kind"], image["size"], image["function_versions"]) == ("sdk", len(data), 0)
    assert TIME.match(image["created_at"])
    assert shared.post("/api/v1/images", data).ok(200).json["digest"] == image["digest"]
    listed = [
        i for i in shared.get("/api/v1/images").ok().json["items"] if i["digest"] == image["digest"]
    ]
    assert len(listed) == 1
    assert shared.get(f"/api/v1/images/{image['digest']}").ok().json == image
    content = shared.get(f"/api/v1/images/{image['digest']}/content").ok()
    assert content.body == data
    assert content.headers["Content-Digest"] == content_digest(data)


def test_declared_digest_is_checked(shared):
    data = sdk_image(b"declared")
    shared.post(f"/api/v1/images?digest={digest_of(data)}", data).ok(201)
    shared.post("/api/v1/images", data, headers={"Content-Digest": content_digest(data)}).ok(200)
    other = sdk_image(b"other than declared")
    shared.post(f"/api/v1/images?digest={digest_of(data)}", other).problem(400)
    shared.post("/api/v1/images", other, headers={"Content-Digest": content_digest(data)}).problem(
        400
    )
    shared.post("/api/v1/images?digest=sha256:short", other).problem(400)
    shared.post("/api/v1/images", other, headers={"Content-Digest": "sha-256=:!!:"}).problem(400)
    shared.get(f"/api/v1/images/{digest_of(other)}").problem(404)


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "empty"),
        (b"just text\n", "nothing known"),
        (b"\x7fELF", "cut in its header"),
        (sdk_image()[:100], "cut in its program headers"),
        (sdk_image(size=10_000)[:5_000], "segment past the end"),
        (sdk_image()[:18] + b"\xb7\0" + sdk_image()[20:], "another machine"),
        (sdk_image()[:24] + b"\xff" * 8 + sdk_image()[32:], "entry point nowhere"),
        (sdk_image()[:104] + b"\xff" * 8 + sdk_image()[112:], "absurd memory size"),
    ],
)
def test_what_is_no_image_is_refused_and_not_kept(shared, data, why):
    answer = shared.post("/api/v1/images", data)
    assert answer.status in (400, 422), (why, answer)
    assert answer.problem()["detail"]
    shared.get(f"/api/v1/images/{digest_of(data)}").problem(404)


def test_upload_that_breaks_off_leaves_nothing(shared):
    data = sdk_image(b"broken", size=2_000_000)
    sock = shared.raw()
    sock.sendall(
        b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data)
    )
    sock.sendall(data[:1_000_000])
    sock.close()
    shared.get(f"/api/v1/images/{digest_of(data)}").problem(404)
    shared.post("/api/v1/images", data).ok(201)


def test_chunked_upload_is_the_same_image(shared):
    data = sdk_image(b"chunked", size=500_000)
    pieces = (data[i : i + 33_333] for i in range(0, len(data), 33_333))
    answer = shared.post("/api/v1/images", pieces, headers={"Transfer-Encoding": "chunked"})
    assert answer.ok(201).json["digest"] == digest_of(data)


def test_image_over_the_limit_is_413(make_unid):
    unid = make_unid(flags=["--set", "images.max_bytes=1000000"]).start()
    unid.post("/api/v1/images", sdk_image(size=1_000_000)).ok(201)
    unid.post("/api/v1/images", sdk_image(size=1_000_001)).problem(413)
    pieces = iter([sdk_image(size=600_000), b"x" * 600_000])
    unid.post("/api/v1/images", pieces, headers={"Transfer-Encoding": "chunked"}).problem(413)
    assert len(unid.get("/api/v1/images").ok().json["items"]) == 1


def test_full_disk_is_507_and_changes_nothing(make_unid):
    unid = make_unid()
    unid.state.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", unid.state],
        check=False,
        capture_output=True,
    )
    if mount.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    unid.may_log_errors = True
    try:
        unid.start()
        small = unid.push(sdk_image(b"small"))
        unid.deploy("f", "hello", image=small)
        data = sdk_image(b"large", size=70_000_000)
        unid.post("/api/v1/images", data).problem(507)
        unid.get(f"/api/v1/images/{digest_of(data)}").problem(404)
        unid.call("f").ok()
        unid.stop()
        unid.start()
        unid.call("f").ok()
        assert [i["digest"] for i in unid.get("/api/v1/images").ok().json["items"]] == [small]
        unid.stop()
    finally:
        if unid.process:
            unid.kill()
        subprocess.run(["umount", unid.state], check=True)


def test_tags_point_at_images(shared):
    one, two = shared.push(sdk_image(b"tag one")), shared.push(sdk_image(b"tag two"))
    assert shared.put("/api/v1/tags/team%2Fapp:1", {"digest": one}).ok().json == {
        "tag": "team/app:1",
        "digest": one,
    }
    assert shared.get("/api/v1/images/team%2Fapp:1").ok().json["digest"] == one
    shared.put("/api/v1/tags/team%2Fapp:1", {"digest": two}).ok()
    assert shared.get("/api/v1/images/team%2Fapp:1").ok().json["digest"] == two
    assert (
        shared.post("/api/v1/images?tag=pushed", sdk_image(b"tag one")).ok(200).json["tag"]
        == "pushed"
    )
    assert shared.get("/api/v1/images/pushed").ok().json["digest"] == one
    shared.put("/api/v1/tags/x", {"digest": NO_DIGEST}).problem(404)
    for body in ({"digest": "nonsense"}, {}, {"digest": one, "more": 1}):
        shared.put("/api/v1/tags/x", body).problem(400)
    shared.put("/api/v1/tags/with%20space", {"digest": one}).problem(400)
    shared.put(f"/api/v1/tags/{NO_DIGEST}", {"digest": one}).problem(400)


def test_tags_are_listed_and_removed(unid):
    one, two = unid.push(sdk_image(b"tag one")), unid.push(sdk_image(b"tag two"))
    assert unid.get("/api/v1/tags").ok().json == {"items": [], "next": None}
    for tag, digest in (("z", one), ("team/app:1", two), ("a", one)):
        unid.put(f"/api/v1/tags/{quote(tag, safe='')}", {"digest": digest}).ok()
    assert unid.get("/api/v1/tags").ok().json["items"] == [
        {"tag": "a", "digest": one},
        {"tag": "team/app:1", "digest": two},
        {"tag": "z", "digest": one},
    ]
    assert {i["digest"]: i["tags"] for i in unid.get("/api/v1/images").ok().json["items"]} == {
        one: ["a", "z"],
        two: ["team/app:1"],
    }
    assert unid.get("/api/v1/images/z").ok().json["tags"] == ["a", "z"]
    pushed = unid.post("/api/v1/images?tag=again", sdk_image(b"tag one")).ok(200).json
    assert pushed["tag"] == "again" and pushed["tags"] == ["a", "again", "z"]
    unid.delete("/api/v1/tags/team%2Fapp:1").ok(204)
    unid.delete("/api/v1/tags/team%2Fapp:1").problem(404)
    unid.delete("/api/v1/tags/with%20space").problem(404)
    unid.get("/api/v1/images/team%2Fapp:1").problem(404)
    assert unid.get(f"/api/v1/images/{two}").ok().json["tags"] == []
    unid.delete(f"/api/v1/images/{one}").ok(204)
    assert unid.get("/api/v1/tags").ok().json["items"] == []
    unid.post("/api/v1/images?tag=..", sdk_image(b"tag two")).problem(400)


def test_image_is_removed_only_when_nothing_needs_it(shared, name):
    digest = shared.push(sdk_image(b"to be removed"))
    shared.deploy(name, "hello", image=digest)
    assert name in shared.delete(f"/api/v1/images/{digest}").problem(409)["detail"]
    assert shared.get(f"/api/v1/images/{digest}").ok().json["function_versions"] == 1
    shared.delete(f"/api/v1/functions/{name}").ok(204)
    shared.delete(f"/api/v1/images/{digest}").ok(204)
    shared.get(f"/api/v1/images/{digest}").problem(404)
    shared.get(f"/api/v1/images/{digest}/content").problem(404)
    shared.delete(f"/api/v1/images/{digest}").problem(404)
    shared.delete("/api/v1/images/some-tag").problem(400)


def test_unknown_images_are_404(shared):
    for ref in (NO_DIGEST, "no-tag", "a%2Fb"):
        shared.get(f"/api/v1/images/{ref}").problem(404)
        shared.get(f"/api/v1/images/{ref}/content").problem(404)
    shared.delete(f"/api/v1/images/{NO_DIGEST}").problem(404)


# --- functions ------------------------------------------------------------------------------------


def test_deploy_makes_numbered_versions_and_changes_nothing_twice(shared, name):
    digest = shared.push()
    config = {
        "image": digest,
        "args": ["hello"],
        "env": {"A": "1"},
        "memory_mib": 16,
        "timeout_ms": 5000,
        "concurrency": 3,
    }
    answer = shared.put(f"/api/v1/functions/{name}", config)
    first = answer.ok(201).json
    assert answer.headers["Location"] == f"/api/v1/functions/{name}"
    assert first["version"] == 1 and first["url"].startswith("http://127.0.0.1:") and first["url"].endswith(f"/fn/{name}") and first["name"] == name
    assert {k: first[k] for k in config} == config
    assert (first["kind"], first["image_size"]) == ("sdk", len(sdk_image()))
    assert TIME.match(first["created_at"])
    assert shared.put(f"/api/v1/functions/{name}", config).ok(200).json == first
    second = shared.put(f"/api/v1/functions/{name}", {**config, "memory_mib": 32}).ok(200).json
    assert second["version"] == 2
    assert shared.get(f"/api/v1/functions/{name}").ok().json == second
    assert shared.get(f"/api/v1/functions/{name}?qualifier=1").ok().json == first
    versions = shared.get(f"/api/v1/functions/{name}/versions").ok().json["items"]
    assert [v["version"] for v in versions] == [2, 1]


def test_driver_and_isolation_are_kept_with_the_version(shared, name):
    plain = shared.deploy(name, "hello")
    assert (plain["driver"], plain["isolation"]) == ("auto", "vm")
    said = shared.deploy(name, "hello", driver="auto", isolation="vm")
    assert said["version"] == 1
    assert plain["snapshot"] == "ready"
    reset = shared.deploy(name, "hello", driver="fake", isolation="reset")
    assert (reset["driver"], reset["isolation"], reset["version"]) == ("fake", "reset", 2)
    assert shared.get(f"/api/v1/functions/{name}").ok().json == reset
    text = shared.unictl("describe", name).ok().text
    assert re.search(r"^Driver: +fake$", text, re.M)
    assert re.search(r"^Isolation: +reset$", text, re.M)


def test_program_that_fails_before_it_asks_is_not_deployed(shared, name):
    config = {"image": shared.push(), "args": ["stillborn", "no configuration"]}
    problem = shared.put(f"/api/v1/functions/{name}", config).problem(422)
    assert "before it asked for a request" in problem["detail"]
    assert problem["log_tail"] == "no configuration\n"
    shared.get(f"/api/v1/functions/{name}").problem(404)
    shared.deploy(name, "hello")
    shared.put(f"/api/v1/functions/{name}", config).problem(422)
    assert shared.get(f"/api/v1/functions/{name}").ok().json["version"] == 1


def test_function_of_a_driver_that_is_not_there_says_which_are(shared, name):
    shared.deploy(name, "hello", driver="kvm")
    problem = shared.call(name).problem(503)
    assert problem["outcome"] == "cannot-run"
    assert "the driver kvm" in problem["detail"] and "has fake" in problem["detail"]
    assert shared.receipt(problem["invocation_id"])["driver"] == "kvm"


def test_reset_uses_a_vm_again_and_the_receipts_say_so(unid):
    unid.deploy("f", "echo", isolation="reset")

    def call():
        answer = unid.call("f", b"x" * 100_000).ok()
        assert answer.body == b"x" * 100_000
        receipt = unid.receipt(answer.headers["X-Unid-Invocation-Id"])
        wait_for(lambda: [i for i in unid.instances() if i["state"] == "warm"], "it is kept")
        return receipt["fresh"]

    assert [call() for _ in range(4)] == [True, False, False, False]
    kept = [i for i in unid.instances() if i["state"] == "warm"]
    assert [(i["function"], i["version"], i["driver"]) for i in kept] == [("f", 1, "fake")]
    assert "warm" in unid.unictl("ps").ok().text
    metrics = unid.get("/metrics").ok().body.decode()
    assert 'unid_instances{state="warm"} 1\n' in metrics and "unid_recycled_total 4\n" in metrics
    assert 'unid_driver_instances{driver="fake"}' in metrics
    unid.deploy("f", "echo", isolation="vm")
    wait_for(lambda: not [i for i in unid.instances() if i["state"] == "warm"], "it is let go")
    assert [unid.receipt(unid.call("f").ok().headers["X-Unid-Invocation-Id"])["fresh"]] == [True]


def test_image_of_a_function_may_be_a_tag_and_stays_what_it_was(shared, name):
    one, two = shared.push(sdk_image(b"moving 1")), shared.push(sdk_image(b"moving 2"))
    shared.put(f"/api/v1/tags/{name}-tag", {"digest": one}).ok()
    assert shared.deploy(name, "hello", image=f"{name}-tag")["image"] == one
    shared.put(f"/api/v1/tags/{name}-tag", {"digest": two}).ok()
    assert shared.get(f"/api/v1/functions/{name}").ok().json["image"] == one


def test_image_that_no_driver_runs_is_422_and_changes_nothing(make_unid, name):
    shared = make_unid(flags=["--set", "machines.network=none"]).start()
    linux = shared.push(disk_image(name.encode()))
    assert shared.get(f"/api/v1/images/{linux}").ok().json["kind"] == "disk"
    detail = shared.put(f"/api/v1/functions/{name}", {"image": linux}).problem(422)["detail"]
    assert "disk" in detail and "machine images" in detail and "unid-cc" in detail
    check = shared.post(f"/api/v1/images/{linux}/check").ok().json
    assert check["runs"] is False and check["error"] == detail and check["report"] is None
    shared.get(f"/api/v1/functions/{name}").problem(404)
    first = shared.deploy(name, "hello")
    shared.put(f"/api/v1/functions/{name}", {"image": linux}).problem(422)
    assert shared.get(f"/api/v1/functions/{name}/versions").ok().json["items"] == [first]
    shared.call(name).ok()
    shared.delete(f"/api/v1/images/{linux}").ok(204)


def test_linux_program_that_cannot_be_prepared_is_422_with_the_report(shared, name):
    linux = shared.push(sdk_image(name.encode()).replace(b"unid\0", b"none\0"))
    assert shared.get(f"/api/v1/images/{linux}").ok().json["kind"] == "linux-static"
    problem = shared.put(f"/api/v1/functions/{name}", {"image": linux}).problem(422)
    assert problem["type"] == "/problems/program-refused" and "0x200000" in problem["detail"]
    assert problem["report"]["problems"] == [problem["detail"]]
    shared.get(f"/api/v1/functions/{name}").problem(404)
    check = shared.post(f"/api/v1/images/{linux}/check").ok().json
    assert (check["runs"], check["error"], check["report"]) == (False, problem["detail"], problem["report"])
    shared.post(f"/api/v1/images/{'sha256:' + '0' * 64}/check").problem(404)
    shared.delete(f"/api/v1/images/{linux}").ok(204)


def test_program_is_for_images_with_a_root_file_system(shared, name):
    problem = shared.put(f"/api/v1/functions/{name}",
                         {"image": shared.push(sdk_image(b"hello")), "program": "/bin/x"}).problem(400)
    assert "program: an image of kind sdk" in problem["detail"]
    for bad in ("bin/x", "", 1):
        assert "program: must be" in shared.put(
            f"/api/v1/functions/{name}",
            {"image": shared.push(sdk_image(b"hello")), "program": bad}).problem(400)["detail"]


def test_version_that_an_older_daemon_took_answers_503_with_advice(make_unid):
    unid = make_unid(flags=["--set", "machines.network=none"]).start()
    unid.deploy("f", "hello")
    unid.stop()
    with contextlib.closing(sqlite3.connect(unid.state / "unid.db")) as db, db:
        db.execute("UPDATE images SET kind = 'pvh'")
    unid.start()
    problem = unid.call("f").problem(503)
    assert problem["outcome"] == "cannot-run" and "unid-cc" in problem["detail"]


@pytest.mark.parametrize(
    "change, key",
    [
        ({"memory_mib": 1}, "memory_mib"),
        ({"memory_mib": 65537}, "memory_mib"),
        ({"memory_mib": "16"}, "memory_mib"),
        ({"memory_mib": 1.5}, "memory_mib"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 900001}, "timeout_ms"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 10001}, "concurrency"),
        ({"interface": "x"}, "interface"),
        ({"driver": "qemu"}, "driver"),
        ({"isolation": True}, "isolation"),
        ({"snapshot": "never"}, "snapshot: must be ready or start"),
        ({"interface": 1}, "interface"),
        ({"args": "x"}, "args"),
        ({"args": [1]}, "args"),
        ({"args": ["x\0y"]}, ""),
        ({"args": ["x"] * 257}, "args"),
        ({"env": []}, "env"),
        ({"env": {"A": 1}}, "env"),
        ({"env": {"A=B": "1"}}, "env"),
        ({"env": {"": "1"}}, "env"),
        ({"env": {"A": "x" * 49152}}, ""),
        ({"nonsense": 1}, "nonsense"),
        ({"image": None}, "image"),
        ({"image": 5}, "image"),
    ],
)
def test_wrong_configurations_are_400_and_name_the_key(shared, name, change, key):
    config = {"image": shared.push(), **change}
    assert key in shared.put(f"/api/v1/functions/{name}", config).problem(400)["detail"]
    shared.get(f"/api/v1/functions/{name}").problem(404)


def test_bodies_that_are_no_object_are_400(shared, name):
    for body in (
        b"",
        b"{",
        b"[]",
        b"1",
        b'{"image":1,"image":2}',
        b'{"image":"\xff"}',
        b"[" * 5000,
    ):
        shared.put(f"/api/v1/functions/{name}", body).problem(400)
    shared.put(f"/api/v1/functions/{name}", b" " * (1 << 20) + b"{}").problem(413)


def test_deploy_of_what_is_not_there_is_404(shared, name):
    shared.put(f"/api/v1/functions/{name}", {"image": NO_DIGEST}).problem(404)
    shared.put(f"/api/v1/functions/{name}", {"image": "no-such-tag"}).problem(404)


@pytest.mark.parametrize("bad", ["A", "1a", "a-", "a_b", "a.b", "a" * 64, "%C3%A9", "a%00"])
def test_names_are_dns_labels(shared, bad):
    assert shared.put(f"/api/v1/functions/{bad}", {"image": shared.push()}).status in (400, 404)
    shared.get(f"/fn/{bad}").problem()
    assert shared.get(f"/fn/{bad}").status in (400, 404)


def test_longest_name_is_a_name(shared):
    long = "a" * 63
    shared.deploy(long, "hello")
    shared.call(long).ok()


def test_listing_pages_by_name(make_unid):
    unid = make_unid().start()
    digest = unid.push()
    names = [f"n{i:02}" for i in range(25)]
    for n in reversed(names):
        unid.deploy(n, "hello", image=digest)
    page = unid.get("/api/v1/functions?limit=10").ok().json
    assert [f["name"] for f in page["items"]] == names[:10]
    seen = []
    path = "/api/v1/functions?limit=10"
    while True:
        page = unid.get(path).ok().json
        seen += [f["name"] for f in page["items"]]
        if page["next"] is None:
            break
        path = f"/api/v1/functions?limit=10&cursor={page['next']}"
    assert seen == names
    for limit in ("0", "1001", "x", "-1", "1x", ""):
        unid.get(f"/api/v1/functions?limit={limit}").problem(400)


def test_aliases_and_rollback(shared, name):
    for n in range(1, 4):
        shared.deploy(name, "status", str(200 + n))
    assert shared.call(name).status == 203
    alias = f"/api/v1/functions/{name}/aliases"
    assert shared.put(f"{alias}/stable", {"version": 1}).ok().json == {
        "alias": "stable",
        "version": 1,
    }
    assert shared.call(f"{name}:stable").status == 201
    assert shared.call(f"{name}:2").status == 202
    assert shared.get(alias).ok().json["items"] == [
        {"alias": "live", "version": 3},
        {"alias": "stable", "version": 1},
    ]
    assert shared.get(f"/api/v1/functions/{name}?qualifier=stable").ok().json["version"] == 1
    rollback = f"/api/v1/functions/{name}/rollback"
    assert shared.post(rollback).ok().json["version"] == 2
    assert shared.call(name).status == 202
    assert shared.post(rollback).ok().json["version"] == 1
    shared.post(rollback).problem(409)
    assert shared.post(rollback, {"version": 3}).ok().json["version"] == 3
    assert shared.call(name).status == 203
    assert shared.call(f"{name}:stable").status == 201
    shared.post(rollback, {"version": 9}).problem(404)
    for body in ({"version": 0}, {"version": "1"}, {"more": 1}, []):
        shared.post(rollback, body).problem(400)
        shared.put(f"{alias}/x", body).problem(400)
    shared.put(f"{alias}/x", {}).problem(400)
    shared.put(f"{alias}/x", {"version": 9}).problem(404)
    assert shared.put(f"{alias}/7", {"version": 1}).status == 400
    shared.get(f"/api/v1/functions/{name}?qualifier=9").problem(404)
    shared.get(f"/fn/{name}:nope").problem(404)
    shared.get(f"/fn/{name}:9").problem(404)
    shared.delete(f"{alias}/stable").ok(204)
    shared.get(f"/fn/{name}:stable").problem(404)
    assert "stable" in shared.delete(f"{alias}/stable").problem(404)["detail"]
    assert "moved" in shared.delete(f"{alias}/live").problem(409)["detail"]
    shared.delete(f"{alias}/{'x' * 70}").problem(404)
    shared.delete("/api/v1/functions/nobody/aliases/stable").problem(404)
    assert shared.get(f"/api/v1/functions/{name}/versions").ok().json["items"][-1]["version"] == 1


def test_unknown_functions_are_404(shared):
    base = "/api/v1/functions/no-such"
    for method, path, body in [
        ("GET", base, None),
        ("DELETE", base, None),
        ("GET", base + "/versions", None),
        ("GET", base + "/aliases", None),
        ("PUT", base + "/aliases/x", {"version": 1}),
        ("POST", base + "/rollback", None),
        ("POST", base + "/invocations", None),
        ("POST", base + "/invocations?mode=async", None),
        ("GET", base + "/logs", None),
        ("GET", base + "/logs?follow=1", None),
        ("GET", "/fn/no-such", None),
        ("POST", "/fn/no-such/x/y", None),
    ]:
        shared.request(method, path, body).problem(404)


def test_remove_takes_everything_and_the_name_starts_anew(shared, name):
    shared.deploy(name, "hello")
    shared.deploy(name, "echo")
    shared.delete(f"/api/v1/functions/{name}").ok(204)
    shared.get(f"/api/v1/functions/{name}").problem(404)
    shared.call(name).problem(404)
    shared.delete(f"/api/v1/functions/{name}").problem(404)
    assert shared.deploy(name, "hello")["version"] == 1


# --- invocations ----------------------------------------------------------------------------------


def test_receipt_says_what_happened(shared, name):
    function = shared.deploy(name, "count")
    answer = shared.call(name, b"x" * 5000).ok()
    assert answer.body.strip() == b"5000"
    receipt = shared.receipt(answer.headers["X-Unid-Invocation-Id"])
    assert (receipt["function"], receipt["version"], receipt["digest"]) == (
        name,
        1,
        function["image"],
    )
    assert (receipt["trigger"], receipt["driver"], receipt["status"]) == ("http", "fake", 200)
    assert (receipt["outcome"], receipt["error"], receipt["attempt"], receipt["fresh"]) == (
        "ok",
        "",
        1,
        True,
    )
    assert (receipt["bytes_in"], receipt["bytes_out"]) == (5000, len(answer.body))
    assert receipt["exit_reason"] == "done" and TIME.match(receipt["started_at"])
    assert all(v >= 0 for v in receipt["phases"].values()) and len(receipt["phases"]) == 7


def test_sync_invocation_answers_like_the_gateway(shared, name):
    shared.deploy(name, "echo")
    shared.deploy(name, "status", "418")
    path = f"/api/v1/functions/{name}/invocations"
    assert shared.post(f"{path}?qualifier=1", b"body").ok().body == b"body"
    answer = shared.post(f"{path}?mode=sync", b"body")
    assert answer.status == 418 and "Server-Timing" in answer.headers
    assert shared.receipt(answer.headers["X-Unid-Invocation-Id"])["trigger"] == "invoke"
    shared.post(f"{path}?qualifier=9").problem(404)
    shared.post(f"{path}?mode=later").problem(400)


def test_failed_invocations_are_problems_like_the_gateways(shared, name):
    shared.deploy(name, "crash")
    path = f"/api/v1/functions/{name}/invocations"
    assert shared.post(path).problem(502)["exit"]["kind"] == "fault"
    shared.deploy(name, "spin", timeout_ms=100)
    assert shared.post(path).problem(504)["outcome"] == "timed-out"


def test_async_invocation_runs_later(shared, name):
    shared.deploy(name, "count")
    answer = shared.post(f"/api/v1/functions/{name}/invocations?mode=async", b"x" * 1000)
    invocation = answer.ok(202).json["id"]
    assert ULID.match(invocation)
    assert answer.headers["X-Unid-Invocation-Id"] == invocation
    assert answer.headers["Location"] == f"/api/v1/invocations/{invocation}"
    receipt = shared.receipt(invocation)
    assert (receipt["trigger"], receipt["status"], receipt["bytes_in"]) == ("async", 200, 1000)


def test_async_invocation_is_pending_while_it_runs(shared, name, gate):
    gate.deploy(shared, name)
    invocation = shared.post(f"/api/v1/functions/{name}/invocations?mode=async").ok(202).json["id"]
    wait_for(lambda: gate.held, "it runs")
    assert shared.get(f"/api/v1/invocations/{invocation}").ok().json == {
        "id": invocation,
        "status": "pending",
    }
    gate.open()
    assert shared.receipt(invocation)["outcome"] == "ok"


def test_async_body_is_bounded(shared, name):
    shared.deploy(name, "hello")
    path = f"/api/v1/functions/{name}/invocations?mode=async"
    shared.post(path, b"x" * (6 << 20)).ok(202)
    shared.post(path, b"x" * ((6 << 20) + 1)).problem(413)


def test_receipts_are_listed_newest_first(shared, name):
    shared.deploy(name, "hello")
    good = [shared.call(name).ok().headers["X-Unid-Invocation-Id"] for _ in range(5)]
    shared.deploy(name, "exit", "3")
    bad = shared.call(name).headers["X-Unid-Invocation-Id"]
    shared.receipt(bad)
    newest_first = sorted(good + [bad], reverse=True)  # ids sort by time, to the millisecond
    listing = f"/api/v1/invocations?function={name}"

    def ids(more=""):
        return [r["id"] for r in shared.get(listing + more).ok().json["items"]]

    assert ids() == newest_first
    assert ids("&status=failed") == [bad]
    assert sorted(ids("&status=ok")) == sorted(good)
    page = shared.get(f"{listing}&limit=2").ok().json
    rest = shared.get(f"{listing}&limit=1000&cursor={page['next']}").ok().json
    assert [r["id"] for r in page["items"] + rest["items"]] == newest_first
    assert rest["next"] is None
    assert shared.get("/api/v1/invocations?limit=1").ok().json["items"]
    shared.get(f"{listing}&limit=0").problem(400)


def test_unknown_invocations_are_404(shared):
    shared.get(f"/api/v1/invocations/{NO_ID}").problem(404)
    assert shared.get("/api/v1/invocations/nonsense").status in (400, 404)


# --- instances and logs ---------------------------------------------------------------------------


def test_instances_are_listed_and_can_be_killed(shared, name):
    import threading

    shared.deploy(name, "spin", timeout_ms=60000)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(shared.call(name)))
    caller.start()
    mine = wait_for(
        lambda: [
            i for i in shared.instances() if i["function"] == name and i["state"] == "running"
        ],
        "the instance runs",
    )[0]
    assert (mine["driver"], mine["version"]) == ("fake", 1) and ULID.match(mine["id"])
    assert ULID.match(mine["invocation_id"]) and mine["age_us"] >= 0 and mine["memory_mib"] > 0
    shared.delete(f"/api/v1/instances/{mine['id']}").ok(204)
    caller.join(harness.ANSWER_S)
    assert answers[0].problem(502)["outcome"] == "cancelled"
    wait_for(
        lambda: mine["id"] not in [i["id"] for i in shared.instances()], "the instance is gone"
    )
    shared.delete(f"/api/v1/instances/{mine['id']}").problem(404)
    shared.delete(f"/api/v1/instances/{NO_ID}").problem(404)


def test_logs_are_kept_by_function(shared, name):
    shared.deploy(name, "log", "one", "two \u00e9", "three")
    first = shared.call(name).ok().headers["X-Unid-Invocation-Id"]
    second = shared.call(name).ok().headers["X-Unid-Invocation-Id"]
    shared.receipt(second)
    path = f"/api/v1/functions/{name}/logs"
    lines = wait_for(
        lambda: (lambda l: l if len(l) == 6 else None)(shared.get(path).ok().json["items"]),
        "the log",
    )
    assert [l["text"] for l in lines] == ["one", "two \u00e9", "three"] * 2
    assert [l["invocation_id"] for l in lines] == [first] * 3 + [second] * 3
    assert all(TIME.match(l["at"]) for l in lines)
    assert [l["text"] for l in shared.get(f"{path}?limit=2").ok().json["items"]] == [
        "two \u00e9",
        "three",
    ]
    shared.get(f"{path}?limit=0").problem(400)
    shared.get(f"{path}?follow=2").problem(400)


def test_followed_logs_come_as_they_are_written(shared, name):
    shared.deploy(name, "log", "line")
    connection = shared.connection()
    connection.request("GET", f"/api/v1/functions/{name}/logs?follow=1")
    response = connection.getresponse()
    harness.SEEN.add(("GET", f"/api/v1/functions/{name}/logs", response.status))
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    for _ in range(3):
        invocation = shared.call(name).ok().headers["X-Unid-Invocation-Id"]
        line = b""
        while not line.strip():
            line = response.readline()
        entry = json.loads(line)
        assert (entry["text"], entry["invocation_id"]) == ("line", invocation)
    connection.close()


# --- who may --------------------------------------------------------------------------------------


def test_token_guards_rest_over_tcp_alone(make_unid, tmp_path):
    (tmp_path / "token").write_text("a-long-secret-word\n")
    unid = make_unid(flags=["--token-file", str(tmp_path / "token")]).start()
    answer = unid.get("/api/v1/functions")
    answer.problem(401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for wrong in (
        "Bearer a-long-secret-wor",
        "Bearer a-long-secret-words",
        "Bearer ",
        "Basic a-long-secret-word",
        "a-long-secret-word",
    ):
        unid.get("/api/v1/functions", headers={"Authorization": wrong}).problem(401)
    unid.get("/api/v1/functions", headers={"Authorization": "Bearer a-long-secret-word"}).ok()
    unid.get("/api/v1/functions", unix=True).ok()
    unid.get("/healthz").ok()
    unid.get("/readyz").ok()
    unid.get("/fn/none").problem(404)
    digest = unid.post("/api/v1/images", sdk_image(), unix=True).ok(201).json["digest"]
    unid.put("/api/v1/functions/f", {"image": digest, "args": ["hello"]}, unix=True).ok(201)
    unid.call("f").ok()
    unid.unictl("ls", "--token-file", tmp_path / "token", unix=False).ok()
    assert unid.unictl("ls", unix=False).status == 1


def test_web_pages_of_other_origins_are_refused(shared):
    shared.get("/api/v1/functions", headers={"Origin": "http://evil.example"}).problem(403)
    shared.get("/api/v1/functions", headers={"Host": "evil.example"}).problem(421)
    shared.get("/api/v1/functions", headers={"Host": "localhost:1"}).ok()
    shared.get("/api/v1/functions", headers={"Host": f"127.0.0.1:{shared.port}"}).ok()


def test_ten_thousand_idle_functions_cost_rows_not_memory(make_unid):
    """A tenth of the figure in docs/performance.md, to keep the test short."""
    unid = make_unid().start()
    digest = unid.push()
    unid.deploy("first", "hello", image=digest)
    unid.call("first").ok()
    before = unid.resident_kib()

    def put(names):
        connection = unid.connection()
        for i in names:
            connection.request(
                "PUT", f"/api/v1/functions/g{i}", json.dumps({"image": digest, "args": ["hello"]})
            )
            response = connection.getresponse()
            response.read()
            assert response.status == 201
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # several share a commit
        list(pool.map(put, (range(n, 1000, 8) for n in range(8))))
    assert unid.resident_kib() - before < 8 * 1024 * (8 if sanitized() else 1)
    unid.call("g500").ok()


def sanitized():
    return b"__asan_init" in harness.UNID.read_bytes()
