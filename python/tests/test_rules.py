"""Rules, notification documents and destinations while an engine runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Mine, Open, Server, until

import tidewire
from tidewire import EventType, Published

RULE = {"id": "in", "bucket": "docs", "events": ["s3:ObjectCreated:*"], "prefix": "in/", "destinations": ["mine"]}
ARN = "arn:tidewire:sqs:::mine"


def test_rules_come_and_go(mine: Mine) -> None:
    engine, taken = mine
    before = engine.rules_version
    version = engine.put_rule(RULE)
    assert engine.rules_version > before
    assert engine.publish("docs", "in/a") is Published.ACCEPTED
    found = engine.rule("in", bucket="docs")
    assert (found["version"], found["owner"], found["inactive"]) == (version, "callers", None)
    assert "in/" in json.dumps(found["rule"])
    assert {rule["rule"]["id"] for rule in engine.rules()} == {"all", "in"}
    engine.flush()
    until(lambda: engine.rule("in", bucket="docs")["matched"] == 1)
    engine.delete_rule("in", bucket="docs")
    assert engine.publish("docs", "in/a") is Published.NO_MATCH
    engine.flush()
    assert taken.keys() == [b"in/a"]


def test_a_rule_as_text_is_as_one_in_the_configuration(mine: Mine) -> None:
    engine, _ = mine
    engine.put_rule('[[rule]]\nid = "t"\nbucket = "toml"\nevents = ["*"]\ndestinations = ["mine"]')
    engine.put_rule(json.dumps({**RULE, "id": "j"}))
    assert engine.publish("toml", "k")


def test_what_was_expected_must_be_there(mine: Mine) -> None:
    engine, _ = mine
    version = engine.put_rule(RULE, expect="absent")
    with pytest.raises(tidewire.Conflict) as e:
        engine.put_rule(RULE, expect="absent")
    assert (e.value.s3_code, e.value.s3_status) == ("OperationAborted", 409)
    with pytest.raises(tidewire.Conflict):
        engine.put_rule({**RULE, "prefix": "new/"}, expect=version + 100)
    newer = engine.put_rule({**RULE, "prefix": "new/"}, expect=version)
    assert newer > version
    with pytest.raises(tidewire.Conflict):
        engine.delete_rule("in", bucket="docs", expect=version)
    engine.delete_rule("in", bucket="docs", expect=newer)
    with pytest.raises(tidewire.InvalidArgument, match="expect"):
        engine.put_rule(RULE, expect="gone")  # type: ignore[arg-type]


def test_a_wrong_rule_changes_nothing(mine: Mine) -> None:
    engine, _ = mine
    before = engine.rules()
    for wrong in ({**RULE, "events": ["s3:Nothing:*"]}, {**RULE, "destinations": ["gone"]}, {**RULE, "colour": 1}, "id ="):
        with pytest.raises(tidewire.InvalidConfig):
            engine.put_rule(wrong)
    with pytest.raises(tidewire.Conflict):
        engine.put_rule({"id": "all", "bucket": "photos", "events": ["*"], "destinations": ["mine"]})
    with pytest.raises(tidewire.NotFound):
        engine.delete_rule("nobody")
    with pytest.raises(tidewire.NotFound) as e:
        engine.rule("nobody")
    assert isinstance(e.value, LookupError)
    assert engine.rules() == before


def test_rules_survive_the_engine(tmp_path: Any) -> None:
    from conftest import custom

    with tidewire.Engine(custom(), data_dir=tmp_path) as engine:
        engine.put_rule(RULE)
    with tidewire.Engine(custom(), data_dir=tmp_path) as engine:
        assert engine.rule("in", bucket="docs")["owner"] == "callers"


@pytest.mark.local
def test_a_configuration_is_replaced_while_running(mine: Mine) -> None:
    from conftest import custom

    engine, _ = mine
    engine.replace_config(custom().replace('"photos"', '"others"'))
    assert not engine.publish("photos", "k")
    assert engine.publish("others", "k")
    with pytest.raises(tidewire.InvalidConfig):
        engine.replace_config("[[rule]]")
    with pytest.raises(tidewire.InvalidArgument):
        engine.replace_config()


DOCUMENT: dict[str, Any] = {
    "QueueConfigurations": [
        {
            "Id": "images",
            "QueueArn": ARN,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".jpg"}]}},
        }
    ],
    "LambdaFunctionConfigurations": [
        {"LambdaFunctionArn": "arn:tidewire:lambda:::mine", "Events": ["s3:ObjectRemoved:Delete"]}
    ],
}


def test_a_notification_document_has_the_shape_of_botocore(mine: Mine) -> None:
    engine, taken = mine
    # What get_bucket_notification_configuration answers can be put as it is.
    version = engine.put_bucket_notification("b", {**DOCUMENT, "ResponseMetadata": {"HTTPStatusCode": 200}})
    for key in ("in/a.jpg", "in/a.png", "out/a.jpg"):
        engine.publish("b", key)
    engine.publish("b", "in/a.jpg", EventType.OBJECT_REMOVED_DELETE)
    engine.flush()
    assert taken.told() == [("ObjectCreated:Put", "in/a.jpg"), ("ObjectRemoved:Delete", "in/a.jpg")]  # of one key, so in order
    assert taken.records[0]["s3"]["configurationId"] == "images"
    found = engine.bucket_notification("b")
    assert (found.version, found.left_out) == (version, [])
    assert found.document["QueueConfigurations"][0]["Id"] == "images"
    again = engine.put_bucket_notification("b", found.document, expect=version)
    assert engine.put_bucket_notification("b", {}, expect=again) > version
    assert not engine.publish("b", "in/a.jpg")


def test_a_document_comes_and_goes_in_every_form(mine: Mine) -> None:
    engine, _ = mine
    engine.put_bucket_notification("b", DOCUMENT)
    xml = engine.bucket_notification("b", format="xml").document
    text = engine.bucket_notification("b", format="json").document
    assert xml.startswith("<?xml") and "<Queue>" in xml
    for document in (xml, xml.encode(), text, json.loads(text)):
        engine.put_bucket_notification("c", document)
        assert engine.bucket_notification("c").document == engine.bucket_notification("b").document
    with pytest.raises(tidewire.InvalidArgument, match="unknown format"):
        engine.bucket_notification("b", format="yaml")  # type: ignore[arg-type]
    assert engine.bucket_notification("empty") == ({}, None, [])


def test_a_wrong_document_says_what_to_answer(mine: Mine) -> None:
    engine, _ = mine
    with pytest.raises(tidewire.InvalidConfig) as e:
        engine.put_bucket_notification("b", "<NotificationConfiguration><Queue")
    assert (e.value.s3_code, e.value.s3_status) == ("MalformedXML", 400)
    xml = e.value.to_s3_xml("/b<&\x01", "req")
    assert "<Code>MalformedXML</Code>" in xml and "<Resource>/b&lt;&amp;</Resource><RequestId>req</RequestId>" in xml
    nobody = {"QueueConfigurations": [{"QueueArn": "arn:aws:sqs:::nobody", "Events": ["s3:ObjectCreated:*"]}]}
    with pytest.raises(tidewire.InvalidConfig) as e:
        engine.check_bucket_notification("b", nobody)
    assert e.value.s3_code == "InvalidArgument"
    with pytest.raises(tidewire.InvalidConfig, match="UTF-8"):
        engine.put_bucket_notification("b", b"\xff")
    with pytest.raises(tidewire.InvalidArgument, match="unknown overlap"):
        engine.put_bucket_notification("b", {}, overlap="maybe")  # type: ignore[arg-type]
    assert engine.bucket_notification("b").version is None


def test_a_document_may_overlap_be_encoded_or_have_more(mine: Mine) -> None:
    engine, _ = mine
    rule = {"QueueArn": ARN, "Events": ["s3:ObjectCreated:*"]}
    twice = {"QueueConfigurations": [rule, rule]}
    with pytest.raises(tidewire.InvalidConfig):
        engine.check_bucket_notification("b", twice, overlap="strict-aws")
    assert len(engine.check_bucket_notification("b", twice)) == 2
    with pytest.raises(tidewire.InvalidConfig):
        engine.check_bucket_notification("b", {"EventBridgeConfiguration": {}})
    [bridge] = engine.check_bucket_notification("b", {"EventBridgeConfiguration": {}}, event_bridge="mine")
    assert bridge["destinations"] == ["mine"]
    filtered = {**rule, "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "my+photos/"}]}}}
    engine.put_bucket_notification("b", {"QueueConfigurations": [filtered]}, encoded=True)
    assert engine.rules()[-1]["rule"]["bucket"] == "b"
    assert "my photos/" in json.dumps(engine.rules())


HOOK = {"name": "second", "type": "webhook", "auth": {"scheme": "bearer", "secret": "one"}}


def test_destinations_come_and_go(open_engine: Open, server: Server) -> None:
    engine = open_engine()
    hook = {**HOOK, "url": server.url}
    version = engine.put_destination(hook, expect="absent")
    assert {(d["name"], d["owner"]) for d in engine.destinations()} == {("hook", "configuration"), ("second", "callers")}
    assert engine.destination("second")["state"] == "active"
    engine.suspend_destination("second")
    assert engine.destination("second")["state"] == "suspended"
    engine.resume_destination("second")
    assert engine.destination("second")["state"] == "active"
    engine.confirm_destination("second", per_minute=60)
    report = engine.test_destination("second")
    assert report["ok"] and report["failure"] is None and {"what", "took_us"} == set(report["steps"][0])
    assert engine.put_destination({**hook, "concurrency": 2}, expect=version, backlog="drain") > version
    engine.delete_destination("second", backlog="purge")
    with pytest.raises(tidewire.NotFound):
        engine.destination("second")


def test_secrets_are_rotated_and_shown_once(open_engine: Open, server: Server) -> None:
    engine = open_engine()
    hook = {**HOOK, "url": server.url, "auth": {"scheme": "github", "secret": "one"}}
    engine.put_destination(hook)
    made = engine.rotate_secret("second")
    assert len(made) >= 32 and made not in json.dumps(engine.destination("second"))
    assert engine.rotate_secret("second", "given-by-the-operator", overlap=60) == "given-by-the-operator"
    with pytest.raises(tidewire.InvalidArgument):
        engine.rotate_secret("second", overlap=1e8)
    with pytest.raises(tidewire.InvalidArgument):
        engine.rotate_secret("hook")
    with pytest.raises(tidewire.NotFound):
        engine.rotate_secret("nobody")


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.suspend_destination("nobody"),
        lambda e: e.resume_destination("nobody"),
        lambda e: e.confirm_destination("nobody"),
        lambda e: e.test_destination("nobody"),
        lambda e: e.delete_destination("nobody"),
        lambda e: e.delete_destination("mine"),
    ],
)
def test_a_destination_that_is_not_there_is_not_found(mine: Mine, call: Callable[[tidewire.Engine], object]) -> None:
    with pytest.raises(tidewire.NotFound):
        call(mine[0])


def test_a_wrong_destination_changes_nothing(mine: Mine) -> None:
    engine, _ = mine
    before = engine.destinations()
    for wrong in ({"name": "x", "type": "carrier-pigeon"}, {"name": "x"}, {"name": "x", "type": "webhook", "url": "ftp://x"}):
        with pytest.raises(tidewire.InvalidConfig):
            engine.put_destination(wrong)
    wrong_backlogs: list[dict[str, Any]] = [{"backlog": "move"}, {"move_to": "mine"}, {"backlog": "burn"}]
    for wrong_backlog in wrong_backlogs:
        with pytest.raises(tidewire.InvalidArgument):
            engine.delete_destination("x", **wrong_backlog)
    assert engine.destinations() == before


def test_a_destination_that_takes_nothing_says_why(open_engine: Open, dead_url: str) -> None:
    report = open_engine(dead_url).test_destination("hook")
    assert not report["ok"] and report["failure"]


def test_a_configuration_is_checked_without_an_engine(tmp_path: Any) -> None:
    from conftest import custom

    tidewire.check_config(custom())
    file = tmp_path / "tidewire.toml"
    file.write_text(custom().replace('type = "custom"', 'type = "custm"'))
    with pytest.raises(tidewire.InvalidConfig, match="tidewire.toml:"):
        tidewire.check_config(config_path=file)
    with pytest.raises(tidewire.InvalidArgument):
        tidewire.check_config()


def test_a_closed_engine_changes_nothing(mine: Mine) -> None:
    engine, _ = mine
    engine.close()
    calls: list[Callable[[], object]] = [
        lambda: engine.put_rule(RULE),
        lambda: engine.put_bucket_notification("b", {}),
        lambda: engine.put_destination({"name": "x", "type": "custom"}),
        lambda: engine.suspend_destination("mine"),
        lambda: engine.set_handler("mine", None),
        lambda: engine.set_enricher(None),
        lambda: engine.tail(),
        lambda: engine.consumer("g"),
        lambda: engine.replay("mine"),
        lambda: engine.reserve("photos", "k"),
        lambda: engine.publish_many([]),
        lambda: engine.publish_json("{}"),
        lambda: engine.snapshot("/nowhere"),
    ]
    for n, call in enumerate(calls):
        with pytest.raises(tidewire.Closed):
            call()
            pytest.fail(f"call {n} was taken")
