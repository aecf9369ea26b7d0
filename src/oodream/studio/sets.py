"""The image sets behind the studio's runs, of which a few are kept, and single pictures of them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..data.images import Images
from ..data.inputs import DataInputs
from ..run.artifacts import Run
from ..run.generated import image_file

__all__ = ["RunSets"]

KEPT = 3  # runs whose sets stay in memory, at most 2 GiB each


class RunSets:
    """Image sets by run: "train" and "id" (the known ones, to train and to measure on), and the unknown ones.

    They are read when first asked for, by one thread at a time.
    """

    def __init__(self) -> None:
        self._inputs: OrderedDict[Run, DataInputs] = OrderedDict()
        self._lock = threading.RLock()

    def inputs(self, run: Run) -> DataInputs:
        """A run's inputs; those of runs that were not asked for lately are forgotten."""
        with self._lock:
            inputs = self._inputs.pop(run, None) or DataInputs(run.config)
            self._inputs[run] = inputs
            while len(self._inputs) > KEPT:
                self._inputs.popitem(last=False)
            return inputs

    def read(self, run: Run, name: str) -> Images:
        """A run's set. Raises ValueError where it has none of this name, and DataError where it is gone."""
        with self._lock:
            inputs = self.inputs(run)
            if name in ("train", "id"):
                return inputs.train if name == "train" else inputs.test
            for one in inputs.ood:
                if one.name == name:
                    return one.images
            raise ValueError(f"The run has no image set {name!r}.")

    def picture(self, run: Run, name: str, row: int) -> bytes:
        """A picture of a run's set, as PNG. Raises ValueError where there is none of this row."""
        images = self.read(run, name)
        if not 0 <= row < len(images):
            raise ValueError(f"The set {name!r} has {len(images):,} pictures, and no row {row}.")
        return image_file(images.batch([row])[0])
