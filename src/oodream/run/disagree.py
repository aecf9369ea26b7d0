"""Where two classifiers disagree: pictures that one of them takes for known, and the other one flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..core.errors import StoreError
from ..models.classifier import ACCEPTED, quantile_threshold
from ..runtime.calibration import p_values
from ..runtime.tails import Floats
from .artifacts import Run

__all__ = ["Differing", "Disagreement", "Measured", "Side", "disagreements", "measured_sets"]


class Measured(NamedTuple):
    """An image set that a run was measured on: its group, and the hash of its images."""

    group: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Side:
    """A classifier of a run ("baseline" or "regularized", and its seed), with a detector."""

    run: Run
    kind: str
    seed: int
    detector: str


class Differing(NamedTuple):
    """A picture by its row, with its p-value by each of two classifiers: the share of known test images that
    look at least as strange.
    """

    row: int
    p_first: float
    p_second: float


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Of an image set of n pictures those that only the first classifier flags, and those that only the
    second one does; the largest differences between p-values come first. `both` and `neither` count others.
    """

    name: str
    group: str
    n: int
    only_first: Sequence[Differing]
    only_second: Sequence[Differing]
    both: int
    neither: int


def measured_sets(run: Run) -> dict[str, Measured]:
    """The image sets that a run was measured on, by name: "id", the known test images, and the unknown ones.

    Raises StoreError where the run has measured nothing yet.
    """
    scores, guard = run.stamp("scores"), run.stamp("guard")
    if not scores or not guard:
        raise StoreError(f"{run.folder.path} has not been measured yet: go on with the command of the run.")
    sets = {name: Measured(*facts) for name, facts in scores["inputs"]["sets"].items()}
    return {"id": Measured("id", guard["inputs"]["test"]), **sets}


def disagreements(first: Side, second: Side, accepted: float = ACCEPTED) -> list[Disagreement]:
    """Where the classifiers disagree when each of them accepts the share `accepted` of known test images:
    first those among these, then those of each unknown set that both were measured on.

    Raises ValueError where the known test images are not the same, and StoreError for missing scores.
    """
    sets, others = measured_sets(first.run), measured_sets(second.run)
    if sets["id"] != others["id"]:
        raise ValueError(
            "The two were measured on different known images, so their pictures cannot be compared."
        )
    scores = [side.run.scores(side.kind, side.seed, side.detector) for side in (first, second)]
    limits = [quantile_threshold(own["id"], accepted) for own in scores]
    ordered = [np.sort(own["id"].numpy()) for own in scores]
    common = [name for name, measured in sets.items() if others.get(name) == measured]

    def compared(name: str) -> Disagreement:
        pair = [own[name].numpy() for own in scores]
        flagged_2N = np.stack([~(score_N <= limit) for score_N, limit in zip(pair, limits, strict=True)])
        p_2N = np.stack([p_values(score_N, known_N) for score_N, known_N in zip(pair, ordered, strict=True)])
        only_first_N, only_second_N = flagged_2N[0] & ~flagged_2N[1], flagged_2N[1] & ~flagged_2N[0]
        return Disagreement(
            name=name,
            group=sets[name].group,
            n=flagged_2N.shape[1],
            only_first=_largest(only_first_N, p_2N),
            only_second=_largest(only_second_N, p_2N),
            both=int(flagged_2N.all(0).sum()),
            neither=int((~flagged_2N.any(0)).sum()),
        )

    return [compared(name) for name in common if all(name in own for own in scores)]


def _largest(wanted_N: np.ndarray, p_2N: Floats) -> list[Differing]:
    """The wanted rows, the largest difference between p-values first; ties in the rows' order."""
    rows = np.flatnonzero(wanted_N)
    rows = rows[np.argsort(-np.abs(p_2N[0] - p_2N[1])[rows], kind="stable")]
    return [Differing(row, *p_2N[:, row].tolist()) for row in rows.tolist()]
