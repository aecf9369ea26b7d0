"""A run as a process of its own: what its folder tells of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oodream.core.errors import StoreError
from oodream.run.folder import RunDir
from oodream.run.process import process_of, recorded, start, status, stop
from tests.helpers.runs import command

WAIT = 120  # seconds that a busy machine may take


def until(reached, folder: Path):
    """The run's status as soon as `reached` is true of it."""
    for _ in range(WAIT * 5):
        if reached(now := status(folder)):
            return now
        time.sleep(0.2)
    raise AssertionError(now)


def over(now) -> bool:
    return now.state not in ("running", "stopping")


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "run"
    if (process := process_of(tmp_path / "run")) is not None:
        process.kill()


def test_a_folder_that_nobody_worked_in_says_so(finished, tmp_path):
    assert recorded(tmp_path) is None
    assert process_of(tmp_path) is None
    assert status(tmp_path).stages == []
    now = status(finished)
    assert now.state == "done"
    assert [stage.name for stage in now.stages][:2] == ["classes", "align"]
    assert {stage.state for stage in now.stages} == {"done"}
    with pytest.raises(ValueError, match="Nothing is at work"):
        stop(tmp_path)


def test_what_is_refused_is_said_in_the_programs_words(folder):
    start(folder, ["run", f"--data={folder}/nothing", f"--run={folder}"])
    now = until(over, folder)
    assert now.state == "failed"
    assert "nothing" in now.message
    assert "oodream:" not in now.message


def test_a_run_is_stopped_and_goes_on_as_one_that_was_never_stopped(shapes, tiny_pipeline, folder, finished):
    words = command(shapes, tiny_pipeline, folder, "--until", "vectors", "--align.optimisation.epochs", "400")
    start(folder, words)
    process = process_of(folder)
    with pytest.raises(StoreError, match="is being worked in already"):
        start(folder, words)
    now = until(lambda now: now.bar is not None, folder)
    assert now.state == "running"
    assert next(stage.name for stage in now.stages if stage.state == "running") == "align"
    assert 0 <= now.bar.done < now.bar.total
    assert status(folder, [finished]).left > 0
    process.suspend()  # it is long at its step
    stop(folder)
    assert status(folder).state == "stopping"
    process.resume()
    now = until(over, folder)
    assert now.state == "stopped"
    assert not process.is_running() or process.status() == "zombie"
    start(folder, recorded(folder)["arguments"])
    stop_at = until(lambda now: now.bar is not None and now.bar.done > 0, folder)
    assert stop_at.stages[0].state == "done"
    stop(folder, force=True)
    assert until(over, folder).state == "killed"


def test_the_process_outlives_who_started_it(folder, shapes, tiny_pipeline):
    """And is found again by what the folder says."""
    words = command(shapes, tiny_pipeline, folder, "--align.optimisation.epochs", "400")
    code = "import sys, json; from pathlib import Path; from oodream.run.process import start; "
    code += "start(Path(sys.argv[1]), json.loads(sys.argv[2])); import os; os.kill(os.getpid(), 9)"
    starter = subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(words)])
    assert starter.returncode == -signal.SIGKILL
    assert status(folder).state == "running"
    assert process_of(folder).pid == recorded(folder)["pid"] != os.getpid()
    stop(folder, force=True)


def test_another_process_with_the_number_is_not_taken_for_it(copied):
    layout = RunDir(copied).layout
    record = {"pid": os.getpid(), "began": time.time() - 1e6, "arguments": ["run"]}
    layout.process.write_text(json.dumps(record))
    assert process_of(copied) is None
    assert status(copied).state == "done"
    layout.process.write_text('{"pid": "7"}')
    with pytest.raises(StoreError, match=r"process\.json is damaged"):
        recorded(copied)


@pytest.mark.parametrize(
    ("printed", "state", "message"),
    [
        ("  note: dark\noodream: stopped. The same command again goes on from here.\n", "stopped", ""),
        ("train:  5%|#   | 1/20 [00:01<00:19, 1step/s]oodream: The disk is full.\n", "failed", "full"),
        ("oodream: Two things:\n  a\n  b\n", "failed", "Two things:\n  a\n  b"),
        ("Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "failed", "KeyError: 'x'"),
        ("Traceback (most recent call last):\n  File\nKeyboardInterrupt\n", "stopped", ""),
        ("train:  5%|#   | 1/20 [00:01<00:19, 1step/s]", "killed", ""),
    ],
)
def test_how_it_ended_is_read_from_what_it_printed(tmp_path, printed, state, message):
    layout = RunDir(tmp_path).layout
    layout.process.write_text(json.dumps({"pid": 2**22 + 1, "began": 1.0, "arguments": ["run"]}))
    layout.complained.write_text(printed)
    now = status(tmp_path)
    assert now.state == state
    assert message in now.message
