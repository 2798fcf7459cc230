"""Container images, written as tools write them: layers, and around them an archive of `docker save` or an OCI image
layout."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar"


def layer(*entries):
    """A layer of (path, what): bytes are a file, None is a directory, "-> TARGET" a link, "= PATH" a hard link, and
    (bytes, mode) a file with its mode. A path may be a TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, what in entries:
            info = path if isinstance(path, tarfile.TarInfo) else tarfile.TarInfo(path)
            data = b""
            if isinstance(what, tuple):
                what, info.mode = what
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(what, bytes):
                data, info.size = what, len(what)
            elif what.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, what[3:]
            elif what.startswith("= "):
                info.type, info.linkname = tarfile.LNKTYPE, what[2:]
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


has_zstd = shutil.which("zstd") is not None


def configuration(layers, architecture="amd64", os="linux", **config):
    return {
        "architecture": architecture,
        "os": os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
    }


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def archive(files, compress=None, links=()):
    """A tar archive of {name: bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return (compress or bytes)(out.getvalue())


def saved(layers, tags=("app:latest",), **config):
    """As `docker save` did before it wrote image layouts; the second of two equal layers is a link."""
    files, links, names = {}, [], []
    for number, one in enumerate(layers):
        name = f"{number:064x}/layer.tar"
        same = next((known for known, data in files.items() if data == one), None)
        if same:
            links.append((name, "../" + same))
        else:
            files[name] = one
        names.append(name)
    text = json.dumps(configuration(layers, **config)).encode()
    config_name = hashlib.sha256(text).hexdigest() + ".json"
    files[config_name] = text
    image = {"Config": config_name, "RepoTags": list(tags), "Layers": names}
    files["manifest.json"] = json.dumps([image]).encode()
    return archive(files, links=links)


class Layout:
    """An OCI image layout."""

    def __init__(self):
        self.blobs = {}
        self.entries = []

    def blob(self, data):
        name = digest(data)
        self.blobs["blobs/sha256/" + name[7:]] = data
        return {"digest": name, "size": len(data)}

    def json(self, value):
        return self.blob(json.dumps(value).encode())

    def image(self, layers, compress=bytes, **config):
        """The descriptor of a manifest."""
        text = configuration(layers, **config)
        return self.json(
            {
                "schemaVersion": 2,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **self.json(text)},
                "layers": [{"mediaType": LAYER, **self.blob(compress(one))} for one in layers],
            }
        )

    def add(self, descriptor, name=None, platform=None):
        descriptor = dict(descriptor)
        if name:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        if platform:
            descriptor["platform"] = dict(zip(("os", "architecture"), platform.split("/")))
        self.entries.append(descriptor)
        return self

    def index(self):
        return {"schemaVersion": 2, "manifests": self.entries}

    def files(self):
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(self.index()).encode(),
            **self.blobs,
        }

    def archive(self, compress=bytes):
        return archive(self.files(), compress)

    def write(self, folder):
        for name, data in self.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder


def layout(layers, compress=bytes, **config):
    one = Layout()
    return one.add(one.image(layers, compress, **config), "app:latest", "linux/amd64")


def packed(data):
    return gzip.compress(data, mtime=0)
