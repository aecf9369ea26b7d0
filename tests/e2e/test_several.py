"""A whole run on two processes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from oodream.cli.main import main
from oodream.core.files import read_json
from oodream.core.tensors import load_tensors
from tests.helpers.runs import command, images_of

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def runs(shapes, tiny_pipeline, tmp_path_factory):
    """(by one process, by two); what two have trained differs, so the second one begins with the first one's
    outliers.
    """
    folder = tmp_path_factory.mktemp("several")
    assert main(command(shapes, tiny_pipeline, folder / "one")) == 0
    done = subprocess.run(
        [*LAUNCH, "-m", "--", "oodream.cli", *command(shapes, tiny_pipeline, folder / "two")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "one", folder / "two", done.stdout


def test_two_processes_make_a_whole_run(runs):
    one, two, said = runs
    assert said.count("align ") == 1, "one process speaks"
    for stage in (
        "align",
        "images/imagined",
        "classifier/baseline-s0",
        "classifier/regularized-s0",
        "shift",
        "report",
    ):
        assert read_json(two / stage / "stage.json")["seconds"] >= 0
    assert len(images_of(two)) == len(images_of(one)) == 24
    losses = [read_json(run / "classifier" / "regularized-s0" / "log.json")[-1]["loss"] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=0.5)


def test_two_processes_resume_what_one_began(runs, shapes, tiny_pipeline):
    one, *_ = runs
    before = load_tensors(one / "classifier" / "baseline-s0" / "model.safetensors")
    args = command(shapes, tiny_pipeline, one, "--redo", "classifier/regularized-s0")
    done = subprocess.run(
        [*LAUNCH, "-m", "--", "oodream.cli", *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    after = load_tensors(one / "classifier" / "baseline-s0" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


STEPS = """
import sys, torch
from pathlib import Path
from torch import nn
from oodream.config import Optimisation
from oodream.data.images import from_array
from oodream.training.loop import fit
from oodream.training.sources import Source
from oodream.core.registry import make
from oodream.core.tensors import save_tensors
from oodream.core.types import Output
from oodream.core.distributed import is_main, barrier

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3 * 8 * 8, 3)
    def forward(self, x):
        z = x.float().flatten(1) / 255
        return Output(logits_BC=self.head(z), z_BF=z)

pixels = torch.randint(0, 256, (32, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
images = from_array("x", pixels, torch.arange(32) % 3, ("a", "b", "c"))
cpu = torch.device("cpu")
barrier(cpu)
model, out = Linear(), Path(sys.argv[1])
config = Optimisation(epochs=3, batch=8, lr=0.05, crop_padding=0, flip=False, precision="fp32")
data = [Source(role="known", data=images), Source(role="outlier", data=images, ratio=0.5)]
fit(model, make("losses", "energy_logistic"), data, config, 0, cpu, out / "state", "t")
if is_main():
    save_tensors(out / "model.safetensors", model.state_dict())
"""


def test_averaged_gradients_are_those_of_the_whole_batch(tmp_path):
    """Where no layer looks at the batch as a whole, two processes train the network that one does."""
    (tmp_path / "steps.py").write_text(STEPS)
    found = []
    for launch in ([sys.executable], LAUNCH):
        out = tmp_path / str(len(found))
        out.mkdir()
        subprocess.run([*launch, str(tmp_path / "steps.py"), str(out)], check=True, capture_output=True)
        found.append(load_tensors(out / "model.safetensors"))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(found[0]["head.weight"], nn.Linear(192, 3).weight)
