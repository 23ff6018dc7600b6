"""The package: names, constants, stubs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
from conftest import ROOT, Open, config, until

import tidewire
from tidewire import EventType

PACKAGE = Path(tidewire.__file__).parent


def stub() -> ast.Module:
    return ast.parse((PACKAGE / "__init__.pyi").read_text())


def names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or class of a stub declares."""
    found: dict[str, ast.stmt] = {}
    for s in body:
        if isinstance(s, (ast.FunctionDef, ast.ClassDef)):
            # Of overloads the first, which names every part.
            found.setdefault(s.name, s)
        elif isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name):
            found[s.target.id] = s
        elif isinstance(s, ast.Assign):
            found.update({t.id: s for t in s.targets if isinstance(t, ast.Name)})
        elif isinstance(s, ast.ImportFrom):
            found.update({a.asname: s for a in s.names if a.asname})
    return found


def test_the_installed_package_is_tested() -> None:
    assert "site-packages" in str(PACKAGE)
    assert (PACKAGE / "py.typed").exists()


def test_the_version_is_that_of_the_workspace() -> None:
    manifest = (ROOT / "Cargo.toml").read_text()
    [version] = re.findall(r'^version = "([^"]+)"', manifest, re.M)[:1]
    assert tidewire.__version__ == version


def test_every_public_name_has_a_stub() -> None:
    declared = names(stub().body)
    modules = {name for name, value in vars(tidewire).items() if isinstance(value, types.ModuleType)}
    public = {name for name in vars(tidewire) if not name.startswith("_")} - modules | {"__version__", "__all__"}
    assert public == {name for name in declared if not name.startswith("_") or name.startswith("__")}
    listed = declared["__all__"]
    assert isinstance(listed, ast.Assign)
    assert set(ast.literal_eval(listed.value)) == set(tidewire.__all__) == public - {"__all__"}


def test_the_stub_of_the_engine_is_complete() -> None:
    declared = names(stub().body)["Engine"]
    assert isinstance(declared, ast.ClassDef)
    methods = names(declared.body)
    own = {n for n in vars(tidewire.Engine) if not n.startswith("_")} | {"__enter__", "__exit__", "__new__"}
    own |= {"__aenter__", "__aexit__"}
    assert {n for n in methods if not n.startswith("_") or n.startswith("__")} == own
    # The first form of `set_handler` has no loop.
    for name in own - {"closed", "rules_version", "set_handler", "__new__"}:
        function = methods[name]
        assert isinstance(function, ast.FunctionDef)
        a = function.args
        stubbed = [arg.arg for arg in a.posonlyargs + a.args + a.kwonlyargs]
        assert stubbed == list(inspect.signature(getattr(tidewire.Engine, name)).parameters), name


def test_everything_public_says_what_it_is() -> None:
    assert tidewire.__doc__
    for name in tidewire.__all__:
        if name != "__version__":
            assert getattr(tidewire, name).__doc__, name
    for name, method in vars(tidewire.Engine).items():
        if not name.startswith("_"):
            assert method.__doc__, name


def test_the_stub_has_the_types_of_the_registry() -> None:
    declared = names(stub().body)["EventType"]
    assert isinstance(declared, ast.ClassDef)
    stubbed = {
        name: ast.literal_eval(s.value)
        for name, s in names(declared.body).items()
        if isinstance(s, ast.AnnAssign) and s.value is not None
    }
    actual = {name: value for name, value in vars(EventType).items() if name.isupper() and name != "ALL"}
    assert stubbed == actual
    assert EventType.ALL == tuple(actual.values())
    assert EventType.OBJECT_CREATED_PUT == "s3:ObjectCreated:Put"
    assert EventType.OBJECT_REMOVED_DELETE_MARKER_CREATED == "s3:ObjectRemoved:DeleteMarkerCreated"
    assert all(type(value) is str for value in EventType.ALL)


def test_the_engine_knows_every_constant(tmp_path: Path) -> None:
    text = config("http://127.0.0.1:9/", destination='profile = "cloudevents"')
    with tidewire.Engine(text, data_dir=str(tmp_path)) as engine:
        assert all(engine.is_interested("photos", name) for name in EventType.ALL)


def test_the_gate_refuses_what_no_destination_has_a_record_for(engine: tidewire.Engine) -> None:
    assert not engine.is_interested("photos", EventType.CONFIGURATION_POLICY_PUT)
    assert not engine.publish("photos", "", "Configuration:Policy:Put")


def test_the_numbers_are_as_declared(engine: tidewire.Engine) -> None:
    stats = engine.stats()
    assert list(stats) == list(typing.get_type_hints(tidewire.Stats))
    assert set(stats["latency_us"]) == set(typing.get_type_hints(tidewire.Latency))
    assert engine.publish("photos", "k")
    engine.flush()
    [hook] = engine.stats()["destinations"]
    assert list(hook) == list(typing.get_type_hints(tidewire.DestinationStats))


def test_the_standing_of_a_destination_is_as_declared(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)
    engine.publish("photos", "k")
    until(lambda: bool(engine.destination("hook")["attempts"]))
    standing = engine.destination("hook")
    assert set(standing) == set(typing.get_type_hints(tidewire.DestinationStanding))
    assert set(standing["certificates"]) == set(typing.get_type_hints(tidewire.Certificates))
    assert set(standing["endpoints"][0]) == set(typing.get_type_hints(tidewire.EndpointStanding))
    attempt = standing["attempts"][0]
    assert set(attempt) == set(typing.get_type_hints(tidewire.Attempt)) - {"endpoint"}
    assert attempt["events"] == 1 and attempt["outcome"] == "retry" and attempt["reason"]


@pytest.mark.parametrize("tool", ["mypy", "stubtest"])
def test_type_checkers_agree(tool: str, tmp_path: Path) -> None:
    python = ROOT / "python"
    settings = ["--config-file", str(python / "pyproject.toml")]
    if tool == "mypy":
        cache = ["--cache-dir", str(tmp_path)]
        files = [python / name for name in ("examples", "tests", "peers", "tidewire")] + [ROOT / "benches" / "python"]
        command = ["-m", "mypy", "--strict", *cache, *settings, *map(str, files)]
    else:
        allowed = ["--allowlist", str(python / "tests" / "stubtest.txt"), "--ignore-unused-allowlist"]
        command = ["-m", "mypy.stubtest", "tidewire", "--mypy-" + settings[0][2:], settings[1], *allowed]
    out = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert out.returncode == 0, out.stdout + out.stderr
