"""The tiny runs that faults happen to."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tests.faults import child
from tests.helpers.runs import command
from tests.helpers.tiny import NAMES, draw, save_tiny_pipeline

__all__ = ["Bench", "Kind"]

MORE = ["--reconstruct.twins", "--guard.alpha", "0.3", "--train.optimisation.epochs", "3"]
LATENTS = [
    "--decode.output", "latents", "--regularize.loss", "energy_logistic", "micl", "kd",
    "--reconstruct.frac", "0", "--latents.options", "steps=5",
]  # fmt: skip
ARMS = {"ours": {"reconstruct": {"twins": True}}, "alone": {"reconstruct": {"frac": 0.0}}}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A command over a whole run, and the undisturbed run that it left."""

    bench: Bench
    name: str

    def args(self, folder: Path) -> list[str]:
        """The command's words for a run in this folder."""
        where = (self.bench.shapes, self.bench.decoder, folder)
        if self.name == "compare":
            return ["compare", "--arms", str(self.bench.arms), *command(*where)[1:]]
        return command(*where, *(LATENTS if self.name == "latents" else MORE))

    @cached_property
    def calm(self) -> tuple[Path, child.Ended]:
        """The folder of the undisturbed run, and how it ended."""
        folder = self.bench.room / f"calm-{self.name}"
        ended = child.run(self.args(folder), folder)
        assert ended.code == 0, ended.err
        child.preload(folder)
        return folder, ended

    @cached_property
    def idle(self) -> child.Ended:
        """The command again where all is finished."""
        return child.run(self.args(self.calm[0]), self.calm[0])

    def fresh(self, name: str) -> Path:
        """A folder that is not there."""
        folder = self.bench.room / f"{name}-{self.name}"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def copied(self, name: str) -> Path:
        """A copy of the undisturbed run."""
        return Path(shutil.copytree(self.calm[0], self.fresh(name)))


@dataclass(frozen=True)
class Bench:
    """A room with pictures of shapes and a tiny Stable Diffusion."""

    room: Path

    @cached_property
    def shapes(self) -> Path:
        folder, g = self.room / "shapes", np.random.default_rng(0)
        if not folder.exists():
            for name in NAMES:
                (folder / name).mkdir(parents=True)
                for i in range(20):
                    draw(name, 32, g).save(folder / name / f"{i:02}.png")
        return folder

    @cached_property
    def decoder(self) -> Path:
        folder = self.room / "tiny"
        return folder if folder.exists() else save_tiny_pipeline(folder)

    @cached_property
    def arms(self) -> Path:
        file = self.room / "arms.json"
        file.write_text(json.dumps(ARMS))
        return file

    def kind(self, name: str) -> Kind:
        return Kind(bench=self, name=name)
