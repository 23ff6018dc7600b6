"""What the middlewares share: events that are held while a request is under way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from .. import BatchReservation, Engine, Event, InvalidEvent
from .http import Api, Operation, Response, fits

_log = logging.getLogger("tidewire.integrations")

UNAVAILABLE = b"The event of this request cannot be kept now. Try again later.\n"


class Held:
    """The reservations of a request, each with the operation that it is for. ``options`` are those of ``Engine.reserve``.

    Raises what ``Engine.reserve_batch`` does.
    """

    def __init__(self, engine: Engine, operations: Sequence[Operation], options: "dict[str, Any]") -> None:
        known: list[tuple[Operation, Event]] = []
        for operation, parts in zip(operations, fits(operation.event for operation in operations)):
            try:
                known.append((operation, Event(**parts)))
            except InvalidEvent as error:
                # The store takes it, so it is done; only the engine cannot tell of it.
                _log.error("no event can be made of a request: %s", error)
        self._operations = [operation for operation, _ in known]
        self.batch: BatchReservation = engine.reserve_batch([event for _, event in known], **options)

    def __bool__(self) -> bool:
        return any(bool(reservation) for reservation in self.batch)

    def learn(self, api: Api, response: Response) -> None:
        """Remembers what the answer tells, and aborts what did not come to be. The rest is for ``commit_all``."""
        succeeded = api.succeeded(response)
        for operation, reservation in zip(self._operations, self.batch):
            fields = operation.learn(response) if succeeded else None
            if fields is None:
                reservation.abort()
            else:
                reservation.set(**fields)
