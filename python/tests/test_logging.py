"""What the engine has to say comes to `logging`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Mine, Open, custom, run_python, until

import tidewire


def test_messages_have_the_logger_of_their_part(
    open_engine: Open, dead_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="tidewire")
    engine = open_engine(dead_url, destination="breaker = { consecutive_failures = 1 }")
    engine.publish("photos", "k")
    until(lambda: any(r.name.startswith("tidewire") for r in caplog.records))
    engine.close(0)
    assert all(r.name.split(".")[0] == "tidewire" for r in caplog.records)


def test_levels_are_those_of_logging(caplog: pytest.LogCaptureFixture, open_mine: Callable[..., Mine]) -> None:
    caplog.set_level(logging.CRITICAL, logger="tidewire")
    tidewire.refresh_logging()
    engine, _ = open_mine()
    engine.publish("photos", "k")
    engine.close()
    assert [r for r in caplog.records if r.name.startswith("tidewire.")] == []


AT_EXIT = """
import logging, sys, tidewire
from conftest import custom
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s", stream=sys.stdout)
engine = tidewire.Engine(custom(), data_dir=sys.argv[1])
def handler(batch):
    import time
    time.sleep(3)
engine.set_handler("mine", handler)
engine.publish("photos", "k")
"""


def test_what_is_said_at_the_very_end_is_told(tmp_path: Path) -> None:
    out = run_python(AT_EXIT.replace("custom()", "custom(engine='')"), tmp_path / "data")
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""


FORKS = """
import logging, os, sys, tidewire
from conftest import custom
logging.basicConfig(level=logging.DEBUG)
engine = tidewire.Engine(custom(), data_dir=sys.argv[1] + "/parent")
for n in range(20):
    child = os.fork()
    if child == 0:
        own = tidewire.Engine(custom(), data_dir=sys.argv[1] + "/child")
        own.publish("photos", "k")
        own.close(0)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
engine.publish("photos", "k")
engine.close(0)
print("done")
"""


def test_a_forked_child_has_messages_of_its_own(tmp_path: Path) -> None:
    out = run_python(FORKS, tmp_path)
    assert (out.returncode, out.stdout) == (0, "done\n"), out.stderr


HANDLER_RAISES = """
import logging, sys, tidewire
from conftest import custom
class Broken(logging.Handler):
    def emit(self, record):
        raise ValueError("the handler is broken")
logging.getLogger("tidewire").addHandler(Broken())
logging.getLogger("tidewire").setLevel(logging.DEBUG)
for n in range(3):
    with tidewire.Engine(custom(), data_dir=sys.argv[1]) as engine:
        engine.publish("photos", "k", ack="memory")
print("done")
"""


def test_a_broken_handler_of_messages_harms_nobody(tmp_path: Path) -> None:
    out = run_python(HANDLER_RAISES, tmp_path)
    assert (out.returncode, out.stdout) == (0, "done\n"), out.stderr
