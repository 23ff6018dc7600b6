"""What is written down is so: docstrings, examples, the picture."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, Server, custom

import tidewire
import tidewire.plot
import tidewire.receive

PYTHON = ROOT / "python"


def run(*command: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload,no-any-return]


def test_the_stub_has_the_docstrings() -> None:
    out = run(sys.executable, str(PYTHON / "tests" / "stub_docs.py"), "--check", cwd="/")
    assert out.returncode == 0, "run python/tests/stub_docs.py" + out.stderr


def test_docstrings_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tidewire.toml").write_text(f'{custom(engine="")}'.replace("[engine]", '[engine]\ndata_dir = "data"'))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    names = {"tidewire": tidewire, **{n: getattr(tidewire, n) for n in tidewire.__all__}}
    names.update({n: getattr(tidewire.receive, n) for n in tidewire.receive.__all__})
    objects: list[object] = [tidewire, tidewire.receive]
    for name in tidewire.__all__:
        thing = getattr(tidewire, name)
        objects += [thing, *(m for n, m in vars(thing).items() if not n.startswith("_"))] if isinstance(thing, type) else []
    for at, thing in enumerate(objects):
        doc = getattr(thing, "__doc__", None) or ""
        if ">>>" in doc:
            # Each has an engine of its own: what another published may still be on its way.
            engine = tidewire.Engine(custom(), data_dir=tmp_path / str(at))
            engine.set_handler("mine", lambda batch: None)
            name = getattr(thing, "__name__", "thing")
            test = doctest.DocTestParser().get_doctest(doc, {**names, "engine": engine}, name, None, 0)
            runner.run(test)
            engine.close(0)
    assert runner.tries >= 8 and runner.failures == 0


def test_help_reads_well() -> None:
    text = run(sys.executable, "-c", "import tidewire; help(tidewire.Engine.publish)", cwd="/").stdout
    assert "publish(self, " in text and "Published.ACCEPTED" in text and "timeout=30.0" in text


def test_the_examples_run(tmp_path: Path, server: Server) -> None:
    examples = PYTHON / "examples"
    out = run(sys.executable, str(examples / "publish.py"), server.url, str(tmp_path / "a"), cwd=tmp_path)
    assert (out.returncode, out.stdout) == (0, "accepted and 1 delivered\n"), out.stderr
    out = run(sys.executable, str(examples / "asyncio_service.py"), str(tmp_path / "b"), cwd=tmp_path)
    assert out.returncode == 0 and out.stdout.count("indexed") == 103 and "100 accepted" in out.stdout, out.stderr
    out = run(sys.executable, str(examples / "consumer.py"), str(tmp_path / "c"), cwd=tmp_path)
    assert out.returncode == 0 and out.stdout.count("thumbnail") == 10, out.stderr


def test_the_example_of_a_receiver_takes_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PYTHON / "examples"))
    import receiver

    secret = "whsec_" + "A" * 44
    server = receiver.serve(0, secret)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        from conftest import config

        text = config(url, destination=f'auth = {{ scheme = "standard-webhooks", secret = "{secret}" }}')
        with tidewire.Engine(text, data_dir=tmp_path) as engine:
            engine.publish("photos", "k")
            engine.flush()
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(url, b"x", timeout=20)
        assert e.value.code == 401
        e.value.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.long
def test_pyright_agrees() -> None:
    command = [sys.executable, "-m", "pyright", "-p", str(PYTHON / "pyproject.toml"), "--pythonpath", sys.executable]
    out = run(*command, cwd="/", env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})
    assert out.returncode == 0 and "0 errors" in out.stdout, out.stdout + out.stderr


@pytest.mark.long
def test_a_picture_is_drawn(tmp_path: Path) -> None:
    with tidewire.Engine(custom(), data_dir=tmp_path / "data") as engine:
        engine.set_handler("mine", lambda batch: None)
        engine.publish("photos", "k")
        engine.flush()
        stats = engine.stats()
    one, lines, benches = tmp_path / "one.json", tmp_path / "lines.json", tmp_path / "benches.json"
    one.write_text(json.dumps(stats))
    lines.write_text("\n".join(json.dumps({**stats, "time": t}) for t in range(3)))
    benches.write_text(json.dumps([{"name": "publish", "ns_per_call": 700}, {"name": "empty", "ns_per_call": 50}]))
    report = tmp_path / "report.json"
    point = {"value": 3.0, "range": [2.0, 5.0], "unit": "us", "part": "latency"}
    places = [{"axis": "events per second", "value": 10.0 * n, "line": "p50"} for n in range(1, 4)]
    machine = {"processor": "one", "processors": 2, "kernel": "6.18"}
    figures = [{**point, "at": place} for place in places] + [point]
    report.write_text(json.dumps({"machine": machine, "figures": figures}))
    for file in (one, lines, benches, report):
        assert tidewire.plot.main([str(file)]) == 0
        assert file.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert tidewire.plot.main([str(one), "-o", str(tmp_path / "x.svg")]) == 0
    assert "<svg" in (tmp_path / "x.svg").read_text()


@pytest.mark.long
@pytest.mark.parametrize("text", ["", "{", "5", "[]", "{}", '{"a":1}\nx', '{"machine":{},"figures":[]}'])
def test_what_is_no_statistics_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(text)
    assert tidewire.plot.main([str(tmp_path / "x.json")]) == 1
    assert capsys.readouterr().err
    assert tidewire.plot.main([str(tmp_path / "none.json")]) == 1
