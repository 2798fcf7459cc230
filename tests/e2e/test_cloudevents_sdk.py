"""The CloudEvents SDK for JavaScript, as npm has it, sends to /events."""

import json
import shutil
import subprocess

import pytest

from harness import wait_for

VERSION = "10.0.0"

SENDER = """
const { CloudEvent, emitterFor, httpTransport, Mode, HTTP } = require("cloudevents");
const url = process.argv[2];
(async () => {
    const results = [];
    for (const [mode, name] of [[Mode.BINARY, "binary"], [Mode.STRUCTURED, "structured"]]) {
        const emit = emitterFor(httpTransport(url), { mode });
        for (const data of [{ text: "é", n: 1.5 }, "plain text", new Uint8Array([0, 255, 1])]) {
            const event = new CloudEvent({
                type: "com.example.sdk", source: "/sdk/" + name, subject: "café",
                datacontenttype: typeof data === "string" ? "text/plain"
                    : data instanceof Uint8Array ? "application/octet-stream" : "application/json",
                data, myext: "x1",
            });
            const answer = await emit(event);
            results.push({ mode: name, id: event.id, answer: JSON.parse(answer.body) });
            const again = await emit(event);
            results.push({ mode: name, id: event.id, answer: JSON.parse(again.body), again: true });
        }
    }
    console.log(JSON.stringify(results));
})().catch((e) => { console.error(e); process.exit(1); });
"""


@pytest.fixture(scope="module")
def sdk(tmp_path_factory):
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("there is no npm; install Node.js to run this test")
    directory = tmp_path_factory.mktemp("sdk")
    try:
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1",
             "--fetch-timeout=20000", f"cloudevents@{VERSION}"],
            cwd=directory, capture_output=True, timeout=100, check=False, text=True)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer in time")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the SDK: {done.stderr[-300:]}")
    (directory / "send.js").write_text(SENDER)
    return directory


def test_the_sdk_sends_binary_and_structured_events(unid, sdk):
    unid.deploy("f", "request")
    unid.deploy("keep", "echo")
    unid.put("/api/v1/triggers/sdk", {
        "type": "cloudevents", "function": "f",
        "filter": {"type": "com.example.sdk", "source": {"prefix": "/sdk/"}, "subject": "café"},
    }).ok(201)
    done = subprocess.run(
        ["node", "send.js", f"http://127.0.0.1:{unid.port}/events"],
        cwd=sdk, capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == 12
    for result in results:
        answer = result["answer"]
        assert answer.get("matched") == 1, result
        assert (answer["accepted"], answer["duplicates"]) == ((0, 1) if result.get("again") else (1, 0)), result

    def there():
        items = unid.get("/api/v1/invocations?trigger=sdk").ok().json["items"]
        return len(items) == 6 and all(r["outcome"] == "ok" for r in items)

    wait_for(there, "each event has run once")
