"""Shortcuts: traces of files and pixels by which a set differs from the test set whatever its images show."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.seeding import generator
from ..data.images import Images, ImageSet
from ..functional.metrics import auroc, bootstrap, interval
from .finding import Finding, percent
from .reading import batches

__all__ = [
    "MIN_IMAGES",
    "SAMPLE",
    "Facts",
    "discriminability",
    "facts_of",
    "file_facts",
    "jpeg_quality",
    "least_alone",
    "pixel_statistics",
    "shortcuts",
]

FILES_PROBLEM, FILES_WARNING = 0.95, 0.75  # AUROC of file facts
PIXELS_WARNING = 0.9  # AUROC of pixel statistics, which see some of the content, too
SAMPLE = 2000  # images of a set whose statistics are taken
MIN_IMAGES = 20  # of a set, for statistics to mean something
FINEST, FINE = 0.4, 0.25  # cycles per pixel above which detail is called so; 0.5 is the finest there is
BASE_SUM = 3688  # of the luminance quantisation table at quality 50 (ITU T.81, table K.1)
RESAMPLES = 200  # of the bootstrap behind an interval
RESAMPLES_ALONE = 2000  # of that behind the bound of a single fact, which lies farther out
FOLDS = 5  # of the cross-validation behind an AUROC
Facts = dict[str, np.ndarray]


def pixel_statistics(x_B3HW: Tensor) -> Facts:
    """What compressing, resizing and colouring change in images uint8 (B, 3, H, W): name -> float (B,).

    - "finest detail", "fine detail": logarithm of the share of the power (without the mean, under a Hann
    window) above FINEST and FINE; - "blockiness": logarithm of how much larger the steps at multiples of 8
    pixels are than the others; - "colour": mean distance between the largest and the smallest channel, in [0,
    1].
    """
    x = x_B3HW.float() / 255
    gray, size = x.mean(1), x.shape[-1]
    window = torch.hann_window(size, periodic=False)
    window = window[:, None] * window
    mean = (gray * window).sum((1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2((gray - mean) * window).abs().square()
    radius = torch.fft.fftfreq(size).square()
    radius = (radius[:, None] + radius).sqrt()
    total = power.sum((1, 2)) + 1e-6
    facts = {
        name: (power[:, radius > r].sum(1) / total + 1e-7).log10()
        for name, r in (("finest detail", FINEST), ("fine detail", FINE))
    }
    border = torch.arange(1, size) % 8 == 0
    across, down = gray.diff(dim=2).abs().mean(1), gray.diff(dim=1).abs().mean(2)
    steps = across + down
    at, off = steps[:, border].mean(1) if border.any() else steps.mean(1), steps[:, ~border].mean(1)
    facts["blockiness"] = ((at + 1e-3) / (off + 1e-3)).log()
    facts["colour"] = (x.amax(1) - x.amin(1)).mean((1, 2))
    return {name: values.numpy() for name, values in facts.items()}


def file_facts(files: Sequence[str]) -> Facts | None:
    """What the headers of N files say: name -> text or float (N,). None when a file cannot be opened.

    The "JPEG quality" is 100 for other formats.
    """
    rows = []
    for file in files:
        try:
            with warnings.catch_warnings(), Image.open(file) as image:
                warnings.simplefilter("ignore")
                size = os.path.getsize(file) / (image.width * image.height)
                quality = jpeg_quality(getattr(image, "quantization", None))
                rows.append((image.format or "", image.mode, image.width, image.height, quality, size))
        except Exception:  # on damaged bytes Pillow raises nearly anything
            return None
    names = ("format", "mode", "width", "height", "JPEG quality", "bytes per pixel")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def jpeg_quality(tables: Mapping[int, Sequence[int]] | None) -> float:
    """The quality (1 to 100) on IJG's scale by the sum of the luminance table, rough below 20; 100 without
    tables.
    """
    if not tables or 0 not in tables:
        return 100.0
    scale = 100 * sum(tables[0]) / BASE_SUM
    return float(np.clip((200 - scale) / 2 if scale <= 100 else 5000 / scale, 1, 100))


def _columns(test: Facts, other: Facts) -> dict[str, np.ndarray]:
    """Every fact of both sets, one after the other, as numbers (N + M, k): texts become one column each."""
    both = {name: np.concatenate([test[name], other[name]]) for name in test}
    return {
        name: (x[:, None] == np.unique(x)).astype(float) if x.dtype.kind == "U" else x.astype(float)[:, None]
        for name, x in both.items()
    }


def discriminability(test: Facts, other: Facts, seed: int) -> tuple[dict[str, float], tuple[float, float]]:
    """AUROCs in [0.5, 1] by which facts separate two sets, and the 95 % interval of the one called
    "together".

    The others are those of single facts. Together: a logistic regression on all facts and their squares, each
    image scored by one that was fitted without it (cross-validation, whose folds `seed` draws).
    """
    from sklearn.linear_model import LogisticRegression  # takes seconds, and most commands audit nothing
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = _columns(test, other)
    n, m = (len(next(iter(facts.values()))) for facts in (test, other))
    is_other = np.arange(n + m) >= n

    alone = {
        name: max(max(area, 1 - area) for area in (auroc(*_split(x, n)) for x in columns_k.T))
        for name, columns_k in columns.items()
    }
    z = StandardScaler().fit_transform(np.hstack([*columns.values()]))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    score = cross_val_predict(model, np.hstack([z, z**2]), is_other, cv=folds, method="decision_function")
    low, high = interval(bootstrap(*_split(score, n), seed=seed, resamples=RESAMPLES)["auroc"])
    return {"together": max(auroc(*_split(score, n)), 0.5), **alone}, (low, high)


def least_alone(test: Facts, other: Facts, name: str, seed: int) -> float:
    """A lower bound of the AUROC by which the fact `name` alone separates two sets.

    The best of several facts is larger by chance than one, so the bound is that of the bootstrap's interval
    at 95 % divided by the number of columns that a best one is chosen from, each in both directions
    (Bonferroni): with a chance of 97.5 % or more no fact's bound is above its AUROC.
    """
    columns, n = _columns(test, other), len(test[name])
    best = max((sign * x for x in columns[name].T for sign in (1, -1)), key=lambda x: auroc(*_split(x, n)))
    tries = 2 * sum(columns_k.shape[1] for columns_k in columns.values())
    areas = bootstrap(*_split(best, n), seed=seed, resamples=RESAMPLES_ALONE)["auroc"]
    return areas.quantile(0.025 / tries).item()


def _split(score: np.ndarray, n: int) -> list[Tensor]:
    """The first set's n scores, and the other's."""
    return [torch.from_numpy(part.copy()) for part in (score[:n], score[n:])]


ONE_PIPELINE = (
    "Put all sets through one pipeline: "
    "the same format and quality, one antialiased resize, gray or in colour alike."
)
ADVICE = {
    "near": f"{ONE_PIPELINE} If all have been through one, files differ by what they show: then this says "
    "nothing against the numbers.",
    "far": f"{ONE_PIPELINE} If it is their nature, the set is easy, "
    "and its numbers say little about what images show.",
    "outliers": "Training can recognise outliers by these alone. Reconstructed ID images "
    "(--reconstruct.frac), gray ones (--regularize.grayscale-prob) and the files' format (--decode.format) "
    "lessen it; the control shows whether it matters.",
    "control": "These are the decoder's traces. "
    "The classifiers' AUROC on this set says whether they react to them.",
}
TRACES = {"files": "file's format, size and compression", "pixels": "pixels' fineness, blocks and colour"}


def shortcuts(sets: Sequence[ImageSet], seed: int) -> Iterator[Finding]:
    """How well files and pixels alone separate each set from the test set, whatever its images show.

    Of every set SAMPLE images are read, drawn by `seed`. Sets of fewer than MIN_IMAGES are left out.
    """
    known = next(s for s in sets if s.group == "test")
    others = [s for s in sets if s.group in ADVICE and len(s.images) >= MIN_IMAGES]
    if not others or len(known.images) < MIN_IMAGES:
        return
    sample = _sample(known, seed)
    test = {"files": file_facts(sample.files), "pixels": facts_of(sample, pixel_statistics)}
    for other in others:
        sample = _sample(other, seed)
        yield from _separated(
            "files", known, other, test["files"], test["files"] and file_facts(sample.files), seed
        )
        facts = facts_of(sample, pixel_statistics)
        yield from _separated("pixels", known, other, test["pixels"], facts, seed)


def _sample(s: ImageSet, seed: int) -> Images:
    rows = torch.randperm(len(s.images), generator=generator(seed, "audit", s.name))[:SAMPLE]
    return s.images.subset(rows.sort().values)


def facts_of(images: Images, statistics: Callable[[Tensor], Facts]) -> Facts:
    """The statistics of all images of a set, one batch at a time."""
    parts = [statistics(x) for x in batches(images)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _separated(
    kind: str, known: ImageSet, other: ImageSet, test: Facts | None, facts: Facts | None, seed: int
) -> Iterator[Finding]:
    """The finding about one set and one kind of facts; none where either set has no such facts.

    It is graded by all facts together or by the best one alone, whichever separates more surely.
    """
    if not test or not facts:
        return
    aurocs, (low, high) = discriminability(test, facts, seed)
    together = percent(aurocs["together"])
    best = sorted((name for name in aurocs if name != "together"), key=aurocs.__getitem__, reverse=True)
    least = least_alone(test, facts, best[0], seed)
    bound, surest = max((low, "together"), (least, best[0]))
    severity = "warning" if bound >= (FILES_WARNING if kind == "files" else PIXELS_WARNING) else "fine"
    if kind == "files" and bound >= FILES_PROBLEM and other.group in ("near", "far"):
        severity = "problem"
    first, *more = [f"{name} {percent(aurocs[name])}" for name in best[:3]]
    single = ", ".join([f"{first} (at least {percent(max(least, 0.5))})", *more])
    yield Finding(
        kind=kind,
        sets=(known.name, other.name),
        count=len(next(iter(facts.values()))),
        share=aurocs[surest],
        severity=severity,
        message=f"The {TRACES[kind]} alone separate {other.name} from {known.name} at AUROC {together} "
        f"({percent(low)} to {percent(high)}); one by one: {single}."
        + ("" if severity == "fine" else f" {ADVICE[other.group]}"),
        examples=tuple({"statistic": name, "auroc": round(aurocs[name], 4)} for name in ("together", *best)),
    )
