"""Guards that were saved from a run, beside its own: the run's guard at another alpha, each in a folder of
its own that works by itself.
"""

from __future__ import annotations

from pathlib import Path

from ..core.errors import StoreError, shown
from ..core.results import Row
from ..deploy.export import export
from ..deploy.guard import Guard
from ..deploy.identity import identity
from .artifacts import Run
from .layout import REGULARIZED

__all__ = ["guard_rows", "save_guard"]

DIGITS = 8  # of a guard's hash, in a folder's name


def guard_rows(run: Run) -> list[Row]:
    """What the run measured of its guard's classifier with its guard's detector; none before its scores."""
    stamp = run.stamp("guard")
    arm = (REGULARIZED, 0, stamp["inputs"]["detector"] if stamp else "")
    rows = run.rows() if run.stamp("scores") else []
    return [row for row in rows if (row.classifier, row.seed, row.detector) == arm]


def save_guard(run: Run, guard: Guard) -> tuple[Path, bool]:
    """Exports one of the run's guards to a folder inside the run, and returns it, and whether it is new.

    The folder is named after alpha and what the guard is made of, so one that is there already is this guard.
    Raises StoreError where the folder would lie outside the run, behind a link.
    """
    name = f"alpha-{guard.guarantee.alpha:g}-{identity(guard)['guard'][:DIGITS]}"
    folder, home = run.layout.saved_guards / name, run.folder.path
    if not folder.resolve().is_relative_to(home.resolve()):
        raise StoreError(
            f"{shown(run.layout.saved_guards)} leads out of the run, and nothing is written there."
        )
    if folder.is_dir() and any(folder.iterdir()):
        return folder, False
    export(guard, folder, guard_rows(run))
    return folder, True
