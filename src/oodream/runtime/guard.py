"""A guard on a graph: what `oodream export --onnx` wrote, answering without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import StoreError, shown
from .answering import Answering
from .answers import Outputs, Prediction
from .description import described
from .graph import Graph, find_graph, open_graph
from .pictures import squares
from .tails import Floats

__all__ = ["Guard"]


@dataclass(frozen=True, kw_only=True)
class Guard(Answering):
    """An exported guard. It answers as `oodream.Guard` does, by onnxruntime or OpenVINO, NumPy and Pillow.

    What it answers, and what `threshold`, `guarantee` and `held_out` are, is said in `Answering`. `size` is
    the width and height of the network's images, in pixels, and `white` the value of white in pictures of
    more than 8 bits (0: found for each picture).
    """

    classes: tuple[str, ...]
    size: int
    white: float
    graph: Graph = field(repr=False)

    @classmethod
    def load(
        cls,
        place: Path | str,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
    ) -> Guard:
        """The guard in a folder that `oodream export --onnx` wrote, or in one of its graphs' files.

        In a folder it is `guard.onnx`, else OpenVINO's `guard.xml`; name `guard-int8.onnx` to have that.
        `providers` are onnxruntime's, and `threads` how many it takes (0: as many as there are cores). Raises
        StoreError where there is no graph, or one that is damaged or of another origin, and ImportError,
        which names it, where the program that runs it is not installed.
        """
        file = find_graph(Path(place))
        graph = open_graph(file, providers, threads)
        try:
            text = graph.text
            if text is None:
                raise StoreError(
                    f"{shown(file)} does not say what it is: it was not written by oodream export, or by "
                    "version 0.3 or earlier. Export it again."
                )
            parts = described(text)
            guard = cls(classes=parts.pop("names"), graph=graph, **parts)
            guard._try()
        except ValueError as error:
            raise StoreError(f"{shown(file)} is damaged, or of another version: {error}.") from error
        return guard

    @property
    def names(self) -> tuple[str, ...]:
        return self.classes

    def outputs(self, pictures: Any, batch: int) -> Iterator[Outputs]:
        """The outputs for what `predict` takes, of at most `batch` pictures at a time, in order."""
        if batch < 1:
            raise ValueError(f"A batch is at least one picture, not {batch}.")
        read = squares(pictures, self.size, self.white)
        while part := list(islice(read, batch)):
            yield self.outputs_of(np.stack(part).transpose(0, 3, 1, 2))

    def outputs_of(self, images_B3SS: NDArray[np.uint8]) -> Outputs:
        """The outputs for uint8 squares (B, 3, S, S) of the network's size."""
        results = self.graph(np.ascontiguousarray(images_B3SS))
        return Outputs(logits_BC=results["logits"], score_B=results["score"], known_B=results.get("known"))

    def of_squares(self, images_B3SS: NDArray[np.uint8]) -> Iterator[Prediction]:
        """A prediction for each uint8 square (B, 3, S, S) of the network's size, in order."""
        return self.answers(self.outputs_of(images_B3SS))

    def identity(self) -> dict[str, Any]:
        """All that answers depend on, beside the pictures: a hash `guard` of the graph's file, the guaranteed
        `alpha`, and the `threshold`.
        """
        return {"guard": self.graph.digest, "alpha": self.guarantee.alpha, "threshold": self.threshold}

    def scores(self, pictures: Any, batch: int = 256) -> Floats:
        """The scores (N,) of what `predict` takes, float64, higher for OOD."""
        return self._scores(pictures, batch)

    def _try(self) -> None:
        """ValueError where the graph does not answer as its description says."""
        try:
            outputs = self.outputs_of(np.zeros((2, 3, self.size, self.size), np.uint8))
        except Exception as error:  # whatever the program that runs it raises
            raise ValueError("its graph does not take pictures as its description says") from error
        if outputs.logits_BC.shape != (2, len(self.names)) or outputs.score_B.shape != (2,):
            raise ValueError("its graph does not give logits and scores as its description says")
