"""A real object store with notifications, for tests and for trying things by hand: Ceph's monitor, one
storage daemon that keeps its objects in memory, and the S3 gateway (RGW), all of Debian, on loopback.

    ceph.py DIRECTORY     starts one, prints how to reach it, ends it with the end of its input

Nothing is replicated, nothing is on disk but logs and keys, and all ports are free ones.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

from harness import free_port

AWS = "/usr/bin/aws"  # Debian's, whatever else is in the path
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool", AWS)
ACCESS, SECRET = "test-access", "test-secret-of-the-store"

CONFIG = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = v2:127.0.0.1:{mon}/0
public network = 127.0.0.0/8
public addr = 127.0.0.1
ms bind ipv6 = false
auth allow insecure global id reclaim = true
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 536870912
osd class load list = *
osd class default list = *
run dir = {dir}
admin socket = {dir}/$name.asok
pid file =
log file = {dir}/$name.log
keyring = {dir}/keyring
[mon.a]
mon data = {dir}/mon
mon addr = v2:127.0.0.1:{mon}/0
[osd.0]
osd data = {dir}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw enable apis = s3, admin, notifications
rgw thread pool size = 8
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
"""


def missing():
    """What is not installed; empty when a store can be started."""
    return [p for p in PROGRAMS if not shutil.which(p)]


class Store:
    def __init__(self, directory):
        self.dir = pathlib.Path(directory).resolve()
        self.fsid = str(uuid.uuid4())
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.processes = {}
        self.config = self.dir / "ceph.conf"

    # --- life -------------------------------------------------------------------------------------

    def run(self, *words, stdin=None, env=None):
        done = subprocess.run(
            [str(w) for w in words],
            input=stdin,
            capture_output=True,
            timeout=180,
            check=False,
            env={**os.environ, "CEPH_CONF": str(self.config), **(env or {})},
        )
        if done.returncode != 0:
            raise RuntimeError(f"{words}: {done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout

    def spawn(self, name, *words):
        with open(self.dir / f"{name}.out", "ab") as out:
            self.processes[name] = subprocess.Popen(
                [*words, "-f", "-c", str(self.config)], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def start(self):
        for sub in ("mon", "osd"):
            (self.dir / sub).mkdir(parents=True, exist_ok=True)
        mon = free_port()
        self.config.write_text(
            CONFIG.format(fsid=self.fsid, mon=mon, rgw=self.port, dir=self.dir)
        )
        keyring, monmap = self.dir / "keyring", self.dir / "monmap"
        self.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.",
                 "--cap", "mon", "allow *")
        self.run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *",
                 "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        self.run("ceph-authtool", keyring, "--gen-key", "-n", "client.rgw", "--cap", "mon", "allow *",
                 "--cap", "osd", "allow *")
        self.run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon}/0]", "--fsid", self.fsid,
                 monmap)
        self.run("ceph-mon", "-c", self.config, "--mkfs", "-i", "a", "--keyring", keyring, "--monmap",
                 monmap)
        self.spawn("mon", "ceph-mon", "-i", "a")
        self.run("ceph", "--connect-timeout", "120", "-s")
        self.start_osd(keyring)
        self.start_gateway()
        self.run("radosgw-admin", "user", "create", "--uid=test", "--display-name=test",
                 f"--access-key={ACCESS}", f"--secret-key={SECRET}")
        return self

    def start_osd(self, keyring):
        """The monitor makes the account of the storage daemon itself, from this key."""
        osd = str(uuid.uuid4())
        self.run("ceph-authtool", keyring, "--gen-key", "-n", "osd.0", "--cap", "mon", "allow *",
                 "--cap", "osd", "allow *")
        key = self.run("ceph-authtool", keyring, "-p", "-n", "osd.0").decode().strip()
        self.run("ceph", "osd", "new", osd, "-i", "-",
                 stdin=json.dumps({"cephx_secret": key}).encode())
        self.run("ceph-osd", "-c", self.config, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.spawn("osd", "ceph-osd", "-i", "0")
        self.wait(lambda: b"1 up" in self.run("ceph", "osd", "stat"), "the storage daemon is up")

    def start_gateway(self):
        self.spawn("rgw", "radosgw", "-n", "client.rgw")
        self.wait(self.answers, "the gateway answers")

    def stop_gateway(self):
        self.end(self.processes.pop("rgw"))

    def answers(self):
        try:
            with urllib.request.urlopen(self.endpoint, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def wait(self, condition, what, seconds=180):
        end = time.monotonic() + seconds
        while not condition():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    out = (self.dir / f"{name}.out").read_text(errors="replace")
                    raise RuntimeError(f"{name} ended: {out[-2000:]}")
            if time.monotonic() > end:
                raise RuntimeError(f"{what}: not within {seconds} s")
            time.sleep(0.1)

    @staticmethod
    def end(process):
        """The gateway first says goodbye; the others have nothing worth keeping."""
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self):
        for name in ("rgw", "osd", "mon"):
            process = self.processes.pop(name, None)
            if process:
                process.kill()
                process.wait()

    # --- as a client ------------------------------------------------------------------------------

    def aws(self, *words):
        """Runs Debian's AWS CLI against the store, and gives what it prints."""
        return self.run(AWS, "--endpoint-url", self.endpoint, "--output", "json", *words, env={
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "default",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        })

    def notify(self, bucket, *urls, persistent=False):
        """Has the store tell each URL of all that happens in the bucket; with `persistent` it keeps trying
        until it is answered with 2xx."""
        topics = []
        for i, url in enumerate(urls):
            name = f"{bucket}-{i}"
            arn = json.loads(self.aws("sns", "create-topic", "--name", name, "--attributes",
                                      json.dumps({"push-endpoint": url,
                                                  "persistent": str(persistent).lower()})))["TopicArn"]
            topics.append({"Id": name, "TopicArn": arn,
                           "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]})
        self.aws("s3api", "put-bucket-notification-configuration", "--bucket", bucket,
                 "--notification-configuration", json.dumps({"TopicConfigurations": topics}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    began = time.monotonic()
    store = Store(sys.argv[1])
    try:
        store.start()
        print(f"{store.endpoint} after {time.monotonic() - began:.1f} s; access key {ACCESS}, secret key "
              f"{SECRET}, region default; end of input ends it", flush=True)
        sys.stdin.read()
    finally:
        store.stop()
