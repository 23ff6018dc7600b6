"""Events go out as they were given."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest
from conftest import ROOT, Engines, Open, Server, key_of

import tidewire
from tidewire import EventType, Published


def test_an_event_arrives_with_all_that_was_said(engine: tidewire.Engine, server: Server) -> None:
    assert engine.publish(
        "photos",
        "a b/ü.jpg",
        EventType.OBJECT_CREATED_COPY,
        size=2**40,
        etag="e",
        version_id="v",
        requester="alice",
        source_ip="192.0.2.1",
        request_id="req",
        host_id="host",
        region="eu-west-1",
        content_type="image/jpeg",
        bucket_owner="bob",
        metadata={"color": "röt"},
        tags={"t": "1"},
        data={"deep": [1, None, "ä"]},
        time_ns=1_500_000_000_123_000_000,
    )
    engine.flush()
    [r] = server.records
    assert r["eventName"] == "ObjectCreated:Copy"
    assert r["eventTime"] == "2017-07-14T02:40:00.123Z"
    assert r["awsRegion"] == "eu-west-1"
    assert r["userIdentity"] == {"principalId": "alice"}
    assert r["requestParameters"] == {"sourceIPAddress": "192.0.2.1"}
    assert r["responseElements"] == {"x-amz-request-id": "req", "x-amz-id-2": "host"}
    assert r["data"] == {"deep": [1, None, "ä"]}
    assert r["s3"]["bucket"]["name"] == "photos"
    assert r["s3"]["bucket"]["ownerIdentity"] == {"principalId": "bob"}
    o = r["s3"]["object"]
    assert o["key"] == "a+b/%C3%BC.jpg"
    assert (o["size"], o["eTag"], o["versionId"], o["contentType"]) == (2**40, "e", "v", "image/jpeg")
    assert (o["userMetadata"], o["tags"]) == ({"color": "röt"}, {"t": "1"})


def test_the_receiver_of_the_workspace_takes_events(receiver: tuple[str, Path], open_engine: Open) -> None:
    url, log = receiver
    engine = open_engine(url)
    for i in range(50):
        engine.publish("photos", f"key-{i % 5}")
    engine.flush()
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({line[0] for line in lines}) == 50
    for key in range(5):
        sequencers = [line[2] for line in lines if line[1] == f"key-{key}"]
        assert len(sequencers) == 10
        assert sequencers == sorted(sequencers)


@pytest.mark.parametrize(
    "key",
    [
        b"a\0b",
        b"line\nbreak\r\t",
        b"\xff\xfe not UTF-8 \x80",
        "🦊 \U0001f468‍\U0001f469".encode(),
        b"%41+ /?#&='\"\\<>",
        bytes(range(1, 256)),
        b"x" * 1024,
        bytearray(b"array"),
    ],
    ids=lambda key: repr(bytes(key[:12])),
)
def test_keys_are_bytes(engine: tidewire.Engine, server: Server, key: bytes) -> None:
    engine.publish("photos", key)
    engine.flush()
    assert server.keys() == [bytes(key)]


def test_a_key_may_be_text(engine: tidewire.Engine, server: Server) -> None:
    engine.publish("photos", "nä\nme")
    engine.flush()
    assert server.keys() == ["nä\nme".encode()]


@pytest.mark.parametrize("ack", ["memory", "written", "synced"])
def test_every_ack_level_is_kept(engine: tidewire.Engine, server: Server, ack: Any) -> None:
    assert engine.publish("photos", "k", ack=ack) is Published.ACCEPTED
    engine.flush()
    stats = engine.stats()
    assert (stats["accepted"], stats["stored"], stats["commits"]) == (1, 1, 1)
    if ack == "synced":
        assert stats["syncs"] >= 1
    assert server.keys() == [b"k"]


def test_metrics_are_what_scrapers_read(engine: tidewire.Engine, server: Server) -> None:
    assert engine.publish("photos", "k") is Published.ACCEPTED
    engine.flush()
    for text, read in [
        (engine.prometheus(), prometheus_client.parser.text_string_to_metric_families),
        (engine.prometheus(openmetrics=True), prometheus_client.openmetrics.parser.text_string_to_metric_families),
    ]:
        samples = {(s.name, *sorted(s.labels.items())): s.value for f in read(text) for s in f.samples}
        assert samples[("tidewire_events_accepted_total",)] == 1
        assert samples[("tidewire_destination_delivered_total", ("destination", "hook"))] == 1
        assert samples[("tidewire_delivery_latency_seconds_bucket", ("le", "+Inf"))] == 1
        assert samples[("tidewire_delivery_latency_seconds_count",)] == 1
        assert all(name.startswith("tidewire_") for name, *_ in samples)


def test_what_no_rule_wants_is_not_kept(open_engine: Open, server: Server) -> None:
    engine = open_engine(events="s3:ObjectCreated:*")
    assert engine.publish("other", "k") is Published.NO_MATCH
    assert engine.publish("photos", "k", EventType.OBJECT_REMOVED_DELETE) is Published.NO_MATCH
    assert engine.is_interested("photos", EventType.OBJECT_CREATED_POST) is True
    assert engine.is_interested("photos", "ObjectCreated:Post") is True
    assert engine.is_interested("photos", EventType.OBJECT_REMOVED_DELETE) is False
    assert engine.is_interested("other", EventType.OBJECT_CREATED_POST) is False
    engine.flush()
    assert engine.stats()["no_match"] == 2
    assert server.records == []


@pytest.mark.parametrize(
    ("data", "arrives"),
    [
        ('{"a": 1}', {"a": 1}),
        (b'"text"', "text"),
        (bytearray(b"[1, 2]"), [1, 2]),
        ([1, {"x": "\u2028"}], [1, {"x": "\u2028"}]),
        ({}, {}),
        ("null", None),
    ],
    ids=repr,
)
def test_data_is_json(engine: tidewire.Engine, server: Server, data: Any, arrives: Any) -> None:
    engine.publish("photos", "k", data=data)
    engine.flush()
    assert server.records[0]["data"] == arrives


def test_metadata_is_any_mapping(engine: tidewire.Engine, server: Server) -> None:
    proxy = types.MappingProxyType({"a": "1"})
    engine.publish("photos", "k", metadata=proxy, tags=collections.OrderedDict(b="2"))
    engine.flush()
    o = server.records[0]["s3"]["object"]
    assert (o["userMetadata"], o["tags"]) == ({"a": "1"}, {"b": "2"})


def test_the_store_itself_may_be_the_origin(engine: tidewire.Engine, server: Server) -> None:
    engine.publish("photos", "k", EventType.OBJECT_REMOVED_DELETE, origin="lifecycle", priority="high", hops=1)
    engine.flush()
    assert server.records[0]["userIdentity"] == {"principalId": "s3.amazonaws.com"}


def test_a_system_event_has_no_bucket(open_engine: Open, server: Server) -> None:
    engine = open_engine(bucket="*", destination='profile = "cloudevents"')
    engine.publish("", "", EventType.SYSTEM_CAPACITY_WARNING, data={"component": "disk-1"})
    engine.flush()
    assert "System:Capacity:Warning" in json.dumps(server.records)


def test_a_host_may_have_types_of_its_own(open_engine: Open, server: Server) -> None:
    engine = open_engine(engine='event_types = ["acme:Scan:Clean"]', destination='profile = "cloudevents"')
    engine.publish("photos", "k", "acme:Scan:Clean")
    engine.flush()
    assert "acme:Scan:Clean" in json.dumps(server.records)


def test_threads_keep_the_order_of_their_keys(open_engine: Open, server: Server) -> None:
    engine = open_engine()
    threads, events = 4, 200

    def work(n: int) -> None:
        for i in range(events):
            engine.publish("photos", f"k{n}", etag=str(i), ack="memory" if i % 50 else "synced")

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    engine.flush()
    seen = collections.defaultdict(list)
    for r in server.records:
        seen[key_of(r)].append(int(r["s3"]["object"]["eTag"]))
    assert seen == {f"k{n}": list(range(events)) for n in range(threads)}


def test_a_full_ring_refuses_or_waits(open_engine: Open, engines: Engines) -> None:
    engine = open_engine(engine='ring_bytes = "256KiB"')
    data = json.dumps("x" * 60_000)
    with pytest.raises(tidewire.Full) as e:
        for i in range(20_000):
            engine.publish("photos", f"k{i}", data=data, ack="memory", block=False)
    assert e.value.remedy
    # What has no place in the ring of this process the engine does not hear of.
    assert engine.stats()["refused_full"] == (0 if engines.shared else 1)
    for i in range(100):
        assert engine.publish("photos", f"w{i}", data=data, ack="memory")
    engine.flush()
    assert engine.stats()["refused_full"] == (0 if engines.shared else 1), "what was waited for was not refused"


def test_the_numbers_add_up(engine: tidewire.Engine) -> None:
    for i in range(10):
        engine.publish("photos", f"k{i}")
    engine.flush()
    stats = engine.stats()
    assert (stats["shards"], stats["accepted"], stats["routed"], stats["delivered"]) == (1, 10, 10, 10)
    assert (stats["waiting"], stats["dead_lettered"], stats["unhealthy"]) == (0, 0, [])
    [hook] = stats["destinations"]
    assert (hook["name"], hook["delivered"], hook["waiting"], hook["last_error"]) == ("hook", 10, 0, "")
    us = stats["latency_us"]
    assert us["count"] == 10
    assert 0 < us["min"] <= us["p50"] <= us["p90"] <= us["p99"] <= us["p999"] <= us["max"] < 10_000_000
    assert us["min"] <= us["mean"] <= us["max"]


def test_the_example_runs(server: Server, tmp_path: Path) -> None:
    example = ROOT / "python/examples/publish.py"
    command = [sys.executable, str(example), server.url, str(tmp_path / "data")]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (out.returncode, out.stdout, out.stderr) == (0, "accepted and 1 delivered\n", "")
    assert server.keys() == [b"cats/tom.jpg"]
