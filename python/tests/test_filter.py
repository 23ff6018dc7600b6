"""Filters by themselves, without an engine."""

from __future__ import annotations

import ast
import inspect
import json
import threading
import typing
from pathlib import Path
from typing import Any, Callable

import pytest
from test_package import names, stub

import tidewire
from tidewire import Filter

EVENT: dict[str, Any] = {"bucket": "photos", "key": "in/a.jpg", "size": 5}


@pytest.mark.parametrize(
    ("read", "native"),
    [
        (lambda: Filter.parse('{"prefix": "in/"}'), {"prefix": "in/"}),
        (lambda: Filter.parse({"prefix": "in/", "size": {"min": 5}}), {"prefix": "in/", "size": {"min": 5}}),
        (
            lambda: Filter.from_eventbridge({"detail": {"object": {"key": [{"prefix": "in/"}]}}}),
            {"prefix": "in/"},
        ),
        (lambda: Filter.from_cloudevents([{"prefix": {"subject": "in/"}}]), {"prefix": "in/"}),
        (lambda: Filter.from_cel("event.key.startsWith('in/')"), {"prefix": "in/"}),
        (lambda: Filter.from_s3({"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}}), {"prefix": "in/"}),
    ],
)
def test_every_form_is_read(read: Callable[[], Filter], native: dict[str, Any]) -> None:
    f = read()
    assert json.loads(f.to_json()) == native
    assert f.matches(EVENT) and f.explain(EVENT) == []
    assert not f.matches({**EVENT, "key": "out/a.jpg"})
    assert f == Filter.parse(native) and hash(f) == hash(Filter.parse(f.to_json())) and f != Filter.parse({})
    assert f.to_json() in repr(f)


def test_options_of_forms() -> None:
    event = {**EVENT, "data": {"a": [1, "x"]}, "key": b"my file"}
    assert Filter.from_eventbridge({"a": ["x"]}, data=True).matches(event)
    assert Filter.from_eventbridge({"region": ["eu"]}, region="eu").matches(event)
    assert not Filter.from_eventbridge({"region": ["eu"]}).matches(event)
    source = Filter.from_cloudevents([{"exact": {"source": "acme:s3.eu.photos"}}], event_source="acme:s3", region="eu")
    assert source.matches(event) and not source.matches({**event, "region": "us"})
    s3 = '{"Key": {"FilterRules": [{"Name": "prefix", "Value": "my+"}]}}'
    assert Filter.from_s3(s3, encoded=True).matches(event) and not Filter.from_s3(s3).matches(event)
    ceph = "<Filter><S3Key><FilterRule><Name>regex</Name><Value>my.*</Value></FilterRule></S3Key></Filter>"
    assert Filter.from_s3(ceph, ceph=True).matches(event)
    with pytest.raises(tidewire.InvalidConfig):
        Filter.from_s3(ceph)


@pytest.mark.parametrize(
    ("read", "place"),
    [
        (lambda: Filter.parse('{"prefx": "a"}'), "filter.prefx"),
        (lambda: Filter.parse("{"), "line 1"),
        (lambda: Filter.parse({"size": float("nan")}), "filter"),
        (lambda: Filter.parse({"regex": "("}), "filter.regex"),
        (lambda: Filter.from_eventbridge({"detail": []}), "pattern.detail"),
        (lambda: Filter.from_cloudevents([{"sql": "x"}]), "filters[0].sql"),
        (lambda: Filter.from_cel("event.key =="), "cel, column"),
        (lambda: Filter.from_s3("<Filter><S3Tags/></Filter>"), "filter:1:9"),
    ],
)
def test_a_wrong_filter_is_told_with_its_place(read: Callable[[], Filter], place: str) -> None:
    with pytest.raises(tidewire.InvalidConfig) as e:
        read()
    assert e.value.place and place in e.value.place and e.value.remedy


@pytest.mark.parametrize(
    "call",
    [
        lambda: Filter.parse(5),  # type: ignore[arg-type]
        lambda: Filter.from_cel(b"true"),  # type: ignore[arg-type]
        lambda: Filter.parse({}).matches(5),  # type: ignore[arg-type]
        lambda: Filter.parse({}).matches({5: 5}),  # type: ignore[dict-item]
        lambda: Filter.parse({}).matches({**EVENT, "etag": 5}),
        lambda: Filter(),
    ],
)
def test_arguments_of_a_wrong_type(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"bucket": None}, "bucket"),
        ({"key": ""}, "key"),
        ({"key": "k" * 1025}, "key"),
        ({"siz": 5}, "event"),
        ({"size": -1}, "size"),
        ({"data": "{"}, "data"),
        ({"event_type": "s3:Nothing"}, "event_type"),
    ],
)
def test_an_event_that_is_none_is_refused(change: dict[str, Any], place: str) -> None:
    f = Filter.parse({})
    for look in (f.matches, f.explain):
        with pytest.raises(tidewire.InvalidEvent) as e:
            look({**EVENT, **change})
        assert e.value.place and place in e.value.place


def test_every_part_of_an_event_is_looked_at() -> None:
    texts = ["etag", "version_id", "requester", "source_ip", "request_id", "host_id", "region", "content_type"]
    texts += ["method", "user_agent", "bucket_owner"]
    event: dict[str, Any] = {name: name for name in texts}
    event |= {"event_type": "s3:ObjectRemoved:Delete", "bucket": "b", "key": b"\xff", "size": 7, "hops": 2}
    event |= {"metadata": {"m": "1"}, "tags": {"t": "2"}, "data": [3], "priority": "high", "origin": "lifecycle"}
    event["time_ns"] = 1_700_000_000_000_000_000
    wanted: dict[str, Any] = {name: name for name in texts}
    wanted |= {"event_type": "s3:ObjectRemoved:Delete", "bucket": "b", "key": {"base64": "/w=="}, "size": 7, "hops": 2}
    wanted |= {"metadata": {"m": "1"}, "tags": {"t": "2"}, "priority": "high", "origin": "lifecycle"}
    wanted |= {"data": [{"path": [], "is": 3}], "time": {"from": "2023-11-14T00:00:00Z"}}
    f = Filter.parse(wanted)
    assert f.explain(event) == []
    for name in event.keys() - {"bucket", "key", "event_type", "data", "time_ns"}:
        assert not f.matches({n: v for n, v in event.items() if n != name}), name
    assert set(event) == set(typing.get_type_hints(tidewire.EventParts))


def test_what_is_not_met_is_told() -> None:
    f = Filter.parse({"prefix": "out/", "size": {"max": 4}})
    assert f.explain(EVENT) == [
        '{"prefix":"out/"} is not met: key is "in/a.jpg"',
        '{"size":{"max":4}} is not met: size is 5',
    ]


def test_the_plan_is_as_declared() -> None:
    plan = Filter.parse({"prefix": "in/", "size": 5}).plan()
    assert plan["cost"] == "indexed" and plan["filings"][0]["predicate"] == {"prefix": "in/"}
    assert plan["filings"][0]["program"] == [{"condition": {"size": 5}, "then": "accept", "otherwise": "reject"}]
    assert set(plan) == set(typing.get_type_hints(tidewire.Plan))
    assert set(plan["filings"][0]) == set(typing.get_type_hints(tidewire.Filing))
    assert set(plan["filings"][0]["program"][0]) == set(typing.get_type_hints(tidewire.Step))
    scan = Filter.parse({"regex": "[0-9]"}).plan()
    assert scan["cost"] == "scan" and scan["reasons"] and scan["regex_bytes"] > 0


RULE = """
[[rule]]
id = "%s"
events = ["*"]
destinations = ["x"]
filter = { size = { min = 2, max = %d } }
"""


def test_lint(tmp_path: Path) -> None:
    [finding] = tidewire.lint(RULE % ("a", 1) + RULE % ("b", 3))
    assert finding["kind"] == "never" and finding["rules"] == ["a"] and "`a`" in finding["message"]
    assert set(finding) == set(typing.get_type_hints(tidewire.Finding))
    path = tmp_path / "rules.toml"
    path.write_text(RULE % ("b", 3))
    assert tidewire.lint(config_path=path) == []
    with pytest.raises(tidewire.InvalidConfig):
        tidewire.lint("[[rule]]")
    with pytest.raises(tidewire.IoError):
        tidewire.lint(config_path=tmp_path / "none")
    for wrong in ({}, {"config": "", "config_path": path}):
        with pytest.raises(tidewire.InvalidArgument):
            tidewire.lint(**wrong)  # type: ignore[arg-type]


def test_the_schema_is_one() -> None:
    assert json.loads(tidewire.FILTER_SCHEMA)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_threads_share_a_filter() -> None:
    f, wrong = Filter.parse({"regex": "^in/[0-9]+$"}), []

    def look(n: int) -> None:
        for i in range(300):
            if f.matches({"bucket": "b", "key": f"{'in' if i % 2 else 'out'}/{n}{i}"}) != (i % 2 == 1):
                wrong.append(i)

    threads = [threading.Thread(target=look, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_the_stub_of_the_filter_is_complete() -> None:
    declared = names(stub().body)["Filter"]
    assert isinstance(declared, ast.ClassDef)
    methods = names(declared.body)
    own = {n for n in vars(Filter) if not n.startswith("_")}
    assert {n for n in methods if not n.startswith("_")} == own
    for name in own:
        assert getattr(Filter, name).__doc__, name
        function = methods[name]
        assert isinstance(function, ast.FunctionDef)
        a = function.args
        stubbed = [arg.arg for arg in a.posonlyargs + a.args + a.kwonlyargs if arg.arg not in ("self", "cls")]
        actual = [p for p in inspect.signature(getattr(Filter, name)).parameters if p != "self"]
        assert stubbed == actual, name
