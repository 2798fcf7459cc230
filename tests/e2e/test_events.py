"""Triggers: what stores, CloudEvents producers, tables and clocks send, over HTTP, with the fake driver."""

import base64
import http.server
import json
import os
import re
import sqlite3
import subprocess
import threading
import time

import pytest

import harness
from harness import wait_for
from test_faults import needs_fault_points
from test_queue import waiting

CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": "com.example.made"}


def record(key, source="aws:s3", event="ObjectCreated:Put", bucket="photos", etag="e", **more):
    return {"eventSource": source, "eventName": event,
            "s3": {"bucket": {"name": bucket}, "object": {"key": key, "eTag": etag, **more}}}


def bearer(trigger):
    return {"Authorization": f"Bearer {trigger['token']}"}


class Triggers:
    """Makes triggers and sends to them."""

    def __init__(self, unid):
        self.unid = unid

    def add(self, trigger, type="s3", status=201, **config):
        return self.unid.put(f"/api/v1/triggers/{trigger}", {"type": type, **config}).ok(status).json

    def s3(self, trigger, *records, status=200, **headers):
        answer = self.unid.post(f"/events/s3/{trigger['name']}", {"Records": list(records)},
                                headers={**bearer(trigger), **headers})
        return answer.ok(status).json

    def ran(self, trigger, count):
        """The receipts of a trigger, once there are so many and all went well."""

        def there():
            items = self.unid.get(f"/api/v1/invocations?trigger={trigger}").ok().json["items"]
            return items if len([r for r in items if r["outcome"] == "ok"]) == count else None

        return wait_for(there, f"{count} runs of {trigger}")


class Sink(http.server.ThreadingHTTPServer):
    """Keeps what is posted to it; as a destination it sees what a function answered."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SinkHandler)
        self.got = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class SinkHandler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.got.append((self.command, self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def sink():
    server = Sink()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def triggers(unid):
    return Triggers(unid)


def seen_by(sink, count=1):
    wait_for(lambda: len(sink.got) >= count, "the function's answer has come")
    return [body for _, _, _, body in sink.got]


# --- triggers as such -----------------------------------------------------------------------------


def test_triggers_are_made_listed_replaced_and_removed(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", bucket="photos", prefix="in/")
    assert made["functions"] == ["f"] and made["token"] and made["url"].endswith("/events/s3/a")
    again = triggers.add("a", function="f", bucket="photos", status=200)
    assert "token" not in again and "prefix" not in again
    triggers.s3(made, record("x"))  # the token is what it was
    triggers.add("b", type="cloudevents", functions=["f", "f:1"])
    triggers.add("c", type="cron", function="f", schedule="0 0 1 1 *")
    names = [t["name"] for t in unid.get("/api/v1/triggers").ok().json["items"]]
    assert names == ["a", "b", "c"]
    page = unid.get("/api/v1/triggers?limit=2").ok().json
    assert page["next"] == "b"
    rest = unid.get("/api/v1/triggers?limit=2&cursor=b").ok().json
    assert [t["name"] for t in rest["items"]] == ["c"] and rest["next"] is None
    unid.delete("/api/v1/triggers/a").ok(204)
    unid.delete("/api/v1/triggers/a").problem(404)
    unid.get("/api/v1/triggers/a").problem(404)
    unid.post("/events/s3/a", {"Records": []}, headers=bearer(made)).problem(404)


def test_triggers_survive_kill(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", access_key="AK", secret_key="secret-of-the-store",
                        endpoint="http://127.0.0.1:9")
    unid.kill()
    unid.start()
    assert triggers.s3(made, record("x"))["accepted"] == 1
    kept = unid.get("/api/v1/triggers/a").ok()
    assert kept.json["has_credentials"] and b"secret-of-the-store" not in kept.body
    assert b"token" not in kept.body


def test_bad_triggers_are_refused_with_a_reason(shared):
    shared.deploy("f", "echo")
    for body, word in (
        ({}, "type"),
        ({"type": "s3"}, "functions"),
        ({"type": "s3", "function": "f", "nonsense": 1}, "nonsense"),
        ({"type": "s3", "function": "f", "token": "short"}, "token"),
        ({"type": "s3", "function": "f", "on_success": "http://"}, "on_success"),
        ({"type": "cron", "function": "f", "schedule": "61 * * * *"}, "minute"),
        ({"type": "cron", "function": "f", "schedule": "* * * * *", "timezone": "Mars/X"}, "Mars"),
    ):
        assert word in shared.put("/api/v1/triggers/bad", body).problem(400)["detail"]
    missing = {"type": "s3", "functions": ["f", "nobody"]}
    assert "nobody" in shared.put("/api/v1/triggers/bad", missing).problem(422)["detail"]
    shared.put("/api/v1/triggers/Bad", {"type": "s3", "function": "f"}).problem(400)
    shared.put("/api/v1/triggers/bad", b"{", headers={"Content-Type": "application/json"}).problem(400)
    shared.get("/api/v1/triggers/bad").problem(404)
    shared.get("/api/v1/triggers?limit=0").problem(400)


def test_a_token_of_ones_own(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", token="my-own-token-0123")
    assert made["token"] == "my-own-token-0123"
    triggers.s3(made, record("x"))
    triggers.add("a", function="f", token="another-token-0123", status=200)
    unid.post("/events/s3/a", {"Records": []}, headers=bearer(made)).problem(401)


# --- object stores --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, sent, key",
    [
        ("minio:s3", "in%2Fa+b%2B%C3%A9.jpg", "in/a b+é.jpg"),
        ("aws:s3", "in/a+b%2B%C3%A9.jpg", "in/a b+é.jpg"),
        ("ceph:s3", "in/a b+é.jpg", "in/a b+é.jpg"),
    ],
)
def test_keys_reach_the_function_decoded(unid, triggers, sink, source, sent, key):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", prefix="in/a b+", suffix=".jpg", on_success=sink.url + "/x")
    body = {"EventName": "s3:ObjectCreated:Put", "Key": "ignored", "Records": [record(sent, source)]}
    unid.post("/events/s3/a", body, headers=bearer(made)).ok()
    event = json.loads(seen_by(sink)[0])
    assert event["Records"][0]["s3"]["object"]["key"] == key
    assert len(event["Records"]) == 1


def test_the_head_of_the_request_tells_the_event(unid, triggers, sink):
    unid.deploy("f", "request")
    made = triggers.add("a", function="f", on_success=sink.url)
    triggers.s3(made, record("caf%C3%A9+1.jpg"))
    head = seen_by(sink)[0].decode()
    fields = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.splitlines() if ": " in line)}
    assert fields["x-unid-event-key"] == "caf%C3%A9%201.jpg", head
    assert fields["x-unid-event-type"] == "s3:ObjectCreated:Put"
    assert fields["x-unid-event-bucket"] == "photos"
    assert fields["x-unid-trigger"] == "a"
    assert fields["content-type"] == "application/json"


def test_each_record_is_an_invocation_and_filters_hold(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", bucket="photos", prefix="in/", suffix=".jpg",
                        events=["s3:ObjectCreated:*"])
    report = triggers.s3(
        made,
        record("in/1.jpg"),
        record("in/2.jpg", event="s3:ObjectCreated:Copy", source="minio:s3"),
        record("out/3.jpg"),
        record("in/4.png"),
        record("in/5.jpg", event="ObjectRemoved:Delete"),
        record("in/6.jpg", bucket="other"),
    )
    assert (report["events"], report["matched"], report["accepted"]) == (6, 2, 2)
    assert len({i["id"] for i in report["invocations"]}) == 2
    receipts = triggers.ran("a", 2)
    assert {r["trigger_name"] for r in receipts} == {"a"} and {r["trigger"] for r in receipts} == {"event"}
    assert unid.get("/api/v1/triggers/a").json["counts"]["filtered"] == 4


def test_a_thousand_copies_run_once(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    first = triggers.s3(made, record("x"))["invocations"][0]["id"]
    for _ in range(9):
        report = triggers.s3(made, *[record("x")] * 111)
        assert report["accepted"] == 0 and report["duplicates"] == 111
        assert {i["id"] for i in report["invocations"]} == {first}
    unid.kill()
    unid.start()
    assert triggers.s3(made, record("x"))["duplicates"] == 1
    assert triggers.s3(made, record("x", etag="other"))["accepted"] == 1
    triggers.ran("a", 2)


def test_fan_out_runs_each_function_once(unid, triggers):
    for name in ("one", "two", "three"):
        unid.deploy(name, "echo")
    made = triggers.add("a", functions=["one", "two:live", "three:1"])
    triggers.add("b", function="one")  # not this trigger's
    report = triggers.s3(made, record("x"), record("y"))
    assert report["accepted"] == 6 and report["matched"] == 2
    receipts = triggers.ran("a", 6)
    assert sorted(r["function"] for r in receipts) == ["one"] * 2 + ["three"] * 2 + ["two"] * 2


def test_sns_and_eventbridge_are_understood(unid, triggers, sink):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", on_success=sink.url)
    sns = {"Type": "Notification", "TopicArn": "arn:aws:sns:eu:1:t", "MessageId": "m",
           "Message": json.dumps({"Records": [record("in/a+b")]})}
    password = base64.b64encode(f"any:{made['token']}".encode()).decode()
    unid.post("/events/s3/a", json.dumps(sns).encode(), headers={
        "Authorization": f"Basic {password}", "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": "Notification"}).ok()
    bridge = {"source": "aws.s3", "detail-type": "Object Created", "detail": {
        "reason": "PutObject", "bucket": {"name": "b"}, "object": {"key": "in/c+d", "etag": "1"}}}
    unid.post(f"/events/s3/a?token={made['token']}", bridge).ok()
    keys = {json.loads(b)["Records"][0]["s3"]["object"]["key"] for b in seen_by(sink, 2)}
    assert keys == {"in/a b", "in/c+d"}


def test_test_messages_and_probes_are_answered(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}
    assert unid.post("/events/s3/a", test, headers=bearer(made)).ok().json["events"] == 0
    assert unid.get("/events/s3/a").ok()
    assert unid.request("HEAD", "/events/s3/a").status == 200
    unid.get("/events/s3/nobody").problem(404)
    answer = unid.request("OPTIONS", "/events/s3/a", headers={"WebHook-Request-Origin": "x.example"})
    assert answer.ok().headers["WebHook-Allowed-Origin"] == "x.example"


def test_only_the_right_token_is_let_in(unid, triggers):
    unid.deploy("f", "echo")
    made, other = triggers.add("a", function="f"), triggers.add("b", function="f")
    token = made["token"]
    body = {"Records": [record("x")]}
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Bearer {other['token']}"},
        {"Authorization": "Basic !!!!"},
        {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()},
        {"Authorization": "Basic " + "A" * 4000},
    ):
        problem = unid.post("/events/s3/a", body, headers=headers).problem(401)
        assert "token" in problem["detail"]
    unid.post("/events/s3/a?token=wrong", body).problem(401)
    assert unid.get("/api/v1/invocations").json["items"] == []
    assert token not in unid.log()


def test_garbage_is_refused_and_says_what_is_expected(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    for garbage in (b"", b"\0\xff" * 50, b"{}", b"[]", b'{"Records":[{}]}', b"[" * 100000,
                    b'{"Records":[' + b",".join([b"0"] * 1000) + b"]}"):
        detail = unid.post("/events/s3/a", garbage, headers=bearer(made)).problem(400)["detail"]
        assert "S3" in detail
    many = {"Records": [record(str(i)) for i in range(1001)]}
    unid.post("/events/s3/a", many, headers=bearer(made)).problem(413)
    unid.deploy("g", "echo")
    triggers.add("a", functions=["f", "g"], status=200)
    unid.post("/events/s3/a", {"Records": many["Records"][:501]}, headers=bearer(made)).problem(413)
    assert unid.get("/api/v1/invocations").json["items"] == []


def test_a_hundred_mebibytes_are_refused_early_in_constant_memory(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    before = unid.resident_kib("VmRSS")
    announced = unid.raw()
    announced.sendall(
        f"POST /events/s3/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {made['token']}\r\n"
        f"Content-Length: {100 << 20}\r\n\r\n".encode())
    assert harness.read_answer(announced).status == 413  # before a byte of it
    announced.close()

    sent = []

    def chunks():
        for i in range(100):
            sent.append(i)
            yield b"x" * (1 << 20)

    answer = unid.post("/events/s3/a", chunks(), headers={**bearer(made), "Transfer-Encoding": "chunked"})
    answer.problem(413)
    assert len(sent) < 50  # what the sockets between took
    assert unid.post("/events", b"y" * ((1 << 20) + 1), headers=CE).problem(413)
    assert unid.resident_kib() - before < 24 * 1024


def test_out_of_order_events_are_flagged_or_dropped(unid, triggers, sink):
    unid.deploy("f", "request")
    flag = triggers.add("flag", function="f", order="flag", on_success=sink.url)
    drop = triggers.add("drop", function="f", order="drop")
    # Ceph's, whose bytes are the other way round: 27 s, then 26 s.
    late = record("x", "ceph:s3", sequencer="1BFC006B5BF5C926")
    early = record("x", "ceph:s3", sequencer="1AFC006BC5BC8F1E")
    for made in (flag, drop):
        assert triggers.s3(made, late)["accepted"] == 1
    seen_by(sink, 1)  # else the answers could come in another order: they are events of their own
    assert triggers.s3(flag, early)["accepted"] == 1
    report = triggers.s3(drop, early)
    assert report["stale"] == 1 and report["invocations"][0] == {"id": None, "result": "stale"}
    assert triggers.s3(drop, record("y", "ceph:s3", sequencer="1AFC006BC5BC8F1E"))["accepted"] == 1
    heads = [b.decode().lower() for b in seen_by(sink, 2)]
    assert ["x-unid-out-of-order: 1" in h for h in heads] == [False, True]


def test_disabled_triggers_take_nothing(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", enabled=False)
    assert triggers.s3(made, record("x"))["matched"] == 0


def test_a_function_that_was_removed_leaves_dead_letters(unid, triggers):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    unid.delete("/api/v1/functions/f").ok(204)
    assert triggers.s3(made, record("x"))["accepted"] == 1
    letters = wait_for(lambda: unid.get("/api/v1/deadletters?trigger=a").json["items"], "a dead letter")
    assert letters[0]["function"] == "f"


# --- SNS ------------------------------------------------------------------------------------------


def subscription(url):
    return {"Type": "SubscriptionConfirmation", "Token": "t", "TopicArn": "arn:aws:sns:eu:1:topic",
            "Message": "You have chosen to subscribe", "SubscribeURL": url}


def topic_of(unid, name="a"):
    topics = unid.get(f"/api/v1/triggers/{name}").ok().json["topics"]
    assert len(topics) == 1
    return topics[0]


def test_subscriptions_are_recorded_and_not_confirmed(unid, triggers, sink):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    unid.post("/events/s3/a", subscription(sink.url), headers=bearer(made)).ok()
    topic = topic_of(unid)
    assert topic["subscribe_url"] == sink.url and topic["confirmed_at"] is None
    unid.kill()
    unid.start()
    assert topic_of(unid) == topic
    triggers.add("a", function="f", prefix="x", status=200)
    assert topic_of(unid) == topic
    time.sleep(0.2)
    assert sink.got == []


def test_subscriptions_are_confirmed_when_the_trigger_says_so(unid, triggers, sink):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", confirm=True, confirm_host="http://127.0.0.1")
    unid.post("/events/s3/a", subscription(sink.url + "/?Action=x"), headers=bearer(made)).ok()
    topic = wait_for(lambda: topic_of(unid)["confirmed_at"] and topic_of(unid), "it is confirmed")
    assert topic["error"] is None
    assert [(m, p) for m, p, _, _ in sink.got] == [("GET", "/?Action=x")]


def test_other_hosts_are_not_asked(unid, triggers, sink):
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f", confirm=True)
    for url in (sink.url, f"https://127.0.0.1:{sink.server_port}/",
                f"https://sns.amazonaws.com@127.0.0.1:{sink.server_port}/",
                "https://xamazonaws.com/", "https://amazonaws.com.example/", "file:///etc/passwd", "x",
                "https://sns.eu.amazonaws.com.example/", "https://mine.s3.amazonaws.com/",
                "https://sns.mine.s3.amazonaws.com/", "http://sns.eu.amazonaws.com/"):
        unid.post("/events/s3/a", subscription(url), headers=bearer(made)).ok()
        topic = wait_for(lambda: topic_of(unid)["subscribe_url"] == url and topic_of(unid)["error"]
                         and topic_of(unid), url)
        assert "confirm_host" in topic["error"] and topic["confirmed_at"] is None
    assert sink.got == []


# --- CloudEvents ----------------------------------------------------------------------------------


def structured(id, **more):
    return {"specversion": "1.0", "id": id, "source": "/test", "type": "com.example.made", **more}


def test_cloudevents_in_all_modes_reach_the_function(unid, triggers, sink):
    unid.deploy("f", "echo")
    triggers.add("a", type="cloudevents", function="f", on_success=sink.url)
    answer = unid.post("/events", b"hello", headers={**CE, "Content-Type": "text/plain"}).ok(202).json
    assert answer["accepted"] == 1
    event = structured("2", data={"n": 1.10}, subject="é")
    text = json.dumps(event, indent=1).encode()
    unid.post("/events", text, headers={"Content-Type": "application/cloudevents+json"}).ok(202)
    batch = [structured("3"), structured("4", data_base64="AAE=")]
    answer = unid.post("/events", json.dumps(batch).encode(),
                       headers={"Content-Type": "application/cloudevents-batch+json; charset=utf-8"})
    assert answer.ok(202).json["accepted"] == 2
    bodies = seen_by(sink, 4)
    assert b"hello" in bodies and text in bodies  # as they came
    single = [json.loads(b) for b in bodies if b not in (b"hello", text)]
    assert sorted(single, key=lambda e: e["id"]) == batch


def test_binary_attributes_reach_the_function(unid, triggers, sink):
    unid.deploy("f", "request")
    triggers.add("a", type="cloudevents", function="f", on_success=sink.url)
    unid.post("/events", b"{}", headers={**CE, "ce-subject": "Euro%E2%82%AC", "ce-myext": "x",
                                         "Content-Type": "application/json"}).ok(202)
    head = seen_by(sink)[0].decode().lower()
    for line in ("ce-id: 1", "ce-type: com.example.made", "ce-subject: euro%e2%82%ac", "ce-myext: x",
                 "x-unid-event-subject: euro%e2%82%ac", "content-type: application/json"):
        assert line in head, head


def test_cloudevents_are_deduplicated_by_source_and_id(unid, triggers):
    unid.deploy("f", "echo")
    triggers.add("a", type="cloudevents", function="f")
    assert unid.post("/events", b"1", headers=CE).json["accepted"] == 1
    assert unid.post("/events", b"2", headers=CE).json["duplicates"] == 1
    # The same event, another mode.
    answer = unid.post("/events", json.dumps(structured("1")).encode(),
                       headers={"Content-Type": "application/cloudevents+json"})
    assert answer.json["duplicates"] == 1
    assert unid.post("/events", b"3", headers={**CE, "ce-source": "/else"}).json["accepted"] == 1


def test_every_trigger_whose_filter_fits_gets_the_event(unid, triggers):
    unid.deploy("f", "echo")
    triggers.add("all", type="cloudevents", function="f")
    triggers.add("made", type="cloudevents", function="f", filter={"type": "com.example.made"})
    triggers.add("com", type="cloudevents", function="f", filter={"type": {"prefix": "com."},
                                                                 "source": {"suffix": "st"}})
    triggers.add("gone", type="cloudevents", function="f", filter={"type": {"suffix": ".gone"}})
    report = unid.post("/events", b"x", headers=CE).ok(202).json
    assert report["accepted"] == 3 and report["matched"] == 1
    for name, count in (("all", 1), ("made", 1), ("com", 1)):
        triggers.ran(name, count)
    report = unid.post("/events", b"x", headers={**CE, "ce-id": "2", "ce-type": "other"}).ok(202).json
    assert report["accepted"] == 1


def test_events_that_nobody_wants_are_counted(unid, triggers):
    assert unid.post("/events", b"x", headers=CE).ok(202).json["matched"] == 0
    text = unid.get("/metrics").body.decode()
    assert 'unid_events_total{source="cloudevents",result="unmatched"} 1' in text


def test_what_is_no_cloudevent_is_refused_with_what_is_expected(unid):
    for body, headers in (
        (b"", {}),
        (b"hello", {"Content-Type": "text/plain"}),
        (b"{}", {"Content-Type": "application/json"}),
        (b"{}", {"Content-Type": "application/cloudevents+json"}),
        (b"{}", {"Content-Type": "application/cloudevents-batch+json"}),
        (b"x", {**CE, "ce-specversion": "0.3"}),
        (b"x", {k: v for k, v in CE.items() if k != "ce-id"}),
    ):
        assert unid.post("/events", body, headers=headers).problem(400)["detail"]


def test_the_handshake_against_abuse(unid):
    answer = unid.request("OPTIONS", "/events", headers={
        "WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}).ok()
    assert answer.headers["WebHook-Allowed-Origin"] == "eventemitter.example.com"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"
    assert "POST" in answer.headers["Allow"]
    assert "WebHook-Allowed-Origin" not in unid.request("OPTIONS", "/events").ok().headers


def test_who_may_send_to_events(make_unid, tmp_path):
    token = tmp_path / "token"
    token.write_text("the-token-of-the-rest-api\n")
    unid = make_unid(flags=["--set", f"api.token_file={token}"]).start()
    rest = {"Authorization": "Bearer the-token-of-the-rest-api"}
    image = harness.sdk_image()
    digest = unid.post("/api/v1/images", image, headers=rest).ok(201).json["digest"]
    unid.put("/api/v1/functions/f", {"image": digest, "args": ["echo"]}, headers=rest).ok(201)
    made = {}
    for name in ("a", "b"):
        made[name] = unid.put(f"/api/v1/triggers/{name}", {"type": "cloudevents", "function": "f"},
                              headers=rest).ok(201).json
    unid.post("/events", b"x", headers=CE).problem(401)
    unid.post("/events", b"x", headers={**CE, "Authorization": "Bearer wrong-token-0123456"}).problem(401)
    assert unid.post("/events", b"x", headers={**CE, **rest}).ok(202).json["accepted"] == 2
    # A trigger's token lets events to that trigger only.
    only = unid.post("/events", b"x", headers={**CE, "ce-id": "2", **bearer(made["a"])}).ok(202).json
    assert only["accepted"] == 1
    unid.get("/api/v1/triggers", headers=bearer(made["a"])).problem(401)
    # A page of another site cannot send.
    unid.post("/events", b"x", headers={**CE, **rest, "Origin": "http://evil.example"}).problem(403)
    unid.post("/events", b"x", headers={**CE, **rest, "Host": "evil.example"}).problem(421)


# --- table changes --------------------------------------------------------------------------------


def change(id, name="INSERT", table="orders", number="1"):
    return {"eventID": id, "eventName": name, "eventSource": "aws:dynamodb",
            "dynamodb": {"Keys": {"Id": {"N": "1"}}, "SequenceNumber": number},
            "eventSourceARN": f"arn:aws:dynamodb:eu-1:1:table/{table}/stream/2026-06-27T00:48:05.899"}


def test_table_changes_go_by_table_and_name(unid, triggers, sink):
    unid.deploy("f", "echo")
    triggers.add("orders", type="dynamodb", function="f", table="orders", events=["INSERT", "REMOVE"],
                 on_success=sink.url)
    triggers.add("any", type="dynamodb", function="f")
    triggers.add("other", type="cloudevents", function="f")
    records = [change("1"), change("2", "MODIFY"), change("3", "REMOVE"), change("4", table="users")]
    report = unid.post("/events", {"Records": records}).ok(202).json
    assert report["events"] == 4 and report["accepted"] == 2 + 4
    ids = [json.loads(b)["Records"][0]["eventID"] for b in seen_by(sink, 2)]
    assert sorted(ids) == ["1", "3"]
    assert unid.post("/events", {"Records": records[:1]}).json["duplicates"] == 2
    unid.post("/events", {"Records": [{"dynamodb": {}}]}).problem(400)


def test_table_changes_out_of_order(unid, triggers):
    unid.deploy("f", "echo")
    triggers.add("a", type="dynamodb", function="f", order="drop")
    assert unid.post("/events", {"Records": [change("1", number="1000")]}).json["accepted"] == 1
    assert unid.post("/events", {"Records": [change("2", number="999")]}).json["stale"] == 1


# --- cron -----------------------------------------------------------------------------------------


def test_cron_runs_at_its_times(unid, triggers, sink):
    unid.deploy("f", "echo")
    made = triggers.add("a", type="cron", function="f", schedule="@every 1s", on_success=sink.url)
    assert made["url"] is None and "token" not in made
    runs = [json.loads(b) for b in seen_by(sink, 3)]
    assert runs[0]["trigger"] == "a" and runs[0]["schedule"] == "@every 1s"
    times = [r["planned_at"] for r in runs]
    assert times == sorted(set(times)) and all(t.endswith(".000000Z") for t in times)
    unid.delete("/api/v1/triggers/a").ok(204)
    wait_for(lambda: waiting(unid) == 0, "what was due before has run")
    before = len(sink.got)
    time.sleep(1.5)
    assert len(sink.got) == before


@pytest.mark.parametrize("missed, count", [("skip", 0), ("once", 1), ("all", 100)])
def test_missed_runs_are_treated_as_wanted(unid, triggers, missed, count):
    unid.deploy("f", "echo")
    # In no minute that this test sees, but often in the past.
    now = time.gmtime()
    minute = (now.tm_min + 30) % 60
    triggers.add("a", type="cron", function="f", schedule=f"{minute} * * * *", missed=missed)
    assert unid.stop() == 0
    with sqlite3.connect(unid.state / "unid.db") as db:  # ten days ago
        db.execute("UPDATE triggers SET last_s = last_s - 864000")
    unid.start()
    if count == 0:
        time.sleep(0.5)
    wait_for(lambda: unid.get("/api/v1/triggers/a").json["counts"]["accepted"] == count, "made up")
    # Once and for all: not again after another start.
    unid.kill()
    unid.start()
    time.sleep(0.5)
    assert unid.get("/api/v1/triggers/a").json["counts"]["accepted"] == 0


def test_a_planned_time_runs_once_even_if_its_note_was_lost(unid, triggers):
    unid.deploy("f", "echo")
    now = time.gmtime()
    triggers.add("a", type="cron", function="f", schedule=f"{(now.tm_min + 30) % 60} * * * *", missed="once")
    unid.stop()
    with sqlite3.connect(unid.state / "unid.db") as db:
        (was,) = db.execute("SELECT last_s FROM triggers").fetchone()
        db.execute("UPDATE triggers SET last_s = last_s - 7200")
    unid.start()
    triggers.ran("a", 1)
    unid.kill()
    with sqlite3.connect(unid.state / "unid.db") as db:
        db.execute("UPDATE triggers SET last_s = ? - 7200", (was,))
    unid.start()
    wait_for(lambda: unid.get("/api/v1/triggers/a").json["counts"]["duplicates"] == 1, "known already")
    triggers.ran("a", 1)


# --- unictl ---------------------------------------------------------------------------------------


def test_unictl_adds_shows_lists_and_removes(unid):
    unid.deploy("thumb", "echo")
    added = unid.unictl("trigger", "add", "s3", "thumbs", "--function", "thumb", "--bucket", "photos",
                        "--prefix", "in/", "--suffix", ".jpg", "--events", "s3:ObjectCreated:*").ok().text
    assert f"http://127.0.0.1:{unid.port}/events/s3/thumbs" in added
    token = [line.split()[1] for line in added.splitlines() if line.startswith("Token:")][0]
    event = {"Records": [record("in/1.jpg")]}
    unid.post("/events/s3/thumbs", event, headers={"Authorization": f"Bearer {token}"}).ok()
    listed = unid.unictl("trigger", "ls").ok().text
    assert "thumbs" in listed and "prefix=in/" in listed and token not in listed
    shown = unid.unictl("trigger", "show", "thumbs").ok().text
    assert "photos" in shown and token not in shown
    assert token not in unid.unictl("trigger", "add", "s3", "thumbs", "-f", "thumb").ok().text
    both = unid.unictl("trigger", "add", "cloudevents", "ce", "-f", "thumb", "--type", "com.*.made",
                       "--source", "*/x", "--subject", "y", "--json").ok().json
    assert both["filter"] == {"type": {"prefix": "com.", "suffix": ".made"}, "source": {"suffix": "/x"},
                              "subject": {"exact": "y"}}
    cron = unid.unictl("trigger", "add", "cron", "tick", "-f", "thumb", "--schedule", "0 9 * * mon-fri",
                       "--timezone", "Europe/Berlin", "--missed", "once").ok().text
    assert "Next:" in cron
    table = unid.unictl("trigger", "add", "dynamodb", "t", "-f", "thumb", "--table", "orders", "--events",
                        "INSERT,REMOVE", "--max-age", "1h", "--json").ok().json
    assert table["events"] == ["INSERT", "REMOVE"] and table["max_age_ms"] == 3600000
    assert unid.unictl("trigger", "rm", "t", "ce").ok().text.split() == ["t", "ce"]
    assert [t["name"] for t in unid.unictl("trigger", "ls", "--json").ok().json["items"]] == ["thumbs", "tick"]


def test_a_trigger_s_own_retries_come_before_the_settings(make_unid):
    flags = [w for s in ("max_attempts=3", "max_age_ms=60000", "backoff_ms=1") for w in ("--set", f"retry.{s}")]
    unid = make_unid(flags=flags).start()
    unid.deploy("f", "status", "500")
    unid.unictl("trigger", "add", "cloudevents", "daemon", "-f", "f", "--type", "com.daemon").ok()
    unid.unictl("trigger", "add", "cloudevents", "own", "-f", "f", "--type", "com.own", "--max-attempts", "1",
                "--max-age", "1h").ok()
    assert unid.unictl("trigger", "show", "own", "--json").ok().json["retry"] == {
        "max_attempts": 1, "max_age_ms": 3600000, "backoff_ms": 1, "backoff_max_ms": 300000}
    assert unid.get("/api/v1/triggers/daemon").ok().json["retry"]["max_age_ms"] == 60000
    assert '"max_attempts": 1' in unid.unictl("trigger", "show", "own").ok().text
    rows = [line.split() for line in unid.unictl("trigger", "ls").ok().text.splitlines()]
    assert rows[0][5] == "ATTEMPTS" and {r[0]: r[5] for r in rows[1:]} == {"daemon": "3", "own": "1"}
    for name in ("daemon", "own"):
        unid.post("/events", {"specversion": "1.0", "id": "1", "source": "/x", "type": f"com.{name}"},
                  headers={"Content-Type": "application/cloudevents+json"}).ok(202)
    letters = wait_for(lambda: (lambda items: len(items) == 2 and items)(
        unid.get("/api/v1/deadletters").ok().json["items"]), "two dead letters")
    assert {i["trigger"]: i["attempts"] for i in letters} == {"daemon": 3, "own": 1}


def test_unictl_says_what_is_wrong(unid, tmp_path):
    unid.deploy("f", "echo")
    missing = unid.unictl("trigger", "add", "s3", "a")
    assert missing.status == 2 and "--function" in missing.err
    refused = unid.unictl("trigger", "add", "s3", "a", "-f", "f", "--schedule", "x")
    assert refused.status == 1 and "schedule" in refused.err
    assert unid.unictl("trigger", "add", "cron", "a", "-f", "f", "--max-age", "x").status == 2
    assert unid.unictl("trigger", "rm", "nobody").status == 1
    assert unid.unictl("trigger", "show", "nobody").status == 1
    secret = tmp_path / "secret"
    secret.write_text("the-secret-key\n")
    made = unid.unictl("trigger", "add", "s3", "a", "-f", "f", "--endpoint", "http://127.0.0.1:9",
                       "--access-key", "AK", "--secret-key-file", secret, "--json").ok()
    assert made.json["has_credentials"] and b"the-secret-key" not in made.out


def test_the_commands_of_the_documentation(unid, tmp_path):
    """docs/events.md, as far as unid alone can run it: each block of unictl and curl, one after the other."""
    unid.deploy("thumb", "echo")
    text = (harness.ROOT / "docs/events.md").read_text().split("## Delivery")[0]
    env = {**os.environ, "UNID_HOST": f"unix://{unid.socket}", "AWS_ACCESS_KEY_ID": "a",
           "AWS_SECRET_ACCESS_KEY": "b", "PATH": f"{harness.UNICTL.parent}:{os.environ['PATH']}"}
    ran = 0
    for block in re.findall(r"(?:^    .*\n)+", text, re.M):
        command = "\n".join(line[4:] for line in block.splitlines())
        if not re.match(r"unictl trigger add (s3|cloud|dynamo|cron)|curl", command):
            continue
        command = command.split("\naws ")[0].replace("127.0.0.1:7070", f"127.0.0.1:{unid.port}")
        command = command.replace("curl ", "curl -sS --fail-with-body ")
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=60,
                              env=env, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if "curl" in command:
            answer = json.loads(done.stdout[done.stdout.index('{"events"'):])
            assert answer["accepted"] == 1, (command, answer)
        if token := re.search(r"^Token: +(\S{20,})$", done.stdout, re.M):
            env.setdefault("TOKEN", token.group(1))  # of the store's trigger, which comes first
        ran += 1
    assert ran == 6


# --- what is below fails --------------------------------------------------------------------------


@needs_fault_points
@pytest.mark.parametrize("fault, status", [("ENOSPC", 507), ("EIO", 500)])
def test_what_cannot_be_kept_is_not_accepted(unid, triggers, fault, status):
    unid.may_log_errors = True
    unid.deploy("f", "echo")
    made = triggers.add("a", function="f")
    triggers.add("c", type="cloudevents", function="f")
    assert unid.stop() == 0
    unid.env = {"UNID_FAULTS": f"store.commit={fault}@2+"}  # the first is the start's own
    unid.start()
    unid.post("/events/s3/a", {"Records": [record("x")]}, headers=bearer(made)).problem(status)
    unid.post("/events", b"x", headers=CE).problem(status)
    unid.put("/api/v1/triggers/b", {"type": "s3", "function": "f"}).problem(status)
    unid.delete("/api/v1/triggers/a").problem(status)
    assert [t["name"] for t in unid.get("/api/v1/triggers").json["items"]] == ["a", "c"]
    text = unid.get("/metrics").body.decode()
    assert 'unid_events_total{source="aws",result="failed"} 1' in text
    unid.stop()
    unid.env = {}
    unid.start()
    # Sent again, they are new: what was refused left no trace.
    assert triggers.s3(made, record("x"))["accepted"] == 1
    assert unid.post("/events", b"x", headers=CE).json["accepted"] == 1


def test_a_trigger_that_cannot_be_read_is_told(unid, triggers):
    """A row that cannot be read (its time zone is gone, say) is told and left alone."""
    unid.may_log_errors = True
    unid.deploy("f", "echo")
    triggers.add("a", type="cron", function="f", schedule="0 0 1 1 *", timezone="Europe/Berlin")
    kept = triggers.add("b", function="f")
    unid.stop()
    with sqlite3.connect(unid.state / "unid.db") as db:
        db.execute("UPDATE triggers SET config = replace(config, 'Berlin', 'Atlantis') WHERE name = 'a'")
    unid.start()
    unid.get("/api/v1/triggers/a").problem(404)
    assert triggers.s3(kept, record("x"))["accepted"] == 1
    assert any("Atlantis" in json.dumps(e) for e in unid.log_events())
    triggers.add("a", type="cron", function="f", schedule="0 0 1 1 *", timezone="UTC", status=200)
