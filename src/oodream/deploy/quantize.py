"""A guard's graph with its network in 8-bit integers, and what that costs.

Post-training quantisation by onnxruntime: weights by channel, activations by the range that they have on
training images. The last layer and the detector stay in floating point, for scores differ by little. They
move all the same, so the graph has a threshold of its own, from its own scores of the held-out images, with
the guard's guarantee. The held-out images have no part in the quantisation, or it would not hold.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.sealed import seal_file
from ..core.seeding import generator
from ..data.images import Images, ImageSet
from ..functional.metrics import auroc
from ..runtime.answers import Outputs
from ..runtime.calibration import Guarantee
from ..runtime.graph import open_graph
from ..runtime.guard import Guard
from ..runtime.held_out import HeldOut
from .composed import PREFIX
from .onnx import ExportError, metadata
from .stored import INT8_FILE

__all__ = ["INT8_FILE", "Change", "Int8Images", "Quantized", "quantize"]

WATCHED = 512  # training images that give activations their ranges
BATCH = 32
KINDS = ("Conv", "Gemm", "MatMul")
SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter says of which modules a node is


@dataclass(frozen=True, kw_only=True)
class Int8Images:
    """What a guard is quantised on: images that its classifier has learned from, those that it was calibrated
    on, and sets to measure AUROCs on.
    """

    train: Images
    held_out: Images
    ood: Sequence[ImageSet] = ()


@dataclass(frozen=True, kw_only=True)
class Change:
    """A share, measured on `n` images, in floating point and in integers."""

    measure: str
    n: int
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """How many layers are in integers, what the graph guarantees, on which share of the held-out images it
    gives the same answer, and what has changed. Printed, it is a section of a model card.
    """

    layers: int
    guarantee: Guarantee
    same: float
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        rows = "\n".join(
            f"| {c.measure} | {c.n:,} | {c.before:.2%} | {c.after:.2%} | {100 * (c.after - c.before):+.2f} |"
            for c in self.changes
        )
        return f"""- `{INT8_FILE}` has {self.layers} layers of the network in 8-bit integers, all but the last
- Its threshold comes from its own scores: {self.guarantee}
- It answers as `guard.onnx` does on {self.same:.1%} of the held-out images

| measure | images | float32 | INT8 | change, points |
| --- | --- | --- | --- | --- |
{rows}"""


def quantize(source: Path, file: Path, images: Int8Images) -> Quantized:
    """Writes the INT8 graph of a guard's ONNX file `source`, and measures it beside that one.

    Raises ExportError where there is nothing to quantise, and ValueError where the held-out images are too
    few for the guarantee.
    """
    layers, held_out = _layers(source), images.held_out
    _quantize(source, file, layers, images.train)
    before = Guard.load(source)
    _describe(file, before)  # with its scores not known yet
    after = replace(before, graph=open_graph(file))
    labels_N = held_out.labels if before.held_out.standing is not None else None
    known = [_outputs(guard, held_out) for guard in (before, after)]
    kept = HeldOut.of(known[1].score_B, known[1].logits_BC, labels_N)
    alpha, confidence = before.guarantee.alpha, before.guarantee.confidence
    names = before.names if before.per_class else None
    threshold, guarantee = kept.calibrate(alpha, confidence, names)
    after = replace(after, threshold=threshold, guarantee=guarantee, held_out=kept)
    _describe(file, after)
    changes = []
    if labels_N is not None:
        shares = [float((out.logits_BC.argmax(1) == labels_N.numpy()).mean()) for out in known]
        changes.append(_change("accuracy on known images", held_out, shares))
    for group in images.ood:
        unknown = [_outputs(guard, group.images) for guard in (before, after)]
        shares = [auroc(_scores(id), _scores(out)) for id, out in zip(known, unknown, strict=True)]
        changes.append(_change(f"AUROC, {group.name} ({group.group})", group.images, shares))
    pairs = zip(before.answers(known[0]), after.answers(known[1]), strict=True)
    same = float(np.mean([a.answer == b.answer for a, b in pairs]))
    return Quantized(layers=len(layers), guarantee=guarantee, same=same, changes=tuple(changes))


def _layers(source: Path) -> list[str]:
    """The nodes of the network, but for the last one, that multiply by weights."""
    import onnx

    graph = onnx.load(source).graph
    weights = {tensor.name for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        texts = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
        inside = node.name.startswith(PREFIX) or (texts and "network" in ast.literal_eval(texts[0]))
        if inside and node.op_type in KINDS and node.input[1] in weights:
            layers.append(node.name)
    layers = layers[:-1]  # the last one makes the logits
    if not layers:
        raise ExportError("This network has no convolution or matrix product to put into 8-bit integers.")
    return layers


def _quantize(source: Path, file: Path, layers: Sequence[str], train: Images) -> None:
    """Writes the graph with these nodes in integers.

    Weights have 7 bits: processors without VNNI add pairs of products in 16, and would cut larger ones off.
    Their scores, and with them the guarantee, would then not be those of the machine that exports.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Batches of training images, drawn at random."""

        def __init__(self) -> None:
            rows = torch.randperm(len(train), generator=generator(0, "int8"))[:WATCHED]
            self.batches = (train.batch(part).numpy() for part in rows.split(BATCH))

        def get_next(self) -> Any:
            images = next(self.batches, None)
            return None if images is None else {"images": images}

    with _quiet():
        quantize_static(
            source,
            file,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_quantize=list(layers),
        )


def _describe(file: Path, guard: Guard) -> None:
    """Gives the file the threshold and the metadata of the guard, and seals it."""
    import onnx

    model = onnx.load(file)
    default = next(tensor for tensor in model.graph.initializer if tensor.name == "threshold")
    threshold = guard.threshold_C if guard.per_class else np.array(guard.threshold)
    default.CopyFrom(onnx.numpy_helper.from_array(threshold, "threshold"))
    onnx.helper.set_model_props(model, metadata(guard))
    onnx.save(model, file)
    seal_file(file)


def _outputs(guard: Guard, images: Images) -> Outputs:
    """The outputs for a whole set."""
    parts = [guard.outputs_of(batch.numpy()) for batch, _ in images.batches(BATCH)]
    return Outputs(
        logits_BC=np.concatenate([part.logits_BC for part in parts]),
        score_B=np.concatenate([part.score_B for part in parts]),
        known_B=None,
    )


def _scores(outputs: Outputs) -> Tensor:
    return torch.from_numpy(outputs.score_B)


def _change(measure: str, images: Images, shares: Sequence[float]) -> Change:
    return Change(measure=measure, n=len(images), before=shares[0], after=shares[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice to optimise a graph first, which the exporter has done."""
    import onnxruntime

    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        log.setLevel(level)
        onnxruntime.set_default_logger_severity(2)  # as it is by default
