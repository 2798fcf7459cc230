"""Container images as functions: what `docker save` and OCI tools write, given to --rootfs."""

import io
import json
import pathlib
import re
import tarfile

import pytest

import harness
import images
from images import Layout, layer, layout, packed, saved

BUSYBOX = pathlib.Path("/bin/busybox")

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="there is no /bin/busybox")


@pytest.fixture(scope="module")
def base():
    """A lower layer with a program in it."""
    return layer(
        ("bin", None),
        ("bin/busybox", (BUSYBOX.read_bytes(), 0o755)),
        ("bin/cat", "= bin/busybox"),
        ("bin/sh", "-> busybox"),
        ("etc", None),
        ("etc/old", b"old\n"),
        ("app/keep", b"lower\n"),
        ("app/gone", b"gone\n"),
    )


@pytest.fixture(scope="module")
def upper():
    return layer(("app/.wh.gone", b""), ("app/new", b"new\n"), ("etc/.wh..wh..opq", b""), ("etc/now", b"now\n"))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with harness.Daemon(tmp_path_factory.mktemp("unid"), driver="kvm") as daemon:
        yield daemon


def pushed(daemon, name, image, *words):
    """The function that became of an image."""
    return daemon.unictl("deploy", name, "--json", "--rootfs", "-", *words, stdin=image).ok().json


KINDS = {
    "saved": lambda layers, **config: saved(layers, **config),
    "saved-packed": lambda layers, **config: packed(saved(layers, **config)),
    "layout": lambda layers, **config: layout(layers, **config).archive(),
    "layout-gzip": lambda layers, **config: layout(layers, packed, **config).archive(),
    "layout-packed": lambda layers, **config: layout(layers, packed, **config).archive(packed),
}
if images.has_zstd:
    KINDS["layout-zstd"] = lambda layers, **config: layout(layers, images.zstd, **config).archive()


def test_every_form_of_an_image_is_the_same_function(shared, base, upper, tmp_path):
    config = {"Entrypoint": ["cat"], "Cmd": ["/app/new"], "Env": ["PATH=/usr/bin:/bin", "LANG=C"]}
    functions = [pushed(shared, "same", make([base, upper], **config)) for make in KINDS.values()]
    folder = layout([base, upper], **config).write(tmp_path)
    functions.append(shared.unictl("deploy", "same", "--rootfs", folder, "--json").ok().json)
    assert {f["image"] for f in functions} == {functions[0]["image"]}
    assert {f["version"] for f in functions} == {1}
    assert functions[0]["program"] == "/bin/cat" and functions[0]["args"] == ["/app/new"]
    assert functions[0]["env"] == {"PATH": "/usr/bin:/bin", "LANG": "C"}
    assert functions[0]["kind"] == "linux-rootfs" and functions[0]["workdir"] is None


def test_words_replace_what_the_image_says(shared, base):
    image = saved(
        [base],
        Entrypoint=["/bin/busybox", "cat"],
        Cmd=["/a"],
        Env=["A=image", "B=image", "PATH=/bin"],
        WorkingDir="/app",
        ExposedPorts={"8080/tcp": {}, "53/udp": {}},
    )
    shown = shared.unictl("deploy", "words", "--rootfs", "-", stdin=image).ok().err
    assert "program /bin/busybox, port 8080, working directory /app (from the image)" in shown
    function = shared.get("/api/v1/functions/words").ok().json
    assert function["args"] == ["cat", "/a"] and function["workdir"] == "/app"
    assert function["interface"] == "http"
    assert function["env"] == {"A": "image", "B": "image", "PATH": "/bin", "PORT": "8080"}
    function = pushed(
        shared, "words", image, "--interface", "filter", "--env", "B=mine", "--workdir", "/etc", "--", "b", "c"
    )
    assert function["args"] == ["cat", "b", "c"] and function["workdir"] == "/etc"
    told = shared.unictl("describe", "words").ok().text
    assert re.search(r"^Program: +/bin/\w+$", told, re.M) and re.search(r"^Workdir: +/etc$", told, re.M), told
    assert function["interface"] == "filter"
    assert function["env"] == {"A": "image", "B": "mine", "PATH": "/bin"}
    # As docker's --entrypoint, another program does not get the image's Cmd.
    for asked in ("/bin/cat", "cat"):
        function = pushed(shared, "words", image, asked, "--env", "PORT=1")
        assert function["program"] == "/bin/cat" and function["args"] == []
        assert function["env"]["PORT"] == "1"


def test_what_a_shell_would_start_is_started_without_it(shared, base):
    def program(*cmd, **config):
        done = shared.unictl("deploy", "shell", "--rootfs", "-", stdin=saved([base], Cmd=list(cmd), **config)).ok()
        function = shared.get("/api/v1/functions/shell").ok().json
        return [function["program"], *function["args"]], done.err

    words, told = program("/bin/sh", "-c", "exec cat  /app/new", Env=["PATH=/bin"])
    assert words == ["/bin/cat", "/app/new"] and "a shell" not in told
    for command in ("cat $X", "cat a | cat", "X=1 cat", "cd /app", "cat 'a b'"):
        words, told = program("/bin/sh", "-c", command)
        assert words == ["/bin/sh", "-c", command]
        assert "/bin/sh is a shell, and programs cannot start others here" in told
    script = layer(("start.sh", (b"#!/bin/sh\nexec \"$@\"\n", 0o755)))
    image = saved([base, script], Entrypoint=["/start.sh"], Cmd=["cat"])
    told = shared.unictl("deploy", "shell", "--rootfs", "-", stdin=image).ok().err
    assert "/start.sh is a script of a shell" in told
    # What an image is called does not steer the terminal.
    odd = layer(("odd\x1b[2J", (b"#!/bin/sh\n", 0o755)))
    told = shared.unictl("deploy", "shell", "--rootfs", "-", stdin=saved([base, odd], Cmd=["/odd\x1b[2J"])).ok().err
    assert "/odd?[2J is a script of a shell" in told and "\x1b" not in told


def test_what_cannot_be_is_told(shared, base):
    def refused(image, *words):
        done = shared.unictl("deploy", "bad", "--rootfs", "-", *words, stdin=image)
        assert done.status == 1
        return done.err

    several = Layout()
    several.add(several.image([base], Cmd=["cat"]), "one").add(several.image([base], Cmd=["sh"]), "two")
    assert "several images (one, two)" in refused(several.archive())
    two = json.dumps([{"Config": "a", "RepoTags": [name], "Layers": []} for name in ("a:1", "b:2")]).encode()
    assert "several images (a:1, b:2)" in refused(images.archive({"manifest.json": two}))
    for image in (
        saved([base], architecture="arm64", Cmd=["cat"]),
        Layout().add(Layout().image([base]), platform="linux/arm64").archive(),
    ):
        assert "the image is for linux/arm64, and machines here are linux/amd64" in refused(image)
    assert "does not say what runs" in refused(saved([base]))
    assert "'nothing' is no program in the image" in refused(saved([base], Cmd=["nothing"]))
    assert "exposes the ports 80, 443" in refused(
        saved([base], Cmd=["cat"], ExposedPorts={"443/tcp": {}, "80": {}})
    )
    damaged = layout([base], Cmd=["cat"])
    name = max(damaged.blobs, key=lambda one: len(damaged.blobs[one]))
    changed = bytearray(damaged.blobs[name])
    changed[700] ^= 1
    damaged.blobs[name] = bytes(changed)
    assert f"{name}: is damaged: its contents have the digest" in refused(damaged.archive())
    damaged.blobs[name] = changed[:5000]
    assert f"{name}: has 5000 bytes, and should have" in refused(damaged.archive())
    del damaged.blobs[name]
    assert f"{name} is not in the image's archive" in refused(damaged.archive())
    large = tarfile.TarInfo("large")
    large.size = 3 << 30
    assert "the layers have more than 2 GiB" in refused(saved([large.tobuf()], Cmd=["cat"]))
    assert 'a path with ".."' in refused(saved([base, layer(("../../etc/x", b""))], Cmd=["cat"]))
    for words in (("deploy", "bad"), ("check",)):
        done = shared.unictl(*words)
        assert done.status == 2 and "or --rootfs with a container image" in done.err


def test_images_can_be_applied(shared, base, tmp_path):
    (tmp_path / "app.tar").write_bytes(saved([base], Cmd=["cat", "x"], Env=["A=1", "B=1"], WorkingDir="/app"))
    functions = {
        "asis": {"image": "-", "rootfs": "app.tar", "env": {"B": "2"}},
        "other": {"image": "/bin/busybox", "rootfs": "app.tar", "args": ["ls"], "workdir": "/etc"},
    }
    (tmp_path / "f.json").write_text(json.dumps({"functions": functions}))
    shared.unictl("apply", "-f", tmp_path / "f.json").ok()
    one, other = (shared.get(f"/api/v1/functions/{name}").ok().json for name in functions)
    assert (one["program"], one["args"], one["workdir"]) == ("/bin/cat", ["x"], "/app")
    assert one["env"] == {"A": "1", "B": "2"}
    assert (other["program"], other["args"], other["workdir"]) == ("/bin/busybox", ["ls"], "/etc")


def test_one_of_several_platforms_is_chosen(shared, base):
    one = Layout()
    arm, ours = one.image([base], Cmd=["sh"], architecture="arm64"), one.image([base], Cmd=["cat"])
    inner = Layout()
    inner.add(arm, platform="linux/arm64").add(ours, platform="linux/amd64")
    inner.add(one.json({}), platform="unknown/unknown")
    one.add(one.json(inner.index()), "app:latest")
    assert pushed(shared, "chosen", one.archive())["program"] == "/bin/cat"


def test_a_file_of_that_name_is_no_image(shared, base, tmp_path):
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w") as tar:
        for member in (inside := tarfile.open(fileobj=io.BytesIO(base))):
            tar.addfile(member, inside.extractfile(member) if member.isreg() else None)
        info = tarfile.TarInfo("manifest.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    done = shared.unictl("deploy", "plain", "/bin/cat", "--rootfs", "-", "--json", stdin=out.getvalue())
    assert done.ok().json["program"] == "/bin/cat"


@pytest.mark.kvm
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_put_on_top_of_each_other(real, base, upper, kind):
    image = KINDS[kind]([base, upper], Cmd=["/bin/busybox", "tail", "-n", "+1", "/app/keep", "/app/new"])
    real.unictl("deploy", "find", "--rootfs", "-", stdin=image).ok()
    assert real.call("find").ok().body == b"==> /app/keep <==\nlower\n\n==> /app/new <==\nnew\n"
    for gone in ("/app/gone", "/etc/old"):
        told = real.unictl("deploy", "find", "--rootfs", "-", "--", "/bin/cat", gone, stdin=image).err
        assert f"'{gone}': No such file" in told


@pytest.mark.kvm
def test_a_program_starts_in_its_working_directory(real, base):
    more = layer(("app/cat", "-> ../bin/busybox"), ("app/sub", None))
    missing = saved([base], Entrypoint=["./cat"], Cmd=["keep"], WorkingDir="/app")
    assert "'./cat' is no program" in real.unictl("deploy", "dir", "--rootfs", "-", stdin=missing).err
    # A directory that nobody has made is made.
    made = saved([base], Entrypoint=["/bin/busybox"], Cmd=["pwd"], WorkingDir="/not/yet")
    real.unictl("deploy", "dir", "--rootfs", "-", stdin=made).ok()
    assert real.call("dir").ok().body == b"/not/yet\n"
    run = saved([base, more], Entrypoint=["./cat"], Cmd=["keep", "-"], WorkingDir="/app")
    real.unictl("deploy", "dir", "--rootfs", "-", stdin=run).ok()
    for _ in range(3):  # from the snapshot
        assert real.call("dir", b"more").ok().body == b"lower\nmore"
    page = ("sh", "-c", "echo Content-Type: text/plain; echo; pwd; read -r line <keep; echo $line")
    for snapshot in ("ready", "start"):
        real.unictl("deploy", "dir", "/bin/busybox", "--rootfs", "-", "--interface", "cgi", "--snapshot", snapshot,
                    "--", *page, stdin=run).ok()
        assert real.call("dir").ok().body == b"/app\nlower\n"
    words = ("deploy", "dir", "/bin/busybox", "--rootfs", "-", "--workdir")
    real.unictl(*words, "/app/sub/..", "--", "pwd", stdin=run).ok()
    assert real.call("dir").ok().body == b"/app\n"
    for nowhere in ("/nowhere", "/app/keep"):
        refused = real.unictl(*words, nowhere, "--", "pwd", stdin=run)
        assert refused.status == 1
        assert f"the working directory {nowhere} cannot be entered" in refused.err


@pytest.mark.kvm
def test_check_takes_the_same_words(real, base):
    image = saved([base], Cmd=["cat", "/app/keep"], Env=["PATH=/bin"])
    done = real.unictl("check", "--run", "--rootfs", "-", stdin=image).ok()
    assert "program: /bin/cat" in done.text and "run: ok" in done.text
