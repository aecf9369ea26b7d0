"""A guard's graph with its network in 8-bit integers, and what that costs.

Post-training quantisation by onnxruntime: weights by channel, activations by the range that they have on
training images. The last layer and the detector stay in floating point, where a score's small differences
live. Scores move all the same, so the graph has a threshold of its own, from its own scores of the held-out
images, with the guard's guarantee; the held-out images have no part in the quantisation, or it would not hold.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.seeding import generator
from ..core.types import Json
from ..data.images import Images, ImageSet
from ..functional.metrics import auroc
from ..runtime.calibration import Guarantee
from ..runtime.graph import KEY, Graph, open_graph
from ..runtime.guard import Guard as GraphGuard
from ..runtime.held_out import HeldOut
from .onnx import ExportError

__all__ = ["INT8_FILE", "Cost", "Quantized", "quantize"]

INT8_FILE = "guard-int8.onnx"
RANGE_IMAGES = 512  # training images that activations are watched on
BATCH = 32
KINDS = ("Conv", "Gemm", "MatMul")
SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter says which module a node is of
NETWORK, HEAD = "network", "network.head"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One measure, a share, of `n` images, by the graph in floating point and by the INT8 graph."""

    what: str
    n: int
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What the INT8 graph guarantees, how many layers of it are in integers, which share of the held-out
    images it answers as the other graph does, and what it costs.
    """

    guarantee: Guarantee
    layers: int
    same: float
    costs: tuple[Cost, ...]

    def __str__(self) -> str:
        lines = [
            f"| {c.what} | {c.n:,} | {c.before:.1%} | {c.after:.1%} | {100 * (c.after - c.before):+.2f} |"
            for c in self.costs
        ]
        return "\n".join(
            [
                f"`{INT8_FILE}` computes {self.layers} of the network's layers in 8-bit integers, the last one "
                f"and the detector in floating point. Its threshold comes from its own scores: "
                f"{self.guarantee}. Of the held-out images {self.same:.1%} get the same answer.",
                "",
                "| measure | images | float32 | INT8 | change, points |",
                "| --- | --- | --- | --- | --- |",
                *lines,
            ]
        )


def quantize(
    source: Path, file: Path, train: Images, held_out: Images, ood: Sequence[ImageSet] = ()
) -> Quantized:
    """Writes the INT8 graph of a guard's ONNX file `source`, and measures it beside that.

    `train` are the images that the guard's classifier learned from, and `held_out` those that the guard was
    calibrated on; AUROCs are measured on the sets `ood`. Raises ExportError where there is nothing to
    quantise, and ValueError where the held-out images are too few for the guarantee.
    """
    layers = _layers(source)
    with _quiet():
        _quantize(source, file, layers, train)
    before, after = GraphGuard.load(source), open_graph(file)
    outputs = {name: _run(graph, held_out) for name, graph in (("before", before.graph), ("after", after))}
    labels_N = held_out.labels.numpy() if before.held_out.standing is not None else None
    kept = HeldOut.of(outputs["after"]["score"], outputs["after"]["logits"], labels_N)
    guarantee = before.guarantee
    names = before.names if before.per_class else None
    threshold, guarantee = kept.calibrate(guarantee.alpha, guarantee.confidence, names)
    description = replace(
        before.description, threshold=threshold, guarantee=guarantee, held_out=kept
    )
    fresh = replace(
        before, threshold=threshold, guarantee=guarantee, held_out=kept, description=description, graph=after
    )
    _write(file, fresh)
    answers = [
        [one.answer for one in guard.answers(out["logits"], out["score"])]
        for guard, out in ((before, outputs["before"]), (fresh, outputs["after"]))
    ]
    return Quantized(
        guarantee=guarantee,
        layers=len(layers),
        same=float(np.mean([a == b for a, b in zip(*answers, strict=True)])),
        costs=tuple(_costs(outputs, labels_N, before.graph, after, ood)),
    )
