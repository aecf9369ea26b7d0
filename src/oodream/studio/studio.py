"""`Studio`: the runs that were chosen, what is remembered of them, and the worker for heavy work.

Nothing here knows HTTP. A run is addressed by its name, never by a path.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import StoreError, shown
from ..deploy.serving.limits import Limits
from ..deploy.stored import CONFIG_FILE, TENSORS_FILE
from ..run.artifacts import Run
from ..run.layout import Layout
from .sets import RunSets
from .tasks import Worker

__all__ = ["Studio", "UnknownRun", "holds_guard", "runs_below"]

REMEMBERED = 64  # values of all parts together
LOOKS = 0.5  # seconds between two looks at whether a run has changed

T = TypeVar("T")


class UnknownRun(ValueError):
    """There is no run of this name in the studio."""


def runs_below(root: Path) -> list[Path]:
    """The run folders in a folder, and in the folders of comparisons within it, by name; then the guards that
    `oodream guard` has made there.
    """
    found = [file.parent for depth in ("*", "*/*") for file in root.glob(f"{depth}/run.json")]
    guards = sorted(folder for folder in root.glob("*") if holds_guard(folder))
    return sorted(folder for folder in found if folder.is_dir()) + guards


def holds_guard(folder: Path) -> bool:
    """Whether a folder is a guard's own: one can try pictures on it."""
    return (folder / CONFIG_FILE).is_file() and (folder / TENSORS_FILE).is_file()


@dataclass
class _Opened:
    run: Run
    number: int
    version: Hashable
    looked: float


class Studio:
    """Runs by name, opened when first asked for and again when their stages have changed."""

    def __init__(
        self, folders: Sequence[Path], root: Path = Path("runs"), device: str = "auto", plugins: bool = False,
        starts_runs: bool = True,
    ) -> None:  # fmt: skip
        self.root, self.device, self.plugins, self.starts_runs = root, device, plugins, starts_runs
        self.limits, self.stopping = Limits(linger=0.0, read_timeout=60.0), False
        self.worker, self.sets = Worker(), RunSets()
        self._folders: dict[str, Path] = {}
        self._opened: dict[str, _Opened] = {}
        self._values: OrderedDict[tuple[str, int, Hashable], Any] = OrderedDict()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        for folder in folders:
            self.add(folder)

    @property
    def names(self) -> list[str]:
        """The names of runs and guards, in the order in which they were added."""
        return list(self._folders)

    @property
    def guards(self) -> list[str]:
        """Those of the names that are guards of their own: one can try pictures on them, and no more."""
        return [name for name, folder in self._folders.items() if holds_guard(folder)]

    @property
    def runs(self) -> list[str]:
        """Those of the names that are runs."""
        guards = self.guards
        return [name for name in self.names if name not in guards]

    def add(self, folder: Path) -> str:
        """Adds the run of a folder, which may still have to begin, and returns its name."""
        place = folder.resolve()
        with self._lock:
            for name, other in self._folders.items():
                if other == place:
                    return name
            below = place.is_relative_to(self.root.resolve())
            plain = "~".join(place.relative_to(self.root.resolve()).parts) if below else place.name
            first = shown(plain) or "run"
            names = (first if i == 1 else f"{first} ({i})" for i in range(1, len(self._folders) + 2))
            name = next(name for name in names if name not in self._folders)
            self._folders[name] = place
            return name

    def folder(self, name: str) -> Path:
        """A run's folder; UnknownRun where there is none of this name."""
        try:
            return self._folders[name]
        except KeyError:
            raise UnknownRun(f"There is no run {name!r} in this studio.") from None

    def run(self, name: str) -> Run:
        """A run, as its folder is now.

        Raises UnknownRun, or StoreError for a folder that holds no run that can be read.
        """
        folder, now = self.folder(name), time.monotonic()
        with self._lock:
            opened = self._opened.get(name)
            if opened and now - opened.looked < LOOKS:
                return opened.run
            version = _version(folder)
            if opened is None or opened.version != version:
                opened = _Opened(Run.open(folder, self.plugins), next(self._numbers), version, now)
                self._opened[name] = opened
            opened.looked = now
            return opened.run

    def imagined(self, name: str) -> str:
        """What the images are called that a run imagines: "outliers" or "inliers". Where no such run can be
        read, they are outliers.
        """
        try:
            return f"{self.run(name).kind}s"
        except (ValueError, RuntimeError, OSError):
            return "outliers"

    def cached(self, run: str, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, remembered for as long as the run does not change.

        The values that were not used for the longest are forgotten where there would be too many.
        """
        whole = (run, self._number(run), key)
        with self._lock:
            if whole in self._values:
                self._values.move_to_end(whole)
                return self._values[whole]
        value = make()
        with self._lock:
            for old in [k for k in self._values if k[0] == run and k[1] != whole[1]]:
                del self._values[old]
            self._values[whole] = value
            while len(self._values) > REMEMBERED:
                self._values.popitem(last=False)
        return value

    def remembered(self, run: str, key: Hashable) -> Any:
        """What `cached` remembers under this key; None where it does not."""
        whole = (run, self._number(run), key)
        with self._lock:
            return self._values.get(whole)

    def _number(self, run: str) -> int:
        with self._lock:
            self.run(run)
            return self._opened[run].number

    def inside(self, name: str, file: Path) -> Path:
        """The real place of a run's file. Raises StoreError where it leads out of the run, as a link may."""
        real, folder = file.resolve(), self.folder(name)
        if not real.is_relative_to(folder) or not real.is_file():
            raise StoreError(f"{shown(file.name)} is missing, or leads out of the run's folder.")
        return real


def _version(folder: Path) -> Hashable:
    """What changes when a stage is finished or removed, or the run begins anew."""
    files = [Layout(folder).manifest, *(f for d in ("*", "*/*") for f in folder.glob(f"{d}/stage.json"))]
    times = []
    for file in files:
        try:
            times.append((str(file), file.stat().st_mtime_ns))
        except FileNotFoundError:  # removed meanwhile
            continue
    return tuple(sorted(times))
