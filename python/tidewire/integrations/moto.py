"""A hook for the S3 of `moto <https://docs.getmoto.org>`_, so that what a program does with boto3 leads to records.

>>> with moto.mock_aws(), publishing(engine):
...     s3 = boto3.client("s3")
...     s3.create_bucket(Bucket="photos")
...     s3.put_bucket_notification_configuration(Bucket="photos", NotificationConfiguration={
...         "QueueConfigurations": [{"QueueArn": "arn:aws:sqs:us-east-1:123456789012:hook", "Events": ["s3:ObjectCreated:*"]}]})
...     s3.put_object(Bucket="photos", Key="cats/tom.jpg", Body=b"...")

It is for the decorators and the server of moto alike, and needs moto 5. What moto sends to its own queues and functions it goes on to
send.
"""

from __future__ import annotations

import contextlib
import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from .. import Engine, EventType, InvalidConfig, Timeout
from ._held import Held
from .http import S3, Operation, Request, Response, query_of
from .wsgi import REFUSED

__all__ = ["publishing"]


@contextlib.contextmanager
def publishing(engine: Engine, *, arns: Optional[Mapping[str, str]] = None, **options: Any) -> Iterator[None]:
    """Publishes what requests to moto's S3 do, for the length of the block, in this process.

    ``put_bucket_notification_configuration`` puts the rules of the bucket. An ARN whose last part is the name of a destination of
    the engine means that, whatever service it is of; ``arns`` maps others to names. What is neither is left to moto. ``options``
    are those of ``Engine.reserve``.

    Raises :exc:`RuntimeError` within another such block: there is one S3 in a process.
    """
    from moto.s3.responses import S3Response

    hook = _Hook(engine, dict(arns or {}), options)
    names = ("_bucket_response", "_key_response")
    before = [getattr(S3Response, name) for name in names]
    if any(hasattr(function, "tidewire") for function in before):
        raise RuntimeError("moto's S3 publishes already: end the other block first")
    for name, function in zip(names, before):
        setattr(S3Response, name, hook.around(function))
    try:
        yield
    finally:
        for name, function in zip(names, before):
            setattr(S3Response, name, function)


class _Hook:
    def __init__(self, engine: Engine, arns: "dict[str, str]", options: "dict[str, Any]") -> None:
        self.engine, self.arns, self.options = engine, arns, options
        self.api = S3()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def respond(this: Any, *args: Any, **kwargs: Any) -> Any:
            return self.respond(this, lambda: function(this, *args, **kwargs))

        respond.tidewire = self  # type: ignore[attr-defined]
        return respond

    def respond(self, this: Any, go_on: Callable[[], Any]) -> Any:
        request = self.request(this)
        if request.method == "PUT" and request.query.keys() == {"notification"}:
            return self.notification(this, go_on)
        operations = self.api.operations(request)
        if operations is None:
            return go_on()
        found = self.api.of_body(request, this.body) if operations.wants_request else operations.all
        found = [operation for operation in found if self.is_there(this, operation)]
        try:
            held = Held(self.engine, found, self.options)
        except REFUSED as error:
            raise _refusal("SlowDown", 503, str(error)) from error
        with held.batch:
            answer = go_on()
            status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
            lower = {str(name).lower(): str(value) for name, value in headers.items()}
            text = body.encode() if isinstance(body, str) else bytes(body)
            held.learn(self.api, Response(status, lower, text, len(this.body or b"")))
            try:
                held.batch.commit_all()
            except Timeout:
                # They are on their way.
                pass
        return answer

    def request(self, this: Any) -> Request:
        raw = this.request
        url = raw.url if hasattr(raw, "url") else this.uri
        headers = {str(name).lower(): str(value) for name, value in raw.headers.items()}
        path = f"/{this.bucket_name}/{this.parse_key_name() or ''}"
        return Request(
            raw.method,
            path.encode("utf-8", "surrogateescape"),
            query_of(str(url).partition("?")[2]),
            headers,
            getattr(raw, "remote_addr", None),
            getattr(this, "access_key", None),
        )

    def is_there(self, this: Any, operation: Operation) -> bool:
        """S3 says nothing of the deletion of what is not there, unless that leaves a marker."""
        event = operation.event
        if event["event_type"] not in (
            EventType.OBJECT_REMOVED_DELETE,
            EventType.OBJECT_REMOVED_DELETE_MARKER_CREATED,
        ):
            return True
        key = event["key"]
        key = key if isinstance(key, str) else key.decode()
        bucket = this.backend.buckets.get(event["bucket"])
        return bucket is not None and (bucket.is_versioned or key in bucket.keys)

    def notification(self, this: Any, go_on: Callable[[], Any]) -> Any:
        document = self.document(this.body)
        try:
            self.engine.check_bucket_notification(this.bucket_name, document)
        except InvalidConfig as error:
            raise _refusal(error.s3_code, error.s3_status, str(error)) from error
        answer = go_on()
        self.engine.put_bucket_notification(this.bucket_name, document)
        return answer

    def document(self, body: bytes) -> "dict[str, Any]":
        """What of a document is for the engine."""
        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            raise _refusal("MalformedXML", 400, str(error)) from error
        document: dict[str, Any] = {}
        names = {destination["name"] for destination in self.engine.destinations()}
        for element in root:
            kind = _name(element)
            of = {"QueueConfiguration": "Queue", "TopicConfiguration": "Topic", "CloudFunctionConfiguration": "CloudFunction"}
            if kind not in of:
                continue
            arn = _text(element, of[kind])
            name = self.arns.get(arn, arn.rpartition(":")[2])
            if arn not in self.arns and name not in names:
                continue
            # The rules of all kinds are queues here: what they lead to is a destination.
            own = f"arn:tidewire:sqs:::{name}"
            rule: dict[str, Any] = {"QueueArn": own, "Events": [e.text or "" for e in element if _name(e) == "Event"]}
            if _text(element, "Id"):
                rule["Id"] = _text(element, "Id")
            filters = [e for e in element.iter() if _name(e) == "FilterRule"]
            if filters:
                rules = [{"Name": _text(f, "Name"), "Value": _text(f, "Value")} for f in filters]
                rule["Filter"] = {"Key": {"FilterRules": rules}}
            document.setdefault("QueueConfigurations", []).append(rule)
        return document


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in element if _name(child) == name), "")


def _refusal(code: str, status: int, message: str) -> Exception:
    from moto.s3.exceptions import S3ClientError

    error: Exception = S3ClientError(code, message)
    error.code = status  # type: ignore[attr-defined]
    return error
