"""boto3 against moto's S3: what a program does leads to records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import boto3
import moto
import pytest
from conftest import Mine

import tidewire
from tidewire.integrations.moto import publishing


ARN = "arn:aws:sqs:us-east-1:123456789012:mine"


@pytest.fixture
def s3(mine: Mine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws(), publishing(mine[0], arns={"arn:aws:sqs:us-east-1:123456789012:q": "mine"}):
        yield boto3.client("s3")


def notify(s3: Any, bucket: str, events: list[str], arn: str = ARN, **filters: str) -> None:
    rule: dict[str, Any] = {"QueueArn": arn, "Events": events, "Id": "rule"}
    if filters:
        rule["Filter"] = {"Key": {"FilterRules": [{"Name": n, "Value": v} for n, v in filters.items()]}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [rule]})


def test_what_boto3_does_leads_to_records(mine: Mine, s3: Any) -> None:
    engine, taken = mine
    s3.create_bucket(Bucket="pictures")
    s3.put_object(Bucket="pictures", Key="before.jpg", Body=b"x")
    notify(s3, "pictures", ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], prefix="in/")
    s3.put_object(Bucket="pictures", Key="in/a b.jpg", Body=b"12345", Metadata={"color": "red"}, Tagging="t=1")
    s3.put_object(Bucket="pictures", Key="out/a.jpg", Body=b"12345")
    s3.copy_object(Bucket="pictures", Key="in/b.jpg", CopySource="pictures/in/a b.jpg")
    upload = s3.create_multipart_upload(Bucket="pictures", Key="in/big")["UploadId"]
    part = s3.upload_part(Bucket="pictures", Key="in/big", UploadId=upload, PartNumber=1, Body=b"x" * 10)
    s3.complete_multipart_upload(
        Bucket="pictures", Key="in/big", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    s3.delete_object(Bucket="pictures", Key="in/b.jpg")
    s3.delete_object(Bucket="pictures", Key="in/nothing.jpg")
    s3.delete_objects(Bucket="pictures", Delete={"Objects": [{"Key": "in/big"}, {"Key": "in/none"}, {"Key": "out/a.jpg"}]})
    with pytest.raises(s3.exceptions.ClientError):
        s3.copy_object(Bucket="pictures", Key="in/c.jpg", CopySource="pictures/in/nothing")
    engine.flush()
    assert sorted(taken.told()) == [
        ("ObjectCreated:CompleteMultipartUpload", "in/big"),
        ("ObjectCreated:Copy", "in/b.jpg"),
        ("ObjectCreated:Put", "in/a b.jpg"),
        ("ObjectRemoved:Delete", "in/b.jpg"),
        ("ObjectRemoved:Delete", "in/big"),
    ]
    put = next(r for r in taken.records if r["eventName"] == "ObjectCreated:Put")
    assert put["s3"]["configurationId"] == "rule" and put["s3"]["object"]["size"] == 5
    assert put["s3"]["object"]["userMetadata"] == {"color": "red"} and put["s3"]["object"]["tags"] == {"t": "1"}
    assert len(put["s3"]["object"]["eTag"]) == 32


def test_versions_leave_markers(mine: Mine, s3: Any) -> None:
    engine, taken = mine
    s3.create_bucket(Bucket="versions")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    notify(s3, "versions", ["s3:ObjectRemoved:*"])
    version = s3.put_object(Bucket="versions", Key="k", Body=b"x")["VersionId"]
    marker = s3.delete_object(Bucket="versions", Key="k")["VersionId"]
    s3.delete_object(Bucket="versions", Key="k", VersionId=version)
    engine.flush()
    assert taken.told() == [("ObjectRemoved:DeleteMarkerCreated", "k"), ("ObjectRemoved:Delete", "k")]
    assert [r["s3"]["object"]["versionId"] for r in taken.records] == [marker, version]


def test_the_configuration_is_that_of_the_bucket(mine: Mine, s3: Any) -> None:
    engine, taken = mine
    s3.create_bucket(Bucket="conf")
    notify(s3, "conf", ["s3:ObjectCreated:Put"], "arn:aws:sqs:us-east-1:123456789012:q")
    found = s3.get_bucket_notification_configuration(Bucket="conf")
    assert found["QueueConfigurations"][0]["Events"] == ["s3:ObjectCreated:Put"]
    s3.put_object(Bucket="conf", Key="told", Body=b"")
    s3.put_bucket_notification_configuration(Bucket="conf", NotificationConfiguration={})
    s3.put_object(Bucket="conf", Key="untold", Body=b"")
    engine.flush()
    assert taken.told() == [("ObjectCreated:Put", "told")]
    assert engine.bucket_notification("conf").document == {}


def test_a_configuration_that_cannot_be_is_refused(mine: Mine, s3: Any) -> None:
    engine, _ = mine
    s3.create_bucket(Bucket="conf")
    for events, arn in [(["s3:Nothing:*"], ARN), (["s3:ObjectCreated:*"], ARN.replace("us-east-1", "eu-west-1"))]:
        with pytest.raises(s3.exceptions.ClientError) as e:
            notify(s3, "conf", events, arn)
        assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    # What names no destination is moto's.
    notify(s3, "conf", ["s3:ObjectCreated:*"], "arn:aws:sqs:us-east-1:123456789012:nobody")
    assert engine.bucket_notification("conf").document == {}


def test_there_is_one_publisher_at_a_time(mine: Mine, s3: Any) -> None:
    with pytest.raises(RuntimeError, match="publishes already"):
        with publishing(mine[0]):
            pass


def test_after_the_block_nothing_is_told(mine: Mine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, taken = mine
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        with publishing(engine):
            boto3.client("s3").create_bucket(Bucket="photos")
        boto3.client("s3").put_object(Bucket="photos", Key="k", Body=b"x")
    engine.flush()
    assert [r["eventName"] for r in taken.records] == ["BucketCreated"] or taken.records == []
    assert os.environ["AWS_ACCESS_KEY_ID"] == "testing" and not engine.closed and tidewire.__version__
