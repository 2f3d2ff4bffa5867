"""What anyone who reaches the broker may put into its queues: no worker ends, each message is reported in one line and removed,
and the next request runs."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from recstore.worker.logs import LineFormatter
from redis import Redis
from support import until

from recstore.demo.broker import SCHEME

from .conftest import Workers

SETTINGS = {"resend": 1000}
"""Settings of the shared worker."""

HEADERS = {"task": "recstore.prune", "id": "an-id", "lang": "py"}
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


NESTED: list[object] = []
for _ in range(480):
    NESTED = [NESTED]


def encoded(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def message(body: object = None, **changed: Any) -> dict[str, Any]:
    """Return a message of `recstore.prune` as Redis holds it, with other headers, properties or parts."""
    properties = {"delivery_tag": "a tag", "body_encoding": "base64"}
    properties["delivery_info"] = {"exchange": "default", "routing_key": "default"}
    headers = changed.pop("headers", {})
    whole = {
        "body": encoded([["retail"], {}, EMBED] if body is None else body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": HEADERS | headers if isinstance(headers, dict) else headers,
        "properties": properties | changed.pop("properties", {}),
    }
    return whole | changed


NOT_JSON = {
    "text": b"hello",
    "empty": b"",
    "binary": bytes(range(256)),
    "deep": b"[" * 200_000,
    "number": b"7",
    "list": b"[]",
    "null": b"null",
    "unknown type": b'{"__type__": "decimal", "__value__": "x"}',
    "forged line": b"\n2026-01-01 00:00:00 INFO run 1 succeeded\x1b[31m",
}
ENVELOPES = {
    "no properties": {"body": "", "headers": HEADERS},
    "properties of text": message(properties={}) | {"properties": "x"},
    "tag of a list": message(properties={"delivery_tag": ["x"]}),
    "no delivery": message(properties={"delivery_info": None}),
    "delivery of numbers": message(properties={"delivery_info": {"exchange": {}, "routing_key": 1}}),
    "undecodable base64": message(body="!") | {"body": "!!!"},
    "body of a number": message() | {"body": 17},
    "headers of a list": message(headers=[1]),
    "content type of a list": message() | {"content-type": [1]},
    "unknown content type": message() | {"content-type": "application/x-nothing"},
    "pickle": message() | {"content-type": "application/x-python-serialize"},
    "no encoding": message() | {"content-encoding": 7},
    "compression": message(headers={"compression": "application/x-gzip"}),
}
BODIES = {
    "an object": message({"a": 1}),
    "a number": message(1),
    "a text": message("abc"),
    "two parts": message([[], {}]),
    "positions of a number": message([1, {}, EMBED]),
    "names of a list": message([[], [1], EMBED]),
    "embedded text": message([["retail"], {}, "x"]),
    "too many": message([["retail", False, 3, 4, 5], {}, EMBED]),
    "an unknown name": message([["retail"], {"what": 1}, EMBED]),
    "a name with NUL": message([["a\0b"], {}, EMBED]),
    "a name of half a character": message([["\ud800"], {}, EMBED]),
    "callbacks of a number": message([["retail"], {}, EMBED | {"callbacks": 5}]),
    "a callback": message([["retail"], {}, EMBED | {"callbacks": [{"task": "recstore.prune", "args": ["retail"]}]}]),
    "a chain": message([["retail"], {}, EMBED | {"chain": [{}]}]),
    "a callback of the first protocol": message({"task": "recstore.prune", "id": "1", "args": [], "callbacks": [{}]})
    | {"headers": {}},
    "a nested argument": message([[NESTED], {}, EMBED]),
    "a body that is too large": message([["retail" * 100_000], {}, EMBED]),
}
HEADS = {
    "an unknown task": message(headers={"task": "shop.mail"}),
    "a task of Celery's": message(headers={"task": "celery.map"}),
    "a task of a list": message(headers={"task": ["recstore.prune"]}),
    "no id": message(headers={"id": None}),
    "id of an object": message(headers={"id": {"a": 1}}),
    "id with NUL": message(headers={"id": "a\0b"}),
    "id of half a character": message(headers={"id": "\ud800"}),
    "limits of text": message(headers={"timelimit": ["a", "b"]}),
    "limits as text": message(headers={"timelimit": "ab"}),
    "limits of three": message(headers={"timelimit": [1, 2, 3]}),
    "limits below zero": message(headers={"timelimit": [-1, -1]}),
    "a date that is none": message(headers={"eta": "tomorrow"}),
    "a date of a list": message(headers={"expires": [1]}),
    "retries of text": message(headers={"retries": "x"}),
    "stamps of a number": message(headers={"stamped_headers": 4, "stamps": 5}),
    "stamps": message(headers={"stamped_headers": [{"a": 1}, 5], "stamps": {"a": {"b": [1]}}}),
    "a nested header": message(headers={"x": NESTED}),
    "a nested property": message(properties={"reply_to": NESTED}),
    "a nested delivery": message(properties={"delivery_info": {"exchange": "", "routing_key": "", "x": NESTED}}),
}
MESSAGES = {name: json.dumps(sent).encode() for part in (ENVELOPES, BODIES, HEADS) for name, sent in part.items()}
GARBAGE = NOT_JSON | MESSAGES


@pytest.fixture
def redis(shared: Workers) -> Iterator[Redis]:
    with Redis(unix_socket_path=shared.broker.url.removeprefix(SCHEME)) as client:
        yield client


def test_a_message_that_is_no_task_of_recstore_s_ends_no_worker(shared: Workers, redis: Redis) -> None:
    worker = shared.started[0]
    printed = len(worker.output)

    def reported(count: int) -> Callable[[], bool]:
        return lambda: worker.output[printed:].count(": removed a message") == count

    for count, (name, raw) in enumerate(GARBAGE.items(), 1):
        redis.lpush(("default", "train", "celery")[count % 3], raw)
        until(reported(count), message=lambda name=name: f"{name}\n{worker.output[printed:]}")
    shared.ends(shared.request("reindex"))
    lines = worker.output[printed:].splitlines()
    assert worker.popen.poll() is None
    assert "Traceback" not in worker.output
    assert "\x1b" not in worker.output[printed:]
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert max(map(len, lines)) < 500
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 0


def test_a_well_formed_message_of_any_age_of_the_protocol_still_asks(shared: Workers, redis: Redis) -> None:
    old = {"task": "recstore.prune", "id": "protocol 1", "args": ["retail"], "kwargs": {}}
    redis.lpush("default", json.dumps(message(old) | {"headers": {}}))
    until(lambda: shared.runs() == [("prune", "succeeded")])
    redis.lpush(
        "default", json.dumps(message([["retail"], {"requested": False}, None], headers={"timelimit": [60, None]}))
    )
    until(lambda: shared.runs() == [("prune", "succeeded")] * 2)


def test_what_cannot_be_put_back_is_removed(shared: Workers, redis: Redis) -> None:
    worker = shared.started[0]
    printed = len(worker.output)
    for tag, raw in {"text": b"garbage", "one": b"[1]", "three": b"[1, 2, 3]", "none": None}.items():
        if raw:
            redis.hset("unacked", tag, raw)
        redis.zadd("unacked_index", {tag: 1})
    until(
        lambda: not redis.zcard("unacked_index") and not redis.hlen("unacked"), message=lambda: worker.output[printed:]
    )
    shared.ends(shared.request("reindex"))
    assert "Traceback" not in worker.output[printed:].replace("  Traceback", "")
    assert worker.popen.poll() is None


FAR = (
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59",
    "9999-12-31T23:59:59-23:59",
    "2300-01-01T00:00:00+23:59",
    "2026-02-30",
)


def test_times_far_away_end_no_worker(shared: Workers, redis: Redis) -> None:
    for time in FAR:
        for header in ("eta", "expires"):
            redis.lpush("default", json.dumps(message(headers={header: time, "id": f"{header} {time}"})))
    shared.ends(shared.request("reindex"))
    until(lambda: redis.llen("default") == 0)
    shared.ends(shared.request("refresh"))
    assert shared.started[0].popen.poll() is None
    for key in ("unacked", "unacked_index"):  # those for the far future wait in the worker
        redis.delete(key)


FORGED = "x\n2026-01-01 00:00:00,000 INFO run 7 succeeded\r\x1b[2J\x85\u2028\u202e"


@pytest.mark.parametrize("place", ["task", "id", "shadow", "argument", "requested", "key"])
def test_nothing_in_a_message_forges_a_line_of_the_log(shared: Workers, redis: Redis, place: str) -> None:
    worker = shared.started[0]
    printed = len(worker.output)
    sent = {
        "task": message(headers={"task": FORGED}),
        "id": message(headers={"id": FORGED}),
        "shadow": message(headers={"shadow": FORGED}),
        "argument": message([[FORGED], {}, EMBED]),
        "requested": message([[FORGED], {"requested": True}, EMBED]),
        "key": message([["retail"], {FORGED: 1}, EMBED]),
    }
    redis.lpush("default", json.dumps(sent[place]))
    shared.ends(shared.request("reindex"))
    until(lambda: "recstore.reindex" in worker.output[printed:])
    lines = worker.output[printed:].split("\n")
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert not set("\x1b\r\x85\u2028\u202e") & set(worker.output[printed:])
    assert (
        place == "key"
        or "\\n2026-01-01 00:00:00,000 INFO run 7 succeeded\\r\\x1b[2J\\x85\\u2028\\u202e" in worker.output
    )


def test_a_traceback_is_indented(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("celery.task").error("failed: %s", FORGED, exc_info=True)
    text = LineFormatter("%(asctime)s %(message)s").format(caplog.records[0])
    first, *others = text.split("\n")
    assert first.endswith("failed: " + FORGED.encode("unicode_escape").decode())
    assert all(line.startswith("  ") for line in others)
    assert "\x1b" not in text


def test_remote_control_is_off_unless_a_setting_turns_it_on(workers: Workers) -> None:
    deaf = workers.start()
    workers.ends(workers.request("reindex"))  # it listens
    with Celery(broker=workers.broker.url, set_as_current=False) as client:
        client.control.shutdown()
        client.control.pool_shrink(1)
        assert client.control.ping(timeout=1) == []
    workers.ends(workers.request("reindex"))
    assert deaf.popen.poll() is None
    assert "mingle" not in deaf.output
    obedient = workers.start(remote_control=True)
    with Celery(broker=workers.broker.url, set_as_current=False) as client:
        until(lambda: len(client.control.ping(timeout=1)) == 1)
        client.control.shutdown()
        assert obedient.popen.wait(60) == 0
        assert deaf.popen.poll() is None
