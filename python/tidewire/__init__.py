"""Tidewire tells the world what happens in an object store.

>>> import tidewire
>>> with tidewire.Engine(config_path="tidewire.toml") as engine:
...     engine.publish("photos", "cat.jpg", size=1024)
<Published.ACCEPTED: 1>

Where something waits there is a method of the same name with ``_async``, to be awaited. ``tidewire.receive`` is for
those who get the records; ``tidewire.integrations`` has middleware for ASGI, WSGI and OpenStack Swift, and a hook for moto.
"""

import atexit as _atexit

from . import _errors, _tidewire, _types
from ._errors import *  # noqa: F403
from ._tidewire import (
    FILTER_SCHEMA,
    Batch,
    BatchReservation,
    Consumer,
    Delivery,
    Engine,
    Entry,
    Event,
    Filter,
    Gap,
    Replay,
    Reservation,
    Tail,
    __version__,
    check_config,
    lint,
    refresh_logging,
)
from ._types import *  # noqa: F403

__all__ = [
    *_errors.__all__,
    *_types.__all__,
    "FILTER_SCHEMA",
    "Batch",
    "BatchReservation",
    "Consumer",
    "Delivery",
    "Engine",
    "Entry",
    "Event",
    "EventType",
    "Filter",
    "Gap",
    "Replay",
    "Reservation",
    "Tail",
    "__version__",
    "check_config",
    "lint",
    "refresh_logging",
]


class EventType:
    """The names of the known event types; each is a plain ``str``."""

    ALL: "tuple[str, ...]" = ()


for _name, _value in _tidewire.event_types():
    setattr(EventType, _name, _value)
EventType.ALL = tuple(_value for _name, _value in _tidewire.event_types())

_tidewire.check_interpreter()

# What was accepted is made durable, even if the engine is still open when the interpreter ends.
_atexit.register(_tidewire.close_all)

del _name, _value
