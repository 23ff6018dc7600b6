"""The receiver's side: verifying signatures, reading records, dropping repeats, and knowing which of two events is newer.

It is plain Python, and needs no engine: a service that gets webhooks may use it alone.

>>> receiver = Receiver(StandardWebhooks("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
>>> def post(headers, body):                 # in the web framework of your choice
...     for event in receiver.take(headers, body):
...         print(event.event_type, event.bucket, event.key)
...         receiver.done(event)             # only now: what fails before comes again

Deliveries are at least once: a repeat has the same event id. Events of one key come in order; after a failure an older one may
come again behind a newer one, which its sequencer tells.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
import urllib.parse
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional, Protocol, Union

__all__ = [
    "BODY_BYTES_MAX",
    "GitHub",
    "Hmac",
    "InvalidRecord",
    "InvalidSignature",
    "Latest",
    "Received",
    "Receiver",
    "Repeats",
    "StandardWebhooks",
    "Verifier",
    "compare_sequencers",
    "read",
]

BODY_BYTES_MAX = 64 << 20
"""The most bytes that a compressed body may become."""

TOLERANCE = 300.0
"""How far the time of a signature may be from now, in seconds, unless a verifier says otherwise."""

Body = Union[bytes, bytearray, memoryview]


class InvalidSignature(ValueError):
    """A request is not from who knows the secret, or is too old. Answer 401."""


class InvalidRecord(ValueError):
    """A body is none of the documents that are known. Answer 400."""


# --- signatures -----------------------------------------------------------------------------------------------------


class Verifier(Protocol):
    """Checks a request."""

    def verify(self, headers: Mapping[str, str], body: Body, *, now: Optional[float] = None) -> None:
        """Raises :exc:`InvalidSignature`. ``now`` is in seconds since the epoch."""


def _lower(headers: Mapping[str, str]) -> "dict[str, str]":
    return {name.lower(): value for name, value in headers.items()}


def _header(headers: "dict[str, str]", name: str) -> str:
    value = headers.get(name.lower())
    if value is None:
        raise InvalidSignature(f"the header {name} is missing")
    return value


def _timely(text: str, tolerance: float, now: Optional[float]) -> None:
    # Python reads more digits than ASCII's as a number.
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise InvalidSignature("the time is no number of seconds")
    away = abs((time.time() if now is None else now) - int(text))
    if away > tolerance:
        raise InvalidSignature(f"the time is {away:.0f} s from now, more than {tolerance:.0f} s")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base 64") from None


def _secrets(secrets: Union[str, Iterable[str]]) -> "list[str]":
    found = [secrets] if isinstance(secrets, str) else list(secrets)
    if not found:
        raise ValueError("there is no secret: give at least one")
    return found


class StandardWebhooks:
    """Standard Webhooks: ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``.

    ``secrets`` is one, or several while one takes the place of another: ``whsec_…`` for HMAC-SHA256 (``v1``), or the public key
    ``whpk_…`` for Ed25519 (``v1a``), which needs the package ``cryptography``. ``tolerance`` is in seconds.

    Raises :exc:`ValueError` for a secret that is none.
    """

    def __init__(self, secrets: Union[str, Iterable[str]], *, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance
        self._shared: list[bytes] = []
        self._public: list[Any] = []
        for secret in _secrets(secrets):
            try:
                if secret.startswith("whpk_"):
                    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

                    self._public.append(Ed25519PublicKey.from_public_bytes(_base64(secret[len("whpk_") :])))
                else:
                    self._shared.append(_base64(secret[len("whsec_") :] if secret.startswith("whsec_") else secret))
            except ValueError as error:
                raise ValueError(f"this is no secret of Standard Webhooks: {error}") from None

    def verify(self, headers: Mapping[str, str], body: Body, *, now: Optional[float] = None) -> None:
        """Raises :exc:`InvalidSignature`."""
        lower = _lower(headers)
        number, when = _header(lower, "webhook-id"), _header(lower, "webhook-timestamp")
        signatures = _header(lower, "webhook-signature").split()
        _timely(when, self.tolerance, now)
        signed = f"{number}.{when}.".encode() + bytes(body)
        for signature in signatures:
            version, _, text = signature.partition(",")
            try:
                given = _base64(text)
            except ValueError:
                continue
            if version == "v1":
                for secret in self._shared:
                    if hmac.compare_digest(hmac.new(secret, signed, hashlib.sha256).digest(), given):
                        return
            elif version == "v1a" and self._verify_public(given, signed):
                return
        raise InvalidSignature("no signature fits any secret")

    def _verify_public(self, signature: bytes, signed: bytes) -> bool:
        if not self._public:
            return False
        from cryptography import exceptions

        for key in self._public:
            try:
                key.verify(signature, signed)
                return True
            except exceptions.InvalidSignature:
                pass
        return False


class Hmac:
    """A keyed hash of the body in a header, or of time and body: what ``scheme = "hmac"`` sends.

    The arguments are the keys of that scheme. ``tolerance``, in seconds, is for the time, if there is one; without one, who saw
    a request can send it again.
    """

    def __init__(
        self,
        secrets: Union[str, bytes, Iterable[Union[str, bytes]]],
        *,
        header: str,
        prefix: str = "",
        algorithm: str = "sha256",
        encoding: str = "hex",
        timestamp_header: Optional[str] = None,
        timestamp_separator: str = ".",
        tolerance: float = TOLERANCE,
    ) -> None:
        if algorithm not in ("sha1", "sha256", "sha512"):
            raise ValueError(f"unknown algorithm {algorithm!r}: use sha256, sha1 or sha512")
        if encoding not in ("hex", "base64"):
            raise ValueError(f"unknown encoding {encoding!r}: use hex or base64")
        several = [secrets] if isinstance(secrets, (str, bytes)) else list(secrets)
        if not several:
            raise ValueError("there is no secret: give at least one")
        self._secrets = [s.encode() if isinstance(s, str) else s for s in several]
        self._header, self._prefix = header, prefix
        self._algorithm, self._encoding = algorithm, encoding
        self._time_header, self._separator = timestamp_header, timestamp_separator
        self.tolerance = tolerance

    def verify(self, headers: Mapping[str, str], body: Body, *, now: Optional[float] = None) -> None:
        """Raises :exc:`InvalidSignature`."""
        lower = _lower(headers)
        text = _header(lower, self._header)
        if not text.startswith(self._prefix):
            raise InvalidSignature(f"the header {self._header} does not begin with {self._prefix}")
        try:
            text = text[len(self._prefix) :]
            given = binascii.unhexlify(text) if self._encoding == "hex" else _base64(text)
        except ValueError:
            raise InvalidSignature(f"the signature is not {self._encoding}") from None
        signed = bytes(body)
        if self._time_header is not None:
            when = _header(lower, self._time_header)
            _timely(when, self.tolerance, now)
            signed = (when + self._separator).encode() + signed
        for secret in self._secrets:
            if hmac.compare_digest(hmac.new(secret, signed, self._algorithm).digest(), given):
                return
        raise InvalidSignature("the signature fits no secret")


class GitHub(Hmac):
    """``X-Hub-Signature-256``: what ``scheme = "github"`` sends."""

    def __init__(self, secrets: Union[str, bytes, Iterable[Union[str, bytes]]]) -> None:
        super().__init__(secrets, header="X-Hub-Signature-256", prefix="sha256=")


# --- records --------------------------------------------------------------------------------------------------------


class Received(NamedTuple):
    """One event."""

    id: str
    """The same in each repeat."""
    event_type: str
    """With the prefix ``s3:`` where S3 has it, whatever the record has; of EventBridge, GCS and Azure their own names."""
    bucket: str
    key: bytes
    """Raw, whatever form the record has it in."""
    sequencer: str
    """Its place among the events of the key: see :func:`compare_sequencers`. Empty if the record has none."""
    record: "dict[str, Any]"
    """All of it."""


def read(headers: Mapping[str, str], body: Body) -> "list[Received]":
    """The events of a request, in their order, from every profile and encoding that the engine writes but XML and templates:
    ``Records`` of S3, MinIO and Ceph, EventBridge, Pub/Sub pushes of Cloud Storage, Event Grid, CloudEvents in each mode,
    Debezium, and lines of these. What S3 sends as a test (``s3:TestEvent``) has no events.

    A body that is compressed with gzip is unpacked, to :data:`BODY_BYTES_MAX` at most.

    Raises :exc:`InvalidRecord`.
    """
    lower = _lower(headers)
    document = _unpack(lower.get("content-encoding", ""), bytes(body))
    if "ce-id" in lower:
        return [_cloudevent({**_attributes(lower), "data": _json(document)})]
    kind = lower.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind in ("application/x-ndjson", "application/ndjson"):
            return [event for line in document.splitlines() if line.strip() for event in _events(_json(line))]
        return list(_events(_json(document)))
    except InvalidRecord:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidRecord(f"a record lacks what it must have: {error!r}") from error


def _unpack(encoding: str, body: bytes) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise InvalidRecord(f"the body has the encoding {encoding}, which is not known here")
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        document = unpacking.decompress(body, BODY_BYTES_MAX)
    except zlib.error as error:
        raise InvalidRecord(f"the body is no gzip: {error}") from error
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise InvalidRecord("the body is too large, or ends too early")
    return document


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"the body is not JSON: {error}") from error


def _events(document: Any) -> Iterator[Received]:
    if isinstance(document, list):
        for item in document:
            yield from _events(item)
    elif not isinstance(document, dict):
        raise InvalidRecord("the body is no object, and no list of them")
    elif "Records" in document:
        for record in document["Records"]:
            yield _s3(record)
    elif "specversion" in document:
        yield _cloudevent(document)
    elif "detail-type" in document:
        yield _event_bridge(document)
    elif "message" in document and "attributes" in document["message"]:
        yield _cloud_storage(document)
    elif "eventGridVersion" in document or ("subject" in document and "eventType" in document):
        yield _event_grid(document)
    elif "op" in document and "source" in document:
        yield _debezium(document)
    elif "s3" in document:
        yield _s3(document)
    elif document.get("Event") == "s3:TestEvent":
        return
    else:
        raise InvalidRecord("the body is none of the documents that are known")


def _form(key: str) -> bytes:
    return urllib.parse.unquote_to_bytes(key.replace("+", " "))


def _s3_type(name: str) -> str:
    return f"s3:{name}" if re.match(r"(Object|Lifecycle|Replication|Intelligent|Reduced)", name) else name


def _s3(record: "dict[str, Any]") -> Received:
    s3 = record["s3"]
    thing = s3["object"]
    # Those of Ceph, which gives buckets an id, are raw, with the encoded form beside what is no UTF-8.
    if "id" in s3["bucket"]:
        key = _form(thing["keyEncoded"]) if "keyEncoded" in thing else thing["key"].encode()
    else:
        key = _form(thing["key"])
    number = record.get("eventId") or record.get("responseElements", {}).get("x-amz-request-id", "")
    kind = _s3_type(record["eventName"])
    return Received(number, kind, s3["bucket"]["name"], key, thing.get("sequencer", ""), record)


def _attributes(headers: "dict[str, str]") -> "dict[str, Any]":
    return {n[3:]: urllib.parse.unquote(v) for n, v in headers.items() if n.startswith("ce-")}


def _cloudevent(event: "dict[str, Any]") -> Received:
    kind: str = event["type"]
    for prefix, instead in (("com.amazonaws.s3.", "s3:"), ("dev.tidewire.", "")):
        if kind.startswith(prefix):
            kind = instead + kind[len(prefix) :]
            break
    data = event.get("data")
    record = data if isinstance(data, dict) else {}
    if "s3" in record:
        inner = _s3(record)
        bucket, key = inner.bucket, inner.key
    else:
        bucket, key = record.get("bucket", ""), str(record.get("key", event.get("subject", ""))).encode()
    return Received(event["id"], kind, bucket, key, event.get("sequence", ""), event)


def _event_bridge(event: "dict[str, Any]") -> Received:
    detail = event["detail"]
    thing = detail["object"]
    key = _form(thing["key-encoded"]) if "key-encoded" in thing else thing["key"].encode()
    kind = event["detail-type"]
    return Received(event["id"], kind, detail["bucket"]["name"], key, thing.get("sequencer", ""), event)


def _cloud_storage(event: "dict[str, Any]") -> Received:
    message = event["message"]
    a = message["attributes"]
    key = _form(a["keyEncoded"]) if "keyEncoded" in a else a["objectId"].encode()
    number = message.get("messageId") or message["message_id"]
    return Received(number, a["eventType"], a["bucketId"], key, a.get("objectGeneration", ""), event)


def _event_grid(event: "dict[str, Any]") -> Received:
    container, _, blob = event["subject"].partition("/blobs/")
    data = event["data"]
    bucket = container.rpartition("/")[2]
    # The subject is text. The address has the bytes; that of Azure begins with an account.
    scheme, _, address = str(data.get("url", "")).partition("://")
    key = urllib.parse.unquote_to_bytes(address.partition("/")[2]) if scheme == "s3" else blob.encode()
    return Received(event["id"], event["eventType"], bucket, key, data.get("sequencer", ""), event)


def _debezium(event: "dict[str, Any]") -> Received:
    row = event.get("after") or event["before"]
    key = _form(row["key_encoded"]) if "key_encoded" in row else row["key"].encode()
    source = event["source"]
    return Received(source["sequence"], source["event"], row["bucket"], key, source["lsn"], event)


# --- repeats and order ----------------------------------------------------------------------------------------------


def compare_sequencers(a: str, b: str) -> int:
    """Which of two events of one key is newer: below 0 if ``b`` is, 0 if they are the same, above 0 if ``a`` is.

    Sequencers are hexadecimal numbers. Where their lengths differ the shorter one is filled up with zeros on the left, as S3
    asks for; those of the engine have 32 digits, and are ordered as texts too.

    Raises :exc:`ValueError` for what is no such number.
    """
    for sequencer in (a, b):
        if not re.fullmatch(r"[0-9A-Fa-f]{1,64}", sequencer):
            raise ValueError(f"{sequencer!r} is no sequencer: it has 1 to 64 hexadecimal digits")
    return (int(a, 16) > int(b, 16)) - (int(a, 16) < int(b, 16))


class Repeats:
    """Remembers the ids of the events that are done: of so many at most, the oldest are forgotten first.

    It is for one thread, and for as long as the process lives. A receiver that must know longer keeps ids where it keeps what
    it does for an event.
    """

    def __init__(self, entries_max: int = 100_000) -> None:
        if entries_max < 1:
            raise ValueError("entries_max is at least 1")
        self._max = entries_max
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, number: object) -> bool:
        return number in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, number: str) -> bool:
        """Remembers an id. Answers whether it is new."""
        if number in self._ids:
            self._ids.move_to_end(number)
            return False
        self._ids[number] = None
        if len(self._ids) > self._max:
            self._ids.popitem(last=False)
        return True


class Latest:
    """Remembers the newest sequencer of each key: of so many keys at most, those not heard of for longest are forgotten first."""

    def __init__(self, entries_max: int = 100_000) -> None:
        if entries_max < 1:
            raise ValueError("entries_max is at least 1")
        self._max = entries_max
        self._newest: OrderedDict[tuple[str, bytes], str] = OrderedDict()

    def is_stale(self, event: Received) -> bool:
        """Whether a newer event of the key was added. One without a sequencer never is."""
        newest = self._newest.get((event.bucket, event.key))
        return bool(newest and event.sequencer) and compare_sequencers(event.sequencer, newest or "") < 0

    def add(self, event: Received) -> bool:
        """Remembers an event. Answers whether it is the newest of its key."""
        if self.is_stale(event):
            return False
        if event.sequencer:
            self._newest[event.bucket, event.key] = event.sequencer
            self._newest.move_to_end((event.bucket, event.key))
            if len(self._newest) > self._max:
                self._newest.popitem(last=False)
        return True


class Receiver:
    """All of it together: verifies a request, reads its events, and leaves out those that are done.

    ``verifier`` is ``None`` where something else has verified the request. ``entries_max`` is how many ids are remembered.
    """

    def __init__(self, verifier: Optional[Verifier], *, entries_max: int = 100_000) -> None:
        self.verifier = verifier
        self.repeats = Repeats(entries_max)

    def take(self, headers: Mapping[str, str], body: Body, *, now: Optional[float] = None) -> "list[Received]":
        """The events of a request that are not done.

        Raises :exc:`InvalidSignature` (answer 401) or :exc:`InvalidRecord` (answer 400).
        """
        if self.verifier is not None:
            self.verifier.verify(headers, body, now=now)
        fresh: dict[str, Received] = {}
        for event in read(headers, body):
            if event.id not in self.repeats:
                fresh.setdefault(event.id, event)
        return list(fresh.values())

    def done(self, event: Received) -> None:
        """The event is done: a repeat of it is left out from now on."""
        self.repeats.add(event.id)
