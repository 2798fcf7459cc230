"""unictl apply and delete: several functions from one file, with the fake driver."""

import json

import pytest

import harness


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    daemon = harness.Daemon(tmp_path_factory.mktemp("unid"), driver="fake").start()
    yield daemon
    assert daemon.stop() == 0, daemon.log()[-3000:]


@pytest.fixture
def place(daemon, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/image").write_bytes(harness.sdk_image())

    class Place:
        path = tmp_path / "app.json"

        def write(self, document):
            self.path.write_text(document if isinstance(document, str) else json.dumps(document))

        def apply(self, *more):
            return daemon.unictl("apply", "-f", self.path, *more)

        def delete(self, *more):
            return daemon.unictl("delete", "-f", self.path, *more)

    yield Place()
    for function in daemon.get("/api/v1/functions").ok().json["items"]:
        daemon.delete(f"/api/v1/functions/{function['name']}").ok(204)
    for volume in daemon.get("/api/v1/volumes").ok().json["items"]:
        daemon.delete(f"/api/v1/volumes/{volume['name']}").ok(204)


def functions(*args, **more):
    return {"functions": {"one": {"image": "bin/image", "args": list(args or ["echo"]), **more}}}


def test_it_is_made_kept_changed_and_removed(daemon, place):
    document = functions(publish=["0"])
    document["volumes"] = {"data": {"size_mib": 1}}
    document["functions"]["two"] = {"image": "./bin/image", "args": ["args", "x"], "env": {"A": "b"}}
    place.write(document)
    made = place.apply().ok().text.splitlines()
    port = daemon.get("/api/v1/functions/one").ok().json["ports"][0]["address"]
    assert made == ["volume data created", f"function one created at {port}", "function two created"]
    assert daemon.post("/fn/one", b"hi").ok().body == b"hi"
    assert place.apply().ok().text.splitlines() == [
        "volume data unchanged", f"function one unchanged at {port}", "function two unchanged",
    ]
    document["functions"]["two"]["args"][1] = "y"
    place.write(document)
    done = json.loads(place.apply("--json").ok().text)
    assert [d["change"] for d in done] == ["unchanged", "unchanged", "updated"]
    assert daemon.get("/fn/two").ok().body.splitlines()[-1] == b"y"
    assert place.delete().ok().text.splitlines() == ["function two removed", "function one removed"]
    daemon.get("/api/v1/volumes/data").ok(200)
    assert place.delete("--volumes").ok().text.splitlines() == [
        "function two absent", "function one absent", "volume data removed",
    ]


def test_it_is_read_from_standard_input(daemon, place, tmp_path):
    document = functions()
    document["functions"]["one"]["image"] = str(tmp_path / "bin/image")
    done = daemon.unictl("apply", "-f", "-", stdin=json.dumps(document).encode()).ok()
    assert done.text == "function one created\n"


@pytest.mark.parametrize(
    "change, word",
    [
        ({"memory_mib": 1}, "memory_mib"),
        ({"colour": "red"}, "colour"),
        ({"publish": ["x"]}, "publish[0]"),
        ({"with": 5}, "functions.two.with"),
        ({"with": ["/etc", 5]}, "functions.two.with[1]"),
        ({"rootfs": ["/"]}, "functions.two.rootfs"),
        ({"image": None}, "image"),
        ({"image": "/no/such/file"}, "/no/such/file"),
        ({"image": "nobody:tag"}, "nobody:tag"),
        ({"machine": {"initrd": "no-such-file"}}, "no-such-file"),
        ({"machine": {"initrd": "bin/image", "port": 0}}, "port"),
    ],
)
def test_nothing_is_changed_when_something_is_wrong(daemon, place, change, word):
    document = functions()
    document["functions"]["two"] = {"image": "bin/image", **change}
    place.write(document)
    refused = place.apply()
    assert refused.status == 1 and word in refused.err, refused.err
    assert daemon.get("/api/v1/functions").ok().json["items"] == []


@pytest.mark.parametrize(
    "document, word",
    [
        ("[]", "object"),
        ("{", "line 1"),
        ('{"function": {}}', "function"),
        ('{"functions": []}', "functions"),
        ('{"functions": {"one": 5}}', "functions.one"),
        ('{"volumes": {"data": 5}}', "volumes.data"),
        ('{"volumes": {"data": {}}}', "volumes.data"),
        ('{"functions": {"one": {"image": "a"}, "one": {"image": "b"}}}', "duplicate"),
    ],
)
def test_what_is_no_such_file_is_refused(place, document, word):
    place.write(document)
    for refused in (place.apply(), place.delete()):
        assert refused.status == 1 and word in refused.err, refused.err


def test_names_and_words_are_checked(daemon, place):
    place.write({"functions": {"No": {"image": "bin/image"}}})
    assert place.apply().status == 2
    assert daemon.unictl("apply").status == 2
    assert daemon.unictl("apply", "-f", "/no/such/file").status == 1


def test_first_refusal_says_what_was_done(daemon, place):
    daemon.deploy("other", "echo", publish=["0"])
    taken = daemon.get("/api/v1/functions/other").json["ports"][0]["address"]
    document = functions()
    document["functions"]["two"] = {"image": "bin/image", "publish": [taken]}
    document["functions"]["three"] = {"image": "bin/image"}
    place.write(document)
    refused = place.apply()
    assert refused.status == 1
    assert "other" in refused.err and "done before: function one (created)" in refused.err
    daemon.get("/api/v1/functions/three").problem(404)


def test_check_alone_changes_nothing(daemon):
    image = "sha256:" + "0" * 64
    daemon.put("/api/v1/functions/new?check=1", {"image": image}).ok(204)
    daemon.put("/api/v1/functions/new?check=1", {"image": image, "memory_mib": 1}).problem(400)
    daemon.get("/api/v1/functions/new").problem(404)
