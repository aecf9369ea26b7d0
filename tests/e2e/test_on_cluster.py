"""Work on a cluster of Ray of several machines, which are processes here: the same bytes as on one, though
workers and machines are killed and come back.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from oodream.cli.main import main
from oodream.core.cluster import Cluster
from oodream.core.errors import StoreError
from oodream.core.tensors import save_tensors
from oodream.deploy import resumed, scoring, tables
from oodream.models.factory import backbone
from oodream.run.generated import ImageFiles
from tests.helpers.runs import command, images_of

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MACHINE = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def machines():
    """Two machines of one processor each, beside one that only keeps the books."""
    from ray.cluster_utils import Cluster as Machines

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0, **MACHINE})
    for _ in range(2):
        machines.add_node(num_cpus=1, **MACHINE)
    patch.setenv("RAY_ADDRESS", machines.address)
    yield machines
    ray.shutdown()
    machines.shutdown()
    patch.undo()


class Work:
    """What the tests have workers do."""

    def __call__(self):
        return self.do

    def do(self, task):
        kind, value = task
        if kind == "fail":
            raise ValueError(f"{value} cannot be done.")
        if kind == "die" or (kind == "die once" and not Path(value).exists()):
            if kind == "die once":
                Path(value).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return os.getpid(), ray.get_runtime_context().get_node_id()


def test_all_machines_work_and_a_lost_worker_costs_no_result(machines, tmp_path):
    tasks = [("die once", str(tmp_path / f"dead-{i}")) if i in (5, 20) else ("do", i) for i in range(40)]
    with Cluster("cpu") as cluster:
        done = list(cluster.map(Work(), iter(tasks)))
        assert sorted(task for task, _ in done) == sorted(tasks)
        places = Counter(node for _, (_, node) in done)
        assert len(places) == 2
        workers = {worker for _, (worker, _) in done}
        assert 3 <= len(workers) <= 4, "two, and one for each that was killed"
        again = {worker for _, (worker, _) in cluster.map(Work(), [("do", i) for i in range(20)])}
        assert len(again & workers) == 2, "workers stay for the next work"


def test_an_error_in_the_work_is_raised_here(machines):
    with Cluster("cpu") as cluster, pytest.raises(ValueError, match=r"^7 cannot be done\.$"):
        list(cluster.map(Work(), [("do", 1), ("fail", 7), ("do", 2)]))


def test_work_that_kills_every_worker_is_given_up(machines):
    with (
        Cluster("cpu") as cluster,
        pytest.raises(StoreError, match="5 workers in turn were lost with the same task"),
    ):
        list(cluster.map(Work(), [("die", 0)]))


def test_another_version_is_refused(machines, monkeypatch):
    monkeypatch.setattr("oodream.__version__", "0.0.1")
    with Cluster("cpu") as cluster, pytest.raises(StoreError, match=r"has oodream .*, and this is 0\.0\.1"):
        list(cluster.map(Work(), [("do", 0)]))


def kill_worker() -> None:
    """Kills one worker's process."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        if any("ray::_Worker" in word for word in process.info["cmdline"] or ()):
            process.kill()
            return
    raise AssertionError("no worker is at work")


def test_drawing_survives_killed_workers_and_machines(
    machines, finished, sampled, shapes, tiny_pipeline, monkeypatch, capsys
):
    """One worker is killed, then one machine is lost, and another comes; every file is written once."""
    write, files = ImageFiles.write, []

    def watched(self, file, data):
        files.append(file)
        write(self, file, data)
        if len(files) == 4:
            kill_worker()
        if len(files) == 8:
            lost = machines.worker_nodes.copy().pop()
            machines.remove_node(lost, allow_graceful=False)
        if len(files) == 16:
            machines.add_node(num_cpus=1, **MACHINE)

    monkeypatch.setattr(ImageFiles, "write", watched)
    assert main(["decode", str(sampled), "--engine", "ray", "--device", "cpu"]) == 0
    assert "24 images decoded by the cluster" in capsys.readouterr().out
    assert len(files) == len(set(files)) == 24
    assert images_of(sampled) == images_of(finished)
    assert main(command(shapes, tiny_pipeline, sampled, "--until", "images")) == 0
    both = [(run / "images" / "imagined" / "metadata.jsonl").read_text() for run in (finished, sampled)]
    assert both[0] == both[1]


def test_what_a_killed_command_had_is_not_drawn_again(machines, finished, sampled, capsys):
    folder = sampled / "images" / "imagined"
    process = subprocess.Popen(
        [sys.executable, "-m", "oodream", "decode", str(sampled), "--engine", "ray", "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(list(folder.rglob("*.png"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.png")}
    assert 4 <= len(before) <= 24
    assert main(["decode", str(sampled), "--engine", "ray", "--device", "cpu"]) == 0
    assert f"{24 - len(before)} images decoded by the cluster" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert images_of(sampled) == images_of(finished)


def test_latents(machines, finished, tmp_path):
    runs = [Path(shutil.copytree(finished, tmp_path / name)) for name in ("here", "there")]
    assert main(["decode", str(runs[0]), "--as", "latents", "--device", "cpu"]) == 0
    there = ["decode", str(runs[1]), "--as", "latents", "--engine", "ray", "--device", "cpu"]
    assert main(there) == 0
    (here,), (there,) = ((run / "latents" / "imagined").glob("*.safetensors") for run in runs)
    assert here.read_bytes() == there.read_bytes()


def test_answers_are_those_of_one_machine(machines, finished, shapes, tmp_path, monkeypatch, capsys):
    """With a damaged picture; of a file that is half done, the other half is done."""
    monkeypatch.setattr(resumed, "PART", 8)
    monkeypatch.setattr(scoring, "BATCH", 8)  # parts are whole batches
    pictures = Path(shutil.copytree(shapes, tmp_path / "pictures"))
    (pictures / "star" / "03.png").write_bytes(b"no picture")
    outs = [tmp_path / name / "results.jsonl" for name in ("here", "there", "again")]
    args = ["score", str(pictures), "--run", str(finished), "--device", "cpu", "--out"]
    assert main([*args, str(outs[0])]) == 2
    assert main([*args, str(outs[1]), "--engine", "ray"]) == 2
    assert "60 pictures" in capsys.readouterr().out
    assert outs[0].read_bytes() == outs[1].read_bytes()
    encode, encoded = tables.JsonLines.encode, []

    def stopping(self, rows):
        if len(encoded) == 3:
            raise KeyboardInterrupt
        encoded.append(rows)
        return encode(self, rows)

    monkeypatch.setattr(tables.JsonLines, "encode", stopping)
    assert main([*args, str(outs[2]), "--engine", "ray"]) == 130
    encoded.clear()
    monkeypatch.setattr(
        tables.JsonLines, "encode", lambda self, rows: encoded.append(0) or encode(self, rows)
    )
    assert main([*args, str(outs[2]), "--engine", "ray"]) == 2
    assert len(encoded) == 8 - 3
    assert outs[0].read_bytes() == outs[2].read_bytes()


def test_a_protocol_is_measured_as_on_one_machine(machines, tmp_path):
    torch.manual_seed(0)
    save_tensors(tmp_path / "w.safetensors", backbone("resnet8", 8).state_dict())
    args = [
        *("evaluate", "--protocol", "embedded", "--model", "resnet8", "--device", "cpu"),
        *("--weights", str(tmp_path / "w.safetensors"), "--detectors", "energy", "odin", "react"),
        *("--max-images", "600", "--fit", "60", "--resamples", "5"),
    ]
    for name, more in (("here", []), ("there", ["--engine", "ray"])):
        assert main([*args, "--out", str(tmp_path / name), *more]) == 0
    here, there = ((tmp_path / name / "results.jsonl").read_bytes() for name in ("here", "there"))
    assert here == there


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["decode", "RUN", "--engine", "ray", "--shard", "0/2"], "leave --shard, --verify and --row"),
        (["score", "PICTURES", "--run", "RUN", "--engine", "ray"], "--engine ray writes a file: give --out"),
    ],
)
def test_what_the_engine_does_not_do(args, message, finished, shapes, capsys):
    places = {"RUN": str(finished), "PICTURES": str(shapes)}
    assert main([places.get(arg, arg) for arg in args]) == 2
    assert message in capsys.readouterr().err
