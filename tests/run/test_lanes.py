"""Stages side by side: who takes which, and a second process that does them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.options import overlay
from oodream.run.job import Job
from oodream.run.lanes import Lanes, Second
from oodream.run.stage import Stage
from oodream.synthesis.errors import NotFiniteError
from tests.helpers.runs import command


def nothing(job: Job) -> dict:
    return {}


def stage(name: str, *after: str, **kind: bool) -> Stage:
    return Stage(name=name, work=nothing, after=after, **kind)


NARROW = {"beside": True, "narrow": True}


def test_each_takes_the_first_that_waits_for_nothing():
    lanes = Lanes([stage("a"), stage("b", "a"), stage("c", **NARROW), stage("d", "c", **NARROW)])
    assert lanes.take(second=False).name == "a"
    c = lanes.take(second=True)
    assert c.name == "c"
    lanes.finished(stage("a"))
    assert lanes.take(second=False).name == "b"
    lanes.finished(c)
    assert lanes.take(second=True).name == "d"
    assert lanes.take(second=True) is None


def test_the_first_waits_until_the_second_has_ended_its_last():
    lanes, taken = Lanes([stage("a", **NARROW), stage("b", **NARROW)]), []
    a, b = lanes.take(second=False), lanes.take(second=True)
    lanes.finished(a)
    thread = threading.Thread(target=lambda: taken.append(lanes.take(second=False)))
    thread.start()
    time.sleep(0.1)
    assert taken == []
    lanes.finished(b)
    thread.join(10)
    assert taken == [None]


def test_the_first_leaves_to_the_second_what_that_one_may_do():
    lanes = Lanes([stage("training", **NARROW), stage("own")])
    assert lanes.take(second=False).name == "own"
    assert lanes.take(second=False).name == "training", "it has no other"


def test_what_uses_one_core_comes_before_what_uses_all():
    lanes = Lanes([stage("align", narrow=True), stage("rebuilt", beside=True), stage("training", **NARROW)])
    lanes.take(second=False)
    assert lanes.take(second=True).name == "training"
    assert lanes.take(second=True).name == "rebuilt"


def test_what_uses_all_cores_is_not_done_beside_the_like():
    lanes = Lanes([stage("drawing"), stage("strips", beside=True), stage("training", **NARROW)])
    lanes.take(second=False)
    assert lanes.take(second=True).name == "training"
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lanes.take(second=True)))
    thread.start()
    time.sleep(0.1)
    assert taken == []
    assert lanes.take(second=False).name == "strips"
    thread.join(10)
    assert not thread.is_alive()
    assert taken == [None]


def test_a_forerunner_that_is_not_in_the_plan_is_none():
    assert Lanes([stage("b", "a")]).take(second=False).name == "b"


def test_an_error_ends_the_other_one_before_its_next_stage():
    lanes = Lanes([stage("a"), stage("b", "a")])
    lanes.take(second=False)
    lanes.fail(ValueError("of the second"))
    with pytest.raises(ValueError, match="of the second"):
        lanes.take(second=False)


@pytest.fixture
def job(shapes, tmp_path) -> Job:
    return Job(overlay(Config(), {"data": str(shapes), "device": "cpu"}), tmp_path / "run", "oodream run")


def said(job: Job, what: str) -> dict:
    warnings.warn("a note", stacklevel=1)
    return {"said": what, "pid": os.getpid(), "command": job.command, "images": len(job.inputs.train)}


def failed(job: Job, error: Exception) -> dict:
    raise error


def killed(job: Job) -> dict:
    os.kill(os.getpid(), 9)
    return {}


def asleep(job: Job) -> dict:
    (job.folder.path / "pid").write_text(str(os.getpid()))
    time.sleep(600)
    return {}


def done(second: Second, work: partial) -> dict:
    summary, most = second.do(Stage(name="stage", work=work))
    assert most > 1 << 20, "the memory of a process"
    return summary


def test_a_second_process_does_a_stage_and_what_it_says_is_said_here(job):
    with Second(job) as second:
        with pytest.warns(UserWarning, match="a note"):
            summary = done(second, partial(said, what="this"))
        assert summary["pid"] != os.getpid()
        assert (summary["said"], summary["command"]) == ("this", "oodream run")
        assert summary["images"] == len(job.inputs.train)
        with pytest.raises(ValueError, match="of a stage"):
            second.do(Stage(name="stage", work=partial(failed, error=ValueError("of a stage"))))
        with pytest.raises(RuntimeError, match="U-Net"):
            second.do(Stage(name="stage", work=not_finite))
        with pytest.warns(UserWarning, match="a note"):
            assert done(second, partial(said, what="more"))["pid"] == summary["pid"]
    assert not psutil.pid_exists(summary["pid"])


def not_finite(job: Job) -> dict:
    raise NotFiniteError(3, "U-Net", torch.float16)  # such an error does not go through a pipe


def test_a_second_process_that_is_killed_is_said_to_be(job):
    with (
        Second(job) as second,
        pytest.raises(RuntimeError, match=r"which did stage, was killed.*OMP_NUM_THREADS=1"),
    ):
        second.do(Stage(name="stage", work=killed))


def test_it_ends_with_the_first_one_however_that_ends(job):
    job.folder.path.mkdir(parents=True)
    code = (
        "from pathlib import Path\n"
        "from tests.run.test_lanes import Config, Job, Second, Stage, asleep, overlay\n"
        f"config = overlay(Config(), {{'data': {job.config.data!r}, 'device': 'cpu'}})\n"
        f"with Second(Job(config, Path({str(job.folder.path)!r}))) as second:\n"
        "    second.do(Stage(name='asleep', work=asleep))\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    file = job.folder.path / "pid"
    for _ in range(1200):
        if file.exists() and file.read_text():
            break
        time.sleep(0.1)
    pid = int(file.read_text())
    first.kill()
    first.wait()
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail("it outlived the first one")


def hashes(run: Path) -> dict[str, str]:
    """Of all that a run has made, but for what was measured of the machine."""
    files = (f for f in run.rglob("*") if f.suffix in (".safetensors", ".png", ".jsonl"))
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


def test_two_make_what_one_makes(shapes, tiny_pipeline, tmp_path, capsys):
    more = ("--seeds", "2", "--reconstruct.twins")
    assert main(command(shapes, tiny_pipeline, tmp_path / "one", *more)) == 0
    assert "second process" not in capsys.readouterr().out
    words = command(shapes, tiny_pipeline, tmp_path / "two", *more)
    done = subprocess.run(
        [sys.executable, "-m", "oodream", *words], env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "leaked" not in done.stderr
    assert done.stdout.count("begun in a second process") >= 3
    one, two = (hashes(tmp_path / name) for name in ("one", "two"))
    assert len(one) > 50
    assert one == two


@pytest.mark.parametrize("script", ["mine.py", "oodream"])
def test_a_script_is_not_run_again(script, shapes, tiny_pipeline, tmp_path):
    """The second process imports the main module; the program's own does nothing then."""
    words = [*command(shapes, tiny_pipeline, tmp_path / "run"), "--until", "filter"]
    begin = f"sys.argv = ['oodream', *{words}]\nmain()\n"
    if script == "oodream":
        begin = f"if __name__ == '__main__':\n    sys.argv = ['oodream', *{words}]\n    main()\n"
    file = tmp_path / script
    file.write_text(f"import sys\nprint('begun')\nfrom oodream.cli.main import main\n{begin}")
    done = subprocess.run(
        [sys.executable, str(file)], env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun in a second process") == (2 if script == "oodream" else 0)
    assert "filter" in done.stdout
