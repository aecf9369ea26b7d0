"""What was measured with a guard, as its model card says it, whether a run or `oodream guard` measured it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.results import Row

__all__ = ["MEAN", "UNMEASURED", "Measured", "Measurements"]

MEAN = "mean"
"""The name of a mean over sets in place of a set's."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a guard does on real unknown images of a set: AUROC, the share accepted where 95 % of known images
    are (`fpr95_id`), and the share `flagged` at its threshold (None: not measured).
    """

    name: str
    group: str
    n: int
    auroc: float
    fpr95_id: float
    flagged: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """The network's `accuracy` on so many `known` images (None: not measured), and how the guard does on
    `unknown` sets. `supposed` says that nobody here can know whether the network was trained on the held-out
    images.
    """

    accuracy: float | None = None
    known: int = 0
    unknown: tuple[Measured, ...] = ()
    supposed: bool = False

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> Measurements:
        """Those of one classifier with one detector, but for the control."""
        rows = [row for row in rows if row.group != "control"]
        if not rows:
            return cls()
        unknown = (
            Measured(name=r.dataset, group=r.group, n=r.n_ood, auroc=r.auroc, fpr95_id=r.fpr95_id)
            for r in rows
        )
        return cls(accuracy=rows[0].accuracy, known=rows[0].n_id, unknown=tuple(unknown))

    def at_another_threshold(self) -> Measurements:
        """Those that hold for the guard at whatever threshold."""
        return replace(self, unknown=tuple(replace(one, flagged=None) for one in self.unknown))


UNMEASURED = Measurements()
"""Nothing was measured."""
