"""Where a guard lies, in a run or in a folder of its own, and what is known beside it: scores and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..core.errors import DataError, StoreError, shown
from ..data.images import Images
from ..deploy.guard import Guard
from ..deploy.measured import Measurements
from ..run.artifacts import Run
from ..run.guard_page import measured_in, read_scores
from ..run.layout import REGULARIZED
from .sets import RunSets

__all__ = ["InFolder", "InRun", "Place"]


@dataclass(frozen=True)
class InRun:
    """The guard of a run."""

    run: Run
    sets: RunSets

    @property
    def home(self) -> Path:
        """The folder that the guard lies in, and below which others are saved."""
        return self.run.folder.path

    @property
    def cache(self) -> Path | None:
        """Where outputs of its network are kept, if anywhere."""
        return self.run.layout.cache

    def guard(self, device: str) -> Guard:
        """The guard. Raises StoreError where there is none."""
        self.run.folder.check_whole("guard")
        return self.run.guard(device)

    def groups(self) -> dict[str, str]:
        """The unknown sets that it was measured on, by name, with their groups; near before far."""
        stamp = self.run.stamp("scores")
        sets = stamp["inputs"]["sets"] if stamp else {}
        return _near_first({name: group for name, (group, _) in sets.items()})

    def scores(self) -> Mapping[str, Tensor]:
        """Its scores of these sets, as far as there are some; others may be among them."""
        stamp = self.run.stamp("guard")
        try:
            return self.run.scores(REGULARIZED, 0, stamp["inputs"]["detector"] if stamp else "")
        except (StoreError, ValueError):  # a detector that could not be fitted there has none
            return {}

    def images(self, name: str) -> Images:
        """The images of an unknown set, or those it has learned from: "train".

        Raises DataError where they cannot be had.
        """
        return self.sets.read(self.run, name)

    def measured(self) -> Measurements:
        """What was measured with it."""
        from ..run.guards import measurements  # with the hub's client, which takes a second

        return measurements(self.run)


@dataclass(frozen=True)
class InFolder:
    """A guard in a folder of its own, as `oodream guard` and `oodream export` write one, asked as `InRun`."""

    home: Path
    plugins: bool
    cache = None

    def guard(self, device: str) -> Guard:
        return Guard.load(self.home, device, self.plugins)

    def groups(self) -> dict[str, str]:
        return _near_first({name: group for name, (group, _) in read_scores(self.home).items()})

    def scores(self) -> Mapping[str, Tensor]:
        return {name: score_N for name, (_, score_N) in read_scores(self.home).items()}

    def images(self, name: str) -> Images:
        raise DataError(f"{shown(self.home.name)} is a guard alone, which keeps no known images.")

    def measured(self) -> Measurements:
        return measured_in(self.home)


Place = InRun | InFolder


def _near_first(groups: dict[str, str]) -> dict[str, str]:
    return dict(sorted(groups.items(), key=lambda one: one[1] != "near"))
