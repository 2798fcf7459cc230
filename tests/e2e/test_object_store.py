"""A real object store (ceph.py): it tells unid of new objects, functions get their bytes, and what they
answer is put back. What the function does is only named in FUNCTION and made_of(), so that any other
that answers bytes can take its place."""

import json
import struct
import subprocess
import urllib.parse

import pytest

import ceph
import harness
from harness import wait_for
from test_events import sink  # noqa: F401 (a fixture)

# Behaviour of the fake driver's guest, and what it makes of an object.
FUNCTION = "echo"


def made_of(data):
    return data


def jpeg(number):
    """A grey picture of 64x64 pixels, baseline JPEG (ITU-T T.81), that differs by its comment."""

    def segment(marker, payload):
        return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload

    one_code = bytes([1] + [0] * 15) + b"\0"  # one Huffman code, "0", for the value 0
    return (
        b"\xff\xd8"
        + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
        + segment(0xFE, b"picture %d" % number)
        + segment(0xDB, b"\0" + bytes([1] * 64))
        + segment(0xC0, struct.pack(">BHHBBBB", 8, 64, 64, 1, 1, 0x11, 0))
        + segment(0xC4, b"\x00" + one_code)
        + segment(0xC4, b"\x10" + one_code)
        + segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
        + bytes(16)  # 64 blocks: no difference, end of block
        + b"\xff\xd9"
    )


NAMES = ["plain.jpg", "with two  spaces.jpg", "café Ω 写真.jpg", "a+b&c=d%20e.jpg", "sub/dir/x.jpg", "q?#'\"*.jpg"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    if ceph.missing():
        pytest.skip(f"not installed: {', '.join(ceph.missing())}; ./bootstrap deps brings them")
    started = ceph.Store(tmp_path_factory.mktemp("ceph"))
    try:
        yield started.start()
    finally:
        started.stop()


class Bucket:
    """A bucket of the test's own, and a trigger for what comes to in/."""

    def __init__(self, store, unid, name):
        self.store, self.unid, self.name = store, unid, name
        store.aws("s3api", "create-bucket", "--bucket", name)

    def add_trigger(self, function, *more):
        result = self.unid.unictl(
            "trigger", "add", "s3", self.name, "--function", function, "--bucket", self.name,
            "--prefix", "in/", "--suffix", ".jpg", "--events", "s3:ObjectCreated:*",
            "--endpoint", self.store.endpoint, "--region", "default", *more, "--json",
            env={"AWS_ACCESS_KEY_ID": ceph.ACCESS, "AWS_SECRET_ACCESS_KEY": ceph.SECRET},
        ).ok().json
        return f"{result['url']}?token={result['token']}"

    def upload(self, prefix, files, tmp_path):
        """Stores {name: bytes} below a prefix, with one start of the AWS CLI."""
        directory = tmp_path / f"up{len(list(tmp_path.iterdir()))}"
        for name, data in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
        self.store.aws("s3", "cp", "--recursive", str(directory), f"s3://{self.name}/{prefix}")

    def download(self, prefix, tmp_path):
        """{name: bytes} of what is below a prefix."""
        directory = tmp_path / f"down{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        self.store.aws("s3", "cp", "--recursive", f"s3://{self.name}/{prefix}", str(directory))
        return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    def ran(self, count, seconds=120):
        """Waits until so many events of the trigger are done."""

        def there():
            items = self.unid.get(f"/api/v1/invocations?trigger={self.name}").ok().json["items"]
            return len([r for r in items if r["outcome"] == "ok"]) >= count

        wait_for(there, f"{count} events are done", seconds)

    def trigger(self):
        return self.unid.get(f"/api/v1/triggers/{self.name}").ok().json


def test_pictures_come_back_from_the_function(unid, store, tmp_path):
    unid.deploy("thumb", FUNCTION)
    bucket = Bucket(store, unid, "photos")
    url = bucket.add_trigger("thumb", "--fetch", "--put", "photos/out/")
    store.notify("photos", url)
    pictures = {name: jpeg(i) for i, name in enumerate(NAMES)}
    bucket.upload("in/", {**pictures, "notes.txt": b"not a picture"}, tmp_path)
    bucket.ran(len(pictures))
    assert bucket.download("out/", tmp_path) == {n: made_of(d) for n, d in pictures.items()}
    counts = bucket.trigger()["counts"]
    assert counts["accepted"] == len(NAMES)
    assert counts["filtered"] >= len(NAMES) + 1  # what is put, and the text
    receipts = unid.get("/api/v1/invocations?trigger=photos").ok().json["items"]
    assert {r["bytes_in"] for r in receipts} == {len(d) for d in pictures.values()}


def test_the_event_says_what_the_store_said(unid, store, tmp_path, sink):
    unid.deploy("tell", "echo")
    bucket = Bucket(store, unid, "events")
    store.notify("events", bucket.add_trigger("tell", "--on-success", sink.url))
    bucket.upload("in/", {"é 1.jpg": jpeg(1)}, tmp_path)
    wait_for(lambda: sink.got, "the function has answered")
    (record,) = json.loads(sink.got[0][3])["Records"]
    assert record["eventSource"] == "ceph:s3" and record["s3"]["bucket"]["name"] == "events"
    assert record["s3"]["object"]["key"] == "in/é 1.jpg"
    assert record["s3"]["object"]["size"] == len(jpeg(1))
    text = unid.get("/metrics").body.decode()
    assert 'unid_events_total{source="ceph",result="accepted"} 1' in text


def test_nothing_is_lost_when_unid_is_killed_and_the_store_restarted(make_unid, store, tmp_path, gate):
    port = harness.free_port()
    # The same port after each start: the store has been told.
    unid = make_unid(flags=["--listen", f"127.0.0.1:{port}"])
    unid.may_log_errors = True
    unid.start()
    unid.deploy("thumb", FUNCTION)
    # One at a time: some of these wait and one runs whenever unid is killed.
    gate.deploy(unid, "slow", concurrency=1, timeout_ms=600000)
    bucket = Bucket(store, unid, "crash")
    slow = unid.put("/api/v1/triggers/slow", {"type": "s3", "function": "slow", "prefix": "in/"}).json
    url = bucket.add_trigger("thumb", "--fetch", "--put", "crash/out/", "--backoff", "200ms",
                             "--backoff-max", "1s", "--max-attempts", "100")
    url = urllib.parse.urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()
    store.notify("crash", url, f"http://127.0.0.1:{port}/events/s3/slow?token={slow['token']}")
    pictures = {f"{i}.jpg": jpeg(100 + i) for i in range(8)}
    names = sorted(pictures)

    def upload_and_kill(life, some, before_the_kill=lambda: None):
        bucket.upload("in/", {n: pictures[n] for n in some}, tmp_path)
        before_the_kill()
        wait_for(lambda: len(gate.held) == life, "one of them runs")
        unid.kill()

    upload_and_kill(1, names[:3])
    unid.start()
    # The gateway is away while events wait, some for their objects.
    upload_and_kill(2, names[3:6], store.stop_gateway)
    unid.start()
    store.start_gateway()
    upload_and_kill(3, names[6:])
    gate.open()
    unid.start()
    bucket.ran(len(pictures))
    assert bucket.download("out/", tmp_path) == {n: made_of(d) for n, d in pictures.items()}
    assert unid.get("/api/v1/deadletters").ok().json["items"] == []

    def slow_ones():
        items = unid.get("/api/v1/invocations?trigger=slow").ok().json["items"]
        done = {r["id"] for r in items if r["outcome"] == "ok"}
        return items if len(done) == len(pictures) else None

    receipts = wait_for(slow_ones, "each slow run is done", 60)
    # What was running when unid was killed says so, and nothing ran twice without that.
    outcomes = [r["outcome"] for r in receipts]
    assert outcomes.count("ok") == len(pictures) and "interrupted" in outcomes, outcomes
    assert set(outcomes) == {"ok", "interrupted"}, outcomes


def test_what_is_uploaded_while_unid_is_away_comes_later(make_unid, store, tmp_path):
    port = harness.free_port()
    unid = make_unid(flags=["--listen", f"127.0.0.1:{port}"]).start()
    unid.deploy("thumb", FUNCTION)
    bucket = Bucket(store, unid, "away")
    url = bucket.add_trigger("thumb", "--fetch", "--put", "away/out/")
    url = urllib.parse.urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()
    store.notify("away", url, persistent=True)
    unid.kill()
    pictures = {f"{i}.jpg": jpeg(200 + i) for i in range(3)}
    bucket.upload("in/", pictures, tmp_path)
    unid.start()
    bucket.ran(len(pictures))  # the gateway looks at what is left every half a minute
    assert bucket.download("out/", tmp_path) == {n: made_of(d) for n, d in pictures.items()}


def test_an_object_that_is_gone_becomes_a_dead_letter(unid, store, tmp_path):
    unid.deploy("thumb", FUNCTION)
    bucket = Bucket(store, unid, "gone")
    url = bucket.add_trigger("thumb", "--fetch", "--max-attempts", "2", "--backoff", "10ms")
    event = {"Records": [{"eventSource": "ceph:s3", "eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": "gone"}, "object": {"key": "in/never there.jpg", "eTag": "1"}}}]}
    path = urllib.parse.urlsplit(url)
    unid.post(f"{path.path}?{path.query}", event).ok()

    def dead():
        return unid.get("/api/v1/deadletters?trigger=gone").ok().json["items"]

    letter = wait_for(dead, "it is given up")[0]
    assert "404" in letter["reason"] and "NoSuchKey" in letter["reason"], letter
    # Once it is there, the letter can be driven again.
    bucket.upload("in/", {"never there.jpg": jpeg(7)}, tmp_path)
    unid.post(f"/api/v1/deadletters/{letter['id']}/redrive").ok()
    wait_for(lambda: not dead() and unid.get(f"/api/v1/invocations/{letter['id']}").json.get("outcome") == "ok",
             "it ran")


def test_wrong_credentials_are_told(unid, store, tmp_path):
    unid.deploy("thumb", FUNCTION)
    bucket = Bucket(store, unid, "secret")
    result = unid.put("/api/v1/triggers/secret", {
        "type": "s3", "function": "thumb", "bucket": "secret", "endpoint": store.endpoint,
        "region": "default", "access_key": ceph.ACCESS, "secret_key": "wrong-secret-key",
        "fetch": True, "max_attempts": 1}).ok(201).json
    bucket.upload("in/", {"a.jpg": jpeg(1)}, tmp_path)
    event = {"Records": [{"eventSource": "ceph:s3", "eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": "secret"}, "object": {"key": "in/a.jpg"}}}]}
    unid.post("/events/s3/secret", event, headers={"Authorization": f"Bearer {result['token']}"}).ok()
    letter = wait_for(lambda: unid.get("/api/v1/deadletters").ok().json["items"], "it is given up")[0]
    assert "SignatureDoesNotMatch" in letter["reason"], letter
    # Neither key is anywhere but in the database.
    for text in (unid.log(), json.dumps(letter), json.dumps(bucket.trigger()),
                 unid.unictl("trigger", "show", "secret").text):
        assert "wrong-secret-key" not in text and ceph.ACCESS not in text
    assert (unid.state / "unid.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.kvm
def test_thumbnails_come_back_from_real_machines(make_unid, store, tmp_path):
    """The example of examples/thumbnail, a Linux program, with unid killed and the gateway restarted."""
    source = harness.ROOT / "examples/thumbnail/thumbnail.c"
    program = tmp_path / "thumbnail"
    made = subprocess.run(["gcc", "-O2", "-o", program, source, "-ljpeg"], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"libjpeg62-turbo-dev is not installed: {made.stderr[-200:]}")
    port = harness.free_port()
    unid = make_unid(driver="kvm", flags=["--listen", f"127.0.0.1:{port}"])
    unid.may_log_errors = True
    unid.start()
    unid.unictl("deploy", "thumb", program, "--", "32").ok()
    bucket = Bucket(store, unid, "machines")
    url = bucket.add_trigger("thumb", "--fetch", "--put", "machines/out/", "--backoff", "200ms",
                             "--backoff-max", "1s", "--max-attempts", "100")
    url = urllib.parse.urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()
    store.notify("machines", url)
    pictures = {name: jpeg(i) for i, name in enumerate(NAMES)}
    bucket.upload("in/", {n: pictures[n] for n in NAMES[:3]}, tmp_path)
    store.stop_gateway()
    unid.kill()
    unid.start()
    store.start_gateway()
    bucket.upload("in/", {n: pictures[n] for n in NAMES[3:]}, tmp_path)
    bucket.ran(len(pictures))

    def small(data):
        return subprocess.run([program, "32"], input=data, capture_output=True, check=True).stdout

    thumbnails = bucket.download("out/", tmp_path)
    assert thumbnails == {n: small(d) for n, d in pictures.items()}
    # Start of image, and the frame's height and width (ITU-T T.81, B.2.2).
    for data in thumbnails.values():
        at = data.index(b"\xff\xc0")
        assert data[:2] == b"\xff\xd8" and struct.unpack(">HH", data[at + 5 : at + 9]) == (32, 32)
