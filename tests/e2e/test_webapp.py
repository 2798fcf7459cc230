"""examples/webapp: a page, an application and a database, deployed from one file, over taps in a network
namespace of the daemon's own; what is kept when unid is stopped and started; and its README."""

import http.client
import json
import os
import re
import shutil
import subprocess

import pytest

import harness
import netns
from harness import BUILD, wait_for
from test_examples import blocks

EXAMPLE = harness.ROOT / "examples" / "webapp"
BUILDER = harness.ROOT / "examples" / "linux-machine" / "build"
FOLDER = BUILD / "webapp"  # what is downloaded is downloaded once
NEEDS = ["/usr/sbin/nginx", "/usr/bin/php-cgi", "/bin/busybox"]
WAKE_S = 120  # Linux, translated, on a busy machine

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"),
]


@pytest.fixture
def app(tmp_path):
    """A copy of the example, built as its README says, and with a port that the kernel chooses."""
    for path in [*NEEDS, BUILDER]:
        if not os.path.exists(path):
            pytest.skip(f"there is no {path}")
    here = tmp_path / "examples" / "webapp"
    shutil.copytree(EXAMPLE, here, ignore=shutil.ignore_patterns("images"))
    shutil.copytree(BUILDER.parent, here.parent / BUILDER.parent.name)
    FOLDER.mkdir(exist_ok=True)
    (here / "images").symlink_to(FOLDER)
    done = subprocess.run(["./build"], cwd=here, capture_output=True, text=True, check=False)
    if "cannot be downloaded" in done.stderr or "not known to apt" in done.stderr:
        pytest.skip(f"no database image: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    document = json.loads((here / "webapp.json").read_text())
    document["functions"]["front"]["publish"] = ["0"]
    (here / "webapp.json").write_text(json.dumps(document))
    return here / "webapp.json"


@pytest.fixture
def daemon(tmp_path):
    place = tmp_path / "unid"
    place.mkdir()
    with netns.tapped(place, driver="kvm") as daemon:
        yield daemon


def ask(daemon, path, body=None):
    ports = daemon.get("/api/v1/functions/front", unix=True).ok(200).json["ports"]
    port = int(ports[0]["address"].rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock = netns.connect(daemon.process.pid, ("127.0.0.1", port), WAKE_S)
    connection.request("POST" if body else "GET", path, body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    console = daemon.get("/api/v1/functions/db/logs", unix=True).body[-2000:]
    assert answer.status == 200, (answer.status, data, console, daemon.log()[-2000:])
    return data.decode()


def test_page_application_and_database_are_one(daemon, app):
    made = daemon.unictl("apply", "-f", app).ok().text
    assert re.findall(r"^(\w+ \w+) created", made, re.M) == [
        "volume notes", "function db", "function app", "function front",
    ]
    assert "<title>Notes</title>" in ask(daemon, "/")
    assert "fetch" in ask(daemon, "/notes.js")
    assert json.loads(ask(daemon, "/notes", "buy milk")) == ["buy milk"]
    assert json.loads(ask(daemon, "/notes", "and bread")) == ["and bread", "buy milk"]
    for name, trigger in [("front", "http"), ("app", "http"), ("db", "tcp")]:
        path = f"/api/v1/invocations?function={name}"
        receipts = wait_for(lambda: daemon.get(path, unix=True).json["items"], f"a receipt of {name}")
        assert receipts[0]["trigger"] == trigger
    daemon.stop(WAKE_S)
    daemon.start()
    assert json.loads(ask(daemon, "/notes")) == ["and bread", "buy milk"]
    assert "created" not in daemon.unictl("apply", "-f", app).ok().text
    removed = daemon.unictl("delete", "-f", app, "--volumes").ok().text
    assert removed.split()[1::3] == ["front", "app", "db", "notes"]


def test_readme_shows_what_the_file_makes():
    text = (EXAMPLE / "README.md").read_text()
    document = json.loads((EXAMPLE / "webapp.json").read_text())
    shown = "".join(blocks(text, "text"))
    for name in document["functions"]:
        assert f"function {name} created" in shown and f"function {name} removed" in shown
    assert document["functions"]["front"]["publish"] == ["8080"] and ":8080" in text
    assert len(blocks(text, "sh")) == 2 and "./build\n" in blocks(text, "sh")[0]
