"""A guard as one ONNX graph: pictures of any size in; logits, scores and "unknown" out. It needs nothing of oodream to run.

What is traced is the guard itself, with its resizing written out, because ONNX's own does not round as Pillow's does. The result
is compared with the guard before anybody gets it.
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

from ..core.seeding import generator
from ..core.types import Output
from ..detection.detectors import probes_of
from .guard import Guard, name_of

FIXED_POINT = 2.0**22  # Pillow's weights are whole multiples of its inverse
TRACED = (
    "ash", "dice", "energy", "entropy", "fdbd", "gen", "gmm", "gradnorm", "kl_matching", "knn", "mahalanobis", "max_logit", "msp",
    "nci", "nnguide", "openmax", "react", "relative_mahalanobis", "residual", "scale", "she", "ssd", "temperature", "vim", "vra",
    "weighted_energy",
)  # fmt: skip
OF_SPREAD, OF_SCORE, OF_LOGIT = 1e-3, 1e-4, 1e-3


class ExportError(ValueError):
    """A guard cannot become a graph, or would not give the same answers; the message says why, and what to do."""


class Square(nn.Module):
    """uint8 (B, 3, H, W) of any size as `images.square` reads it: the centre square, resized to `size`, bicubic and antialiased.

    Pillow resizes in two passes, with 22-bit weights, and rounds to uint8 after each. Here each is a product with a matrix of the
    same weights, in float64, which holds their sums exactly: so pixels are equal, not just close (tests compare them).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """float64 whole numbers in [0, 255], (B, 3, size, size)."""
        h, w = images_B3HW.shape[2:]
        side = torch.minimum(_scalar(h), _scalar(w))
        wide = _rounded(images_B3HW.double() @ self.weights(w, side).T)
        return _rounded(self.weights(h, side) @ wide)

    def weights(self, n: int, side: Tensor) -> Tensor:
        """The weights (size, n) of n pixels in each of the `size` pixels made from the middle `side` of them.

        The kernel is Keys's (1981) with a = -1/2, widened by the scale where pixels become fewer; it reaches two pixels, rounded
        to whole ones, beyond which its weights are dropped and the others scaled to a sum of one.
        """
        scale = side / self.size
        wide = scale.clamp(min=1.0)
        centre_S1 = ((_scalar(n) - side) / 2 + (torch.arange(self.size, dtype=torch.float64) + 0.5) * scale)[
            :, None
        ]
        pixel_N = torch.arange(n, dtype=torch.float64)
        x_SN = ((pixel_N + 0.5 - centre_S1) / wide).abs()
        near_SN, far_SN = (1.5 * x_SN - 2.5) * x_SN * x_SN + 1, ((2.5 - 0.5 * x_SN) * x_SN - 4) * x_SN + 2
        inside = (pixel_N >= (centre_S1 - 2 * wide + 0.5).floor()) & (
            pixel_N < (centre_S1 + 2 * wide + 0.5).floor()
        )
        weight_SN = torch.where(x_SN < 1, near_SN, far_SN) * (inside & (x_SN < 2))
        weight_SN = weight_SN / weight_SN.sum(1, keepdim=True) * FIXED_POINT
        return weight_SN.sign() * (weight_SN.abs() + 0.5).floor()


class Deployed(nn.Module):
    """A guard on uint8 pictures (B, 3, H, W): logits (B, C) float32, scores (B,) float64, unknown (B,) bool."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.square, self.network = Square(guard.size), copy.deepcopy(guard.network).cpu().eval()
        self.detector, self.threshold = guard.detector, guard.threshold

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output: Output = self.network(self.square(images_B3HW))
        with InOtherWords():
            score_B = self.detector.score(output)
        return output.logits_BC, score_B, score_B > self.threshold


def to_onnx(guard: Guard, file: Path) -> float:
    """Writes the guard as an ONNX file, and returns the largest difference of a score that the check found (`compared`).

    Its input is `images` uint8 RGB (B, 3, H, W), upright, any B, H and W; its outputs are `logits`, `score` and `unknown`, as
    `Deployed`'s; class names, threshold and promise are in its metadata. ExportError: missing packages, a detector that needs more
    than outputs or does what ONNX cannot, other answers than the guard's; then there is no file.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs {error.name}, which is not installed: pip install 'oodream[onnx]'"
        ) from error
    name = name_of(guard.detector)
    if probes_of([guard.detector]):
        raise ExportError(f"{name} needs more of a network than one forward pass. {_instead()}")
    dynamic, example = (
        torch.export.Dim.DYNAMIC,
        torch.zeros(2, 3, guard.size + 3, guard.size + 5, dtype=torch.uint8),
    )
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                Deployed(guard).eval(), (example,), dynamo=True, verbose=False, input_names=["images"],
                output_names=["logits", "score", "unknown"], dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            )  # fmt: skip
    except Exception as error:  # whatever the exporter raises
        raise ExportError(
            f"This network with {name} cannot be traced into a graph: {_line(error.__cause__ or error)} {_instead()}"
        ) from error
    assert program is not None
    told = {
        "names": json.dumps(guard.names),
        "threshold": repr(guard.threshold),
        "promise": str(guard.promise),
    }
    program.model.metadata_props.update(told)
    program.save(file)
    try:
        return compared(guard, file)
    except ExportError:
        file.unlink()
        raise


def compared(guard: Guard, file: Path) -> float:
    """The largest difference between the scores of a guard and of its graph, on pictures of several sizes.

    ExportError when one exceeds OF_SPREAD of the middle 90 % of the held-out scores plus OF_SCORE of the score itself, or when the
    answers differ though neither score nor logits leave it open.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has exceptions of its own
        raise ExportError(f"onnxruntime cannot run this graph: {_line(error)} {_instead()}") from error
    low, high = guard.score_Q.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    worst = 0.0
    for pictures in _pictures(guard.size):
        logits, scores, unknown = session.run(None, {"images": pictures.transpose(0, 3, 1, 2)})
        verdicts = guard.predict(pictures)
        assert isinstance(verdicts, list)
        for verdict, own, score, flag in zip(
            verdicts, logits, scores.tolist(), unknown.tolist(), strict=True
        ):
            apart = abs(score - verdict.score)
            allowed = OF_SPREAD * (high - low) + OF_SCORE * abs(verdict.score)
            open_ = abs(verdict.score - guard.threshold) <= allowed
            likeliest = own.max() - own[guard.names.index(verdict.likeliest)] <= OF_LOGIT
            if not apart <= allowed or not likeliest or (flag != (verdict.answer == "unknown") and not open_):
                size = f"{pictures.shape[2]} x {pictures.shape[1]}"
                raise ExportError(
                    f"The graph gives another answer for a picture of {size} pixels (score {score:.6g}, and not "
                    f"{verdict.score:.6g}), so it is not kept. {_instead()}"
                )
            worst = max(worst, apart)
    return worst


class InOtherWords(TorchFunctionMode):
    """Says to the tracer what it or onnxruntime cannot take in words that they can.

    Checks of values pass: they are about NaN and infinity, of which there are none in the pictures. A batch of unknown length is
    gone through in one part.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SYMBOLIC and isinstance(args[0].shape[0], torch.SymInt):
            return SYMBOLIC[func](*args)
        return WORDS.get(func, func)(*args, **(kwargs or {}))


class Kth(NamedTuple):
    """What `kthvalue` returns."""

    values: Tensor
    indices: Tensor


def _kthvalue(x: Tensor, k: int, dim: int = -1) -> Kth:
    values, indices = x.topk(k, dim=dim, largest=False)
    return Kth(values.select(dim, k - 1), indices.select(dim, k - 1))


def _cdist(a_NF: Tensor, b_MF: Tensor, **_: Any) -> Tensor:
    return (a_NF[:, None] - b_MF).square().sum(2).sqrt()


def _softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


WORDS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.__bool__: lambda _: True,
    torch.Tensor.kthvalue: _kthvalue,
    torch.cdist: _cdist,
    nn.functional.softplus: _softplus,
}
SYMBOLIC: dict[Any, Callable[..., Any]] = {
    torch.Tensor.__len__: lambda _: 1,
    torch.Tensor.split: lambda x, *_: (x,),
}


def _scalar(n: int) -> Tensor:
    return torch.scalar_tensor(n, dtype=torch.float64)


def _rounded(sums: Tensor) -> Tensor:
    return (sums / FIXED_POINT + 0.5).floor().clamp(0, 255)


def _instead() -> str:
    return f"Detectors that can be part of a graph: {', '.join(TRACED)}."


def _line(error: BaseException) -> str:
    """The first line of a foreign message, ended with a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."


def _pictures(size: int) -> Iterator[np.ndarray]:
    """Batches (B, H, W, 3) of noise and of soft blobs: as large as the network's images, larger, smaller, wide and high."""
    g = generator(0, "pictures")
    half = size // 2 + 1
    for h, w in (
        (size, size),
        (2 * size + 3, 3 * size + 2),
        (3 * size, 2 * size + 5),
        (half, size),
        (size, half),
    ):
        noise = torch.randint(0, 256, (2, 3, h, w), generator=g, dtype=torch.uint8)
        coarse = torch.randint(0, 256, (2, 3, 4, 4), generator=g).float()
        blobs = nn.functional.interpolate(coarse, (h, w), mode="bilinear").round().byte()
        yield torch.cat([noise, blobs]).permute(0, 2, 3, 1).contiguous().numpy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about packages it could also use."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
