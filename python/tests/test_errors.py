"""Everything that can be wrong is told as an exception that says what, where, and what to do."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from conftest import Open, config

import tidewire
from tidewire import _errors


def refused(e: pytest.ExceptionInfo[Any], place: str) -> None:
    """The exception has all its parts, and its text has them too."""
    error = e.value
    assert isinstance(error, tidewire.Error)
    assert error.place is not None and place in error.place
    assert error.message
    assert str(error) == f"{error.place}: {error.message}" + (f"; {error.remedy}" if error.remedy else "")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"event_type": "s3:ObjectCreated:Pot"}, "event_type"),
        ({"event_type": "acme:Unknown"}, "event_type"),
        ({"event_type": ""}, "event_type"),
        ({"bucket": ""}, "bucket"),
        ({"bucket": "b" * 256}, "bucket"),
        ({"bucket": "\ud800"}, "bucket"),
        ({"key": ""}, "key"),
        ({"key": b"x" * 1025}, "key"),
        ({"key": os.fsdecode(b"\xff")}, "key"),
        ({"etag": "e" * 4097}, "etag"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"data": "{"}, "data"),
        ({"data": ""}, "data"),
        ({"data": b'"\xff"'}, "data"),
        ({"data": "{} {}"}, "data"),
        ({"data": {"a": float("nan")}}, "data"),
        ({"size": -1}, "size"),
        ({"size": 2**64}, "size"),
        ({"time_ns": -1}, "time_ns"),
        ({"hops": 256}, "hops"),
    ],
    ids=lambda x: str(x)[:40].encode("unicode_escape").decode() if isinstance(x, dict) else x,
)
def test_a_bad_event_is_refused(engine: tidewire.Engine, change: dict[str, Any], place: str) -> None:
    arguments: dict[str, Any] = {"bucket": "photos", "key": "k", **change}
    with pytest.raises(tidewire.InvalidEvent) as e:
        engine.publish(**arguments)
    refused(e, place)
    assert isinstance(e.value, ValueError)
    assert (e.value.code, e.value.kind) == (1, "InvalidEvent")
    assert engine.stats()["accepted"] == 0


def test_an_event_may_be_too_large(engine: tidewire.Engine) -> None:
    with pytest.raises(tidewire.InvalidEvent, match="65536"):
        engine.publish("photos", "k", metadata={"a": "x" * 65_000, "b": "x" * 1_000})
    assert engine.stats()["invalid"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"bucket": 1},
        {"bucket": b"photos"},
        {"bucket": None},
        {"key": 1},
        {"key": None},
        {"event_type": 3},
        {"size": "1"},
        {"size": 1.5},
        {"etag": b"e"},
        {"metadata": "x"},
        {"metadata": [("a", "b")]},
        {"metadata": {"a": 1}},
        {"tags": {b"a": "b"}},
        {"data": 1},
        {"data": {"a": object()}},
        {"timeout": "1"},
        {"block": "yes"},
        {"ack": 1},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_a_wrong_type_is_a_type_error(engine: tidewire.Engine, change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"bucket": "photos", "key": "k", **change}
    name = next(iter(change))
    with pytest.raises(TypeError) as e:
        engine.publish(**arguments)
    if isinstance(change.get("data"), dict):
        return  # Python's own words, of its `json`
    assert name in str(e.value) or name in str(getattr(e.value, "__notes__", name))


@pytest.mark.parametrize(
    "change",
    [
        {"ack": "disk"},
        {"priority": "urgent"},
        {"origin": "me"},
        {"timeout": -1},
        {"timeout": float("nan")},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_an_invalid_argument(engine: tidewire.Engine, change: dict[str, Any]) -> None:
    with pytest.raises(tidewire.InvalidArgument) as e:
        engine.publish("photos", "k", **change)
    refused(e, next(iter(change)))
    assert isinstance(e.value, ValueError)


def test_a_bad_timeout_is_refused_everywhere(engine: tidewire.Engine) -> None:
    for call in (engine.flush, engine.close):
        with pytest.raises(tidewire.InvalidArgument):
            call(-0.5)
    assert not engine.closed
    engine.flush(float("inf"))
    engine.flush(None)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[engine]\nshards = 1\nunknwon = 2\n", "config:3:1"),
        ('[engine]\ndata_dir = "x"\n\n\nring_bytes == 3\n', "config:5:13"),
        ("[engine]\nring_bytes = 1000\n", "config:2:14"),
        ("[[destination]]\nname = 'hook'\ntype = 'webhook'\nurl = 'ftp://x/'\n", "config:4:7"),
        (config("http://127.0.0.1:1/", events="s3:ObjectCreated:Pot"), "config:"),
    ],
    ids=["unknown key", "bad TOML", "out of range", "bad URL", "unknown type"],
)
def test_a_bad_configuration_is_refused_with_its_line(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(tidewire.InvalidConfig) as e:
        tidewire.Engine(text, data_dir=tmp_path / "data")
    refused(e, place)
    assert not (tmp_path / "data").exists()


def test_a_bad_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text("[engine]\n\nbad = 1\n")
    with pytest.raises(tidewire.InvalidConfig) as e:
        tidewire.Engine(config_path=path, data_dir=str(tmp_path / "data"))
    refused(e, f"{path}:3:1")


def test_a_configuration_must_be_given_once(tmp_path: Path) -> None:
    with pytest.raises(tidewire.InvalidArgument):
        tidewire.Engine(data_dir=tmp_path)
    with pytest.raises(tidewire.InvalidArgument):
        tidewire.Engine("", config_path=tmp_path / "t.toml", data_dir=tmp_path)
    with pytest.raises(tidewire.InvalidConfig, match="data_dir is missing"):
        tidewire.Engine("")
    with pytest.raises(TypeError):
        tidewire.Engine(3)  # type: ignore[arg-type]


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(tidewire.IoError) as e:
        tidewire.Engine(config_path=tmp_path / "none.toml", data_dir=tmp_path / "data")
    assert isinstance(e.value, OSError)
    assert (e.value.code, e.value.kind) == (6, "Io")
    assert "none.toml" in str(e.value)


def test_a_file_configures_an_engine(tmp_path: Path, dead_url: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(config(dead_url, engine='data_dir = "state"'))
    with tidewire.Engine(config_path=path) as engine:
        assert engine.is_interested("photos", "s3:ObjectCreated:Put")
    assert (tmp_path / "state").is_dir()


def test_a_directory_is_for_one_engine(engine: tidewire.Engine, open_engine: Open) -> None:
    with pytest.raises(tidewire.Locked) as e:
        open_engine()
    assert e.value.remedy
    engine.close()
    open_engine().close()


def test_a_directory_must_be_writable(open_engine: Open) -> None:
    with pytest.raises(tidewire.ReadOnly) as e:
        open_engine(data_dir=Path("/sys/tidewire"))  # Where not even root may make one.
    refused(e, "/sys/tidewire")
    assert isinstance(e.value, OSError)


def test_a_file_is_no_directory(tmp_path: Path, open_engine: Open) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(tidewire.Error) as e:
        open_engine()
    assert isinstance(e.value, OSError)
    assert "data" in str(e.value)


def test_every_kind_has_a_class_of_its_own() -> None:
    classes = [getattr(tidewire, name) for name in _errors.__all__ if name != "Error"]
    assert sorted(cls.code for cls in classes) == list(range(1, 21))
    for cls in classes:
        made = _errors.make(cls.code, cls.kind, "what", "where", "remedy")
        assert type(made) is cls
        assert cls.__module__ == "tidewire" and cls.__doc__
        assert cls.kind == cls.__name__ or (cls is tidewire.IoError and cls.kind == "Io")


def test_an_unknown_kind_is_a_plain_error() -> None:
    error = _errors.make(99, "Novel", "what", None, None)
    assert type(error) is tidewire.Error
    assert (error.code, error.kind, str(error)) == (99, "Novel", "what")
    assert tidewire.Error.code == 0


@pytest.mark.parametrize("code", [1, 4, 6, 9, 99])
def test_exceptions_go_through_pickle(code: int) -> None:
    error = _errors.make(code, _errors._BY_CODE.get(code, tidewire.Error).kind, "what", "where", None)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) == "where: what"
    assert (copy.code, copy.kind, copy.place, copy.remedy) == (code, error.kind, "where", None)
