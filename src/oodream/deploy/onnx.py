"""A guard as one ONNX graph: pictures of any size in; logits, scores and "unknown" out. It needs nothing of
oodream to run.

What is traced is the guard itself, with its resizing written out, because ONNX's own does not round as
Pillow's does. The result is compared with the guard before anybody gets it.

The threshold is an input with a default, an initializer that is also an input, so who gives pictures alone
has the guard's own, and `guard.at(alpha).threshold` gives another rate. It is the threshold and not alpha,
because a graph would need all held-out scores and the binomial distribution to make the one of the other.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..core.errors import StoreError, first_line
from ..core.packages import missing
from ..core.sealed import KEY as SEAL
from ..core.sealed import UNSEALED, seal_file
from ..core.seeding import generator
from ..core.types import Output
from ..detection.detectors import probes_of, score_unchecked
from ..runtime.description import KEY, Described, describe
from ..runtime.graph import open_graph
from .composed import compose, with_placeholders
from .guard import Guard
from .stored import name_of

__all__ = ["TRACED", "Deployed", "ExportError", "Rewritten", "Square", "compared", "metadata", "to_onnx"]

FIXED_POINT = 2.0**22  # Pillow's weights are whole multiples of its inverse
TRACED = (
    "ash", "dice", "energy", "energy_gen", "energy_probe", "entropy", "fdbd", "gen", "gmm", "gradnorm",
    "kl_matching", "knn", "mahalanobis", "max_logit", "msp", "nac", "nci", "nnguide",
    "normalized_mahalanobis", "normalized_relative_mahalanobis", "openmax", "outlier_probe", "react",
    "relative_mahalanobis", "residual", "scale", "she", "ssd", "temperature", "vim", "vra",
    "weighted_energy",
)  # fmt: skip
SPREAD_TOLERANCE = 1e-3  # of a score's difference, as a share of the held-out scores' spread
SCORE_TOLERANCE = 1e-4  # and, in addition, of the score itself
LOGIT_TOLERANCE = 1e-3


class ExportError(ValueError):
    """A guard cannot become a graph, or its graph gives other answers; the message says why, and what to
    do.
    """


class Square(nn.Module):
    """uint8 (B, 3, H, W) of any size as `runtime.pictures.square` makes of it: the centre square, resized to
    `size`, bicubic and antialiased.

    Pillow resizes in two passes, with 22-bit weights, and rounds to uint8 after each. Here each pass is a
    product with a matrix of the same weights, in float64, which holds their sums exactly: so pixels are
    equal, not just close (tests compare them).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """float64 whole numbers in [0, 255], (B, 3, size, size)."""
        h, w = images_B3HW.shape[2:]
        side = torch.minimum(_scalar(h), _scalar(w))
        narrow_B3HS = _rounded(images_B3HW.double() @ self.weights(w, side, 0))
        return _rounded(self.weights(h, side, 1) @ narrow_B3HS)

    def weights(self, n: int, side: Tensor, along: int) -> Tensor:
        """The weights of n pixels in each of the `size` pixels made from the middle `side` of them: (n, size)
        where the n lie along dimension 0, (size, n) where they lie along 1. No matrix is turned, for
        onnxruntime before 1.27 fuses that into a product that it has no float64 kernel for.

        The kernel is Keys's (1981) with a = -1/2, widened by the scale where pixels become fewer. It reaches
        two pixels, rounded to whole ones, beyond which its weights are dropped and the others scaled to a sum
        of one.
        """
        scale = side / self.size
        reach = scale.clamp(min=1.0)
        position_S = torch.arange(self.size, dtype=torch.float64) + 0.5
        centre = ((_scalar(n) - side) / 2 + position_S * scale).unsqueeze(along)
        pixel = torch.arange(n, dtype=torch.float64).unsqueeze(1 - along)
        x = ((pixel + 0.5 - centre) / reach).abs()
        near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
        first, end = (centre - 2 * reach + 0.5).floor(), (centre + 2 * reach + 0.5).floor()
        inside = (pixel >= first) & (pixel < end)
        weight = torch.where(x < 1, near, far) * (inside & (x < 2))
        weight = weight / weight.sum(along, keepdim=True) * FIXED_POINT
        return weight.sign() * (weight.abs() + 0.5).floor()


class Deployed(nn.Module):
    """A guard on uint8 pictures (B, 3, H, W) and a threshold, one () or one for each class (C,): logits (B,
    C) float32, scores (B,) float64, unknown (B,) bool, and where the loss estimates it, the probability (B,)
    to be of a known kind, float32.
    """

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.square, self.network = Square(guard.size), with_placeholders(guard.network)
        self.detector, self.loss = guard.detector, copy.deepcopy(guard.classifier.loss).cpu()
        self.phi = getattr(self.loss, "phi", None)

    def forward(self, images_B3HW: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        output: Output = self.network(self.square(images_B3HW))
        with Rewritten():
            score_B = score_unchecked(self.detector, output)
            known = () if self.phi is None else (self.phi(output.logits_BC).sigmoid(),)
        if threshold.ndim:
            threshold = threshold[output.logits_BC.argmax(1)]
        return output.logits_BC, score_B, score_B > threshold, *known


def to_onnx(guard: Guard, file: Path) -> float:
    """Writes the guard as an ONNX file, and returns the largest difference of a score that `compared` finds.

    Its inputs are `images` uint8 RGB (B, 3, H, W), upright, any B, H and W, and, if wanted, `threshold`
    float64: () or, of a guard with one for each class, (C,). Its outputs are `logits`, `score`, `unknown`
    and, where the loss estimates it, `known`, as `Deployed`'s. Class names, threshold and guarantee are in
    its metadata, and all that `runtime.Guard` needs.

    Raises ExportError for missing packages, for a detector that needs more than outputs or does what ONNX
    cannot, for a network in an ONNX file that takes batches of one size alone, and for other answers than the
    guard's; then there is no file.
    """
    try:
        import onnx_ir  # comes with onnxscript
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(missing("ONNX", error.name or "onnx", "onnx")) from error
    name = name_of(guard.detector)
    if probes_of([guard.detector]):
        raise ExportError(f"{name} needs more of a network than one forward pass. {_instead()}")
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3, guard.size + 3, guard.size + 5, dtype=torch.uint8)
    threshold = guard.threshold_C if guard.per_class else np.array(guard.threshold)
    try:
        with _quiet():  # a network in a .pt2 file is warned of when it is copied
            deployed = Deployed(guard).eval()
    except ValueError as error:
        raise ExportError(f"{error}") from error
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                deployed,
                (example, torch.from_numpy(threshold)),
                dynamo=True,
                verbose=False,
                input_names=["images", "threshold"],
                output_names=["logits", "score", "unknown", *(["known"] if deployed.phi else [])],
                dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic}, None),
            )
            assert program is not None
            compose(program.model, deployed.network)
    except Exception as error:  # whatever the exporter raises
        reason = first_line(error.__cause__ or error)
        raise ExportError(
            f"This network with {name} cannot be traced into a graph: {reason} {_instead()}"
        ) from error
    _, default = program.model.graph.inputs
    default.const_value = onnx_ir.tensor(threshold, name=default.name)
    program.model.graph.register_initializer(default)
    program.model.metadata_props.update(metadata(guard))
    program.save(file)
    seal_file(file)
    try:
        return compared(guard, file)
    except ExportError:
        file.unlink()
        raise


def metadata(guard: Described) -> dict[str, str]:
    """What a guard's graph says of itself: names, threshold and guarantee for people and for programs
    without oodream, the description for `runtime.Guard`, and the place of a seal, for `seal_file`.
    """
    threshold = guard.threshold_C.tolist() if guard.per_class else guard.threshold
    return {
        "names": json.dumps(guard.names),
        "threshold": json.dumps(threshold),
        "guarantee": str(guard.guarantee),
        KEY: describe(guard),
        SEAL: UNSEALED,
    }


def compared(guard: Guard, file: Path) -> float:
    """The largest difference between the scores of a guard and of its graph, ONNX or OpenVINO, on pictures of
    several sizes.

    Raises ExportError when a score differs by more than SPREAD_TOLERANCE of the middle 90 % of the held-out
    scores plus SCORE_TOLERANCE of the score itself, or when a class or a flag differs though neither score
    nor logits leave it open.
    """
    try:
        run = open_graph(file)
    except StoreError as error:
        raise ExportError(f"The graph is not kept: {error} {_instead()}") from error
    low, high = np.quantile(guard.held_out.score_N, [0.05, 0.95])
    largest = 0.0
    for pictures in _pictures(guard.size):
        results = run(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        predictions = guard.predict(pictures)
        assert isinstance(predictions, list)
        graph = zip(results["logits"], results["score"].tolist(), results["unknown"].tolist(), strict=True)
        for one, (logits_C, score, flag) in zip(predictions, graph, strict=True):
            difference = abs(score - one.score)
            allowed = SPREAD_TOLERANCE * (high - low) + SCORE_TOLERANCE * abs(one.score)
            same_class = logits_C.max() - logits_C[guard.names.index(one.likeliest)] <= LOGIT_TOLERANCE
            same_flag = bool(flag) == one.flagged or abs(one.score - one.threshold) <= allowed
            if not (difference <= allowed and same_class and same_flag):
                size = f"{pictures.shape[2]} x {pictures.shape[1]} pixels"
                raise ExportError(
                    f"The graph gives another answer for a picture of {size} (score {score:.6g}, and not "
                    f"{one.score:.6g}), so it is not kept. {_instead()}"
                )
            largest = max(largest, difference)
    return largest


class Rewritten(TorchFunctionMode):
    """Writes functions that the tracer or onnxruntime cannot take in terms of some that they can.

    A batch whose length is symbolic is gone through in one part.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OF_SYMBOLIC_BATCH and isinstance(args[0].shape[0], torch.SymInt):
            return OF_SYMBOLIC_BATCH[func](*args)
        return REWRITTEN.get(func, func)(*args, **(kwargs or {}))


class KthValue(NamedTuple):
    """What `kthvalue` returns."""

    values: Tensor
    indices: Tensor


def _kthvalue(x: Tensor, k: int, dim: int = -1) -> KthValue:
    values, indices = x.topk(k, dim=dim, largest=False)
    return KthValue(values.select(dim, k - 1), indices.select(dim, k - 1))


def _cdist(a_NF: Tensor, b_MF: Tensor, **_: Any) -> Tensor:
    return (a_NF[:, None] - b_MF).square().sum(2).sqrt()


def _softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


REWRITTEN: dict[Any, Callable[..., Any]] = {
    torch.Tensor.kthvalue: _kthvalue,
    torch.cdist: _cdist,
    nn.functional.softplus: _softplus,
}
OF_SYMBOLIC_BATCH: dict[Any, Callable[..., Any]] = {
    torch.Tensor.__len__: lambda _: 1,
    torch.Tensor.split: lambda x, *_: (x,),
}


def _scalar(n: int) -> Tensor:
    return torch.scalar_tensor(n, dtype=torch.float64)


def _rounded(sums: Tensor) -> Tensor:
    return (sums / FIXED_POINT + 0.5).floor().clamp(0, 255)


def _instead() -> str:
    return f"Detectors that can be part of a graph: {', '.join(TRACED)}."


def _pictures(size: int) -> Iterator[np.ndarray]:
    """Batches (B, H, W, 3) of noise and of soft blobs: as large as the network's images, larger, smaller,
    wide and high.
    """
    g = generator(0, "pictures")
    larger, half = [(2 * size + 3, 3 * size + 2), (3 * size, 2 * size + 5)], size // 2 + 1
    for h, w in ((size, size), *larger, (half, size), (size, half)):
        noise = torch.randint(0, 256, (2, 3, h, w), generator=g, dtype=torch.uint8)
        coarse = torch.randint(0, 256, (2, 3, 4, 4), generator=g).float()
        blobs = nn.functional.interpolate(coarse, (h, w), mode="bilinear").round().byte()
        yield torch.cat([noise, blobs]).permute(0, 2, 3, 1).contiguous().numpy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's remarks about packages that its exporter could also use, and about itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
