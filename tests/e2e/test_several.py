"""A whole run on two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

import pytest
import torch

from oodream.core.files import read_json
from oodream.core.tensors import load_tensors
from tests.helpers.runs import command, images_of

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
LAUNCH = [*TORCHRUN, "--nproc-per-node", "2"]
LONGEST = 300  # seconds that nodes have


@pytest.fixture(scope="module")
def two(shapes, tiny_pipeline, tmp_path_factory):
    """A run by two processes, and what they said."""
    run = tmp_path_factory.mktemp("several") / "two"
    done = subprocess.run(
        [*LAUNCH, "-m", "--", "oodream", *command(shapes, tiny_pipeline, run)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_two_processes_make_a_whole_run(two, finished):
    """What they train differs in rounding, and so does what follows from it."""
    run, said = two
    assert said.count("align ") == 1, "one process speaks"
    for stage in (
        "align",
        "images/imagined",
        "classifier/baseline-s0",
        "classifier/regularized-s0",
        "shift",
        "report",
    ):
        assert read_json(run / stage / "stage.json")["seconds"] >= 0
    assert len(images_of(run)) == len(images_of(finished)) == 24
    logs = [read_json(one / "classifier" / "regularized-s0" / "log.json") for one in (finished, run)]
    losses = [log[-1]["loss"] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=0.5)


def test_two_processes_resume_what_one_began(copied, shapes, tiny_pipeline):
    before = load_tensors(copied / "classifier" / "baseline-s0" / "model.safetensors")
    args = command(shapes, tiny_pipeline, copied, "--redo", "classifier/regularized-s0")
    done = subprocess.run(
        [*LAUNCH, "-m", "--", "oodream", *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    after = load_tensors(copied / "classifier" / "baseline-s0" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


STEPS = """
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from oodream.config import Optimisation
from oodream.core.distributed import barrier, is_main
from oodream.core.files import write_json
from oodream.core.seeding import generator, seeded
from oodream.data.images import from_array
from oodream.training.attribution import attributed
from oodream.training.latent_adapters.stem import Stem
from oodream.training.loop import fit
from oodream.training.sources import Source
from oodream.training.train import loss_sizes, make_loss
from tests.helpers.training import CPU, images, known, latent_sources, network, outliers

out = Path(sys.argv[1])
noise = images(48)
bright = noise.batch(range(48)) + (60 * noise.labels.to(torch.uint8))[:, None, None, None]
data = from_array("bright", bright, noise.labels, noise.classes)
vectors = F.normalize(torch.randn(20, 5, generator=generator(0, "v")), dim=1)
tokens = F.normalize(torch.randn(3, 5, generator=generator(1, "v")), dim=1)
beside = outliers(images(20, 90), ratio=0.5, vectors=vectors, soften=0.5, outlier_aug_prob=0.5)
moved = outliers(data, ratio=0.5, perturbation=lambda *x: attributed(*x, step=10.0))
cases = {
    "outliers": (("energy_logistic", "micl"), {}, [known(data, vectors=tokens), beside]),
    "virtual": (("vos", "kd"), {"vos.start": 0.0, "vos.candidates": 50}, [known(data)]),
    "latents": (("energy_logistic",), {}, latent_sources(48, 12, min_weight=0.5)),
    "perturbed": (("energy_logistic",), {}, [known(data), moved]),
}
barrier(CPU)
for case, (losses, options, sources) in cases.items():
    model, loss = network(), make_loss(losses, options)
    teacher = network() if loss.teacher else None
    with seeded(0, "test"):
        loss.build(loss_sizes(model, sources, teacher))
        adapter = Stem(model, (4, 8, 8), 32) if case == "latents" else None
    config = Optimisation(epochs=2, batch=12, lr=0.01, precision="fp32")
    log = fit(model, loss, sources, config, 0, CPU, out / case, "t", adapter=adapter, teacher=teacher)
    if is_main():
        variance = dict(model.named_buffers())["stem.1.running_var"]
        write_json(out / f"{case}.json", {"log": log, "norm": variance.tolist()})
"""


def launched(count: int, *args: str) -> None:
    """A Python program on so many nodes of one process each, as torchrun starts them on several machines.

    A node that fails ends the others, which would wait for it.
    """
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = {**os.environ, "PYTHONPATH": paths}  # the programs import tests.helpers
    if count == 1:
        subprocess.run([sys.executable, *args], check=True, capture_output=True, env=env)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        said = [stack.enter_context(TemporaryFile("w+")) for _ in range(count)]
        nodes = [
            stack.enter_context(
                subprocess.Popen(
                    [*TORCHRUN, "--nnodes", str(count), "--node-rank", str(rank), "--master-addr",
                     "127.0.0.1", "--master-port", str(port), *args],
                    env=env, stdout=subprocess.DEVNULL, stderr=said[rank],
                )
            )
            for rank in range(count)
        ]  # fmt: skip
        stack.callback(lambda: [node.kill() for node in nodes])
        until = time.monotonic() + LONGEST
        while any(node.poll() is None for node in nodes) and not any(node.returncode for node in nodes):
            assert time.monotonic() < until, "the nodes hang"
            time.sleep(0.05)
        for node, file in zip(nodes, said, strict=True):
            file.seek(0)
            assert not node.returncode, file.read()


def trained(count: int, folder: Path) -> Path:
    """What so many processes, each on a node of its own, have trained: a file for each case."""
    (folder / "steps.py").write_text(STEPS)
    launched(count, str(folder / "steps.py"), str(folder))
    return folder


@pytest.fixture(scope="module")
def one_node(tmp_path_factory) -> Path:
    return trained(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.slow), 3])
def nodes(request, tmp_path_factory) -> Path:
    return trained(request.param, tmp_path_factory.mktemp("nodes"))


@pytest.mark.parametrize("case", ["outliers", "virtual", "latents", "perturbed"])
def test_several_nodes_train_what_one_process_does(case, nodes, one_node):
    """The same loss curve and statistics, but for rounding: with batch normalization and augmentation; for
    losses of a batch as a whole or with random numbers, a teacher, an adapter, outliers that the network
    makes.
    """
    alone, several = (read_json(folder / f"{case}.json") for folder in (one_node, nodes))
    assert len(alone["log"]) == 2
    assert alone["log"][1]["loss"] < alone["log"][0]["loss"]
    for epoch, expected in zip(several["log"], alone["log"], strict=True):
        assert epoch.pop("accuracy") == pytest.approx(expected["accuracy"], abs=0.05)
        assert epoch == pytest.approx({k: v for k, v in expected.items() if k != "accuracy"}, rel=2e-3)
    assert several["norm"] == pytest.approx(alone["norm"], rel=1e-2)
