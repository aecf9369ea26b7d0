"""Guards that were saved beside a run's own, at another alpha, each in a folder that works by itself."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import StoreError, shown
from ..core.results import Row
from ..deploy.export import export
from ..deploy.guard import Guard
from ..deploy.measured import UNMEASURED, Measurements
from .artifacts import Run
from .guard_page import measured_in
from .layout import REGULARIZED, Layout

__all__ = ["guard_rows", "measurements", "save_guard"]

DIGITS = 8  # of a guard's hash, in a folder's name


def guard_rows(run: Run) -> list[Row]:
    """What the run measured of its guard's classifier with its guard's detector; none before its scores."""
    stamp = run.stamp("guard")
    arm = (REGULARIZED, 0, stamp["inputs"]["detector"] if stamp else "")
    rows = run.rows() if run.stamp("scores") else []
    return [row for row in rows if (row.classifier, row.seed, row.detector) == arm]


def measurements(place: Run | Path) -> Measurements:
    """What was measured with the guard of a run, or with that in a folder of its own (see `measured_in`)."""
    return Measurements.of_rows(guard_rows(place)) if isinstance(place, Run) else measured_in(place)


def save_guard(home: Path, guard: Guard, measured: Measurements = UNMEASURED) -> tuple[Path, bool]:
    """Exports a guard to a folder inside its `home`, a run's folder, and returns it, and whether it is new.

    The folder is named after alpha and what the guard is made of, so one that is there already is this guard.
    `measured` are numbers for its card; shares flagged at another threshold are left out. Raises StoreError
    where the folder would lie outside, behind a link.
    """
    name = f"alpha-{guard.guarantee.alpha:g}-{guard.identity()['guard'][:DIGITS]}"
    place = Layout(home).saved_guards
    folder = place / name
    if not folder.resolve().is_relative_to(home.resolve()):
        raise StoreError(f"{shown(place)} leads out of {shown(home.name)}, and nothing is written there.")
    if folder.is_dir() and any(folder.iterdir()):
        return folder, False
    export(guard, folder, measured.at_another_threshold())
    return folder, True
