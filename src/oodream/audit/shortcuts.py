"""audit.shortcuts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ..core.seeding import generator
from ..data.images import Images
from ..functional.metrics import auroc, bootstrap, interval
from .duplicates import _batch
from .finding import Finding, percent

SEPARATES, LEANS = 0.95, 0.75  # AUROC from which file facts are a problem, and a warning
TRACES = 0.9  # AUROC from which pixel statistics are a warning; they see some content, too
SAMPLE = 2000  # images of a set whose statistics are taken


# Traces that say nothing about content ---------------------------------------------------------------------------------------

FINEST, FINE = 0.4, 0.25  # cycles per pixel above which detail is called so; 0.5 is the finest there is
LEAST = 20  # images in a set of which statistics say something
BASE_SUM = 3688  # of the luminance quantisation table at quality 50 (ITU T.81, table K.1)
Facts = dict[str, np.ndarray]


def pixel_statistics(x_B3HW: Tensor) -> Facts:
    """What compressing, resizing and colouring change in pictures uint8 (B, 3, H, W), whatever they show: name -> float (B,).

    "finest detail" and "fine detail": logarithm of the share of the power (without the mean, under a Hann window) above FINEST and
    FINE; "blockiness": logarithm of how much larger the steps at multiples of 8 pixels are than the others; "colour": mean
    distance between the largest and the smallest channel, in [0, 1].
    """
    x = x_B3HW.float() / 255
    grey, size = x.mean(1), x.shape[-1]
    window = torch.hann_window(size, periodic=False)
    window = window[:, None] * window
    mean = (grey * window).sum((1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2((grey - mean) * window).abs().square()
    radius = torch.fft.fftfreq(size).square()
    radius = (radius[:, None] + radius).sqrt()
    total = power.sum((1, 2)) + 1e-6
    found = {
        name: (power[:, radius > r].sum(1) / total + 1e-7).log10()
        for name, r in (("finest detail", FINEST), ("fine detail", FINE))
    }
    border = torch.arange(1, size) % 8 == 0
    across, down = grey.diff(dim=2).abs().mean(1), grey.diff(dim=1).abs().mean(2)
    steps = across + down
    at, off = steps[:, border].mean(1) if border.any() else steps.mean(1), steps[:, ~border].mean(1)
    found["blockiness"] = ((at + 1e-3) / (off + 1e-3)).log()
    found["colour"] = (x.amax(1) - x.amin(1)).mean((1, 2))
    return {name: values.numpy() for name, values in found.items()}


def file_facts(files: Sequence[str]) -> Facts | None:
    """What N files on disk are, from their headers: name -> text or float (N,). None when one of them cannot be opened.

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
        except (OSError, ValueError):
            return None
    names = ("format", "mode", "width", "height", "JPEG quality", "bytes per pixel")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def jpeg_quality(tables: Mapping[int, Sequence[int]] | None) -> float:
    """The quality (1 to 100) on IJG's scale by the sum of the luminance table, rough below 20; 100 without tables."""
    if not tables or 0 not in tables:
        return 100.0
    scale = 100 * sum(tables[0]) / BASE_SUM
    return float(np.clip((200 - scale) / 2 if scale <= 100 else 5000 / scale, 1, 100))


def _columns(test: Facts, other: Facts) -> dict[str, np.ndarray]:
    """Every fact of both sets, one after the other, as numbers (N + M, k): texts become a column for each text."""
    both = {name: np.concatenate([test[name], other[name]]) for name in test}
    return {
        name: (x[:, None] == np.unique(x)).astype(float) if x.dtype.kind == "U" else x.astype(float)[:, None]
        for name, x in both.items()
    }


def discriminability(test: Facts, other: Facts, seed: int) -> tuple[dict[str, float], tuple[float, float]]:
    """AUROCs in [0.5, 1] by which statistics tell two sets apart, one by one and "together", and the 95 % interval of the latter.

    Together: a logistic regression on all of them and their squares, each image scored by one that was fitted without it (five
    folds).
    """
    columns = _columns(test, other)
    is_other = np.arange(sum(len(next(iter(facts.values()))) for facts in (test, other))) >= len(
        next(iter(test.values()))
    )

    def area(score: np.ndarray) -> float:
        return auroc(*(torch.from_numpy(score[part].copy()) for part in (~is_other, is_other)))

    alone = {name: max(max(a, 1 - a) for a in map(area, x.T)) for name, x in columns.items()}
    z = StandardScaler().fit_transform(np.hstack([*columns.values()]))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    score = cross_val_predict(model, np.hstack([z, z**2]), is_other, cv=folds, method="decision_function")
    parts = [torch.from_numpy(score[part]) for part in (~is_other, is_other)]
    low, high = interval(bootstrap(*parts, seed=seed, resamples=200)["auroc"])
    return {"together": max(area(score), 0.5), **alone}, (low, high)


ONE_PIPELINE = "Put all sets through one pipeline: the same format and quality, one antialiased resize, grey or in colour alike."
ADVICE = {
    "near": ONE_PIPELINE,
    "far": f"{ONE_PIPELINE} If it is their nature, the set is easy, and its numbers say little about what pictures show.",
    "outliers": "Training can tell outliers by these alone. Reconstructed ID images (train.reconstruction_frac), grey ones "
    "(train.grey) and the files' format (decode.format) lessen it; the control shows whether it matters.",
    "control": "These are the decoder's traces; whether a classifier keys on them, its AUROC on this set tells.",
}


def separated(sets: Mapping[str, tuple[str, Images]], seed: int) -> Iterator[Finding]:
    """How well files and pixels alone tell each set from the test set, whatever the pictures show; SAMPLE of each are read."""

    def some(name: str) -> Images:
        images = sets[name][1]
        return images.subset(
            torch.randperm(len(images), generator=generator(seed, "audit", name))[:SAMPLE].sort().values
        )

    def pixels(images: Images) -> Facts:
        parts = [pixel_statistics(x) for x, _ in images.batches(_batch(images))]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    known = next(name for name, (group, _) in sets.items() if group == "test")
    others = [name for name, (group, images) in sets.items() if group in ADVICE and len(images) >= LEAST]
    if not others or len(sets[known][1]) < LEAST:
        return
    sample = some(known)
    known_facts = {"files": file_facts(sample.files), "pixels": pixels(sample)}
    for name in others:
        group, sample = sets[name][0], some(name)
        for kind, facts in (
            ("files", known_facts["files"] and file_facts(sample.files)),
            ("pixels", pixels(sample)),
        ):
            if not facts:
                continue
            test = known_facts[kind]
            assert test is not None
            found, (low, high) = discriminability(test, facts, seed)
            severity = "warning" if low >= (LEANS if kind == "files" else TRACES) else "fine"
            if kind == "files" and low >= SEPARATES and group in ("near", "far"):
                severity = "problem"
            best = sorted((key for key in found if key != "together"), key=found.__getitem__, reverse=True)
            single = ", ".join(f"{key} {percent(found[key])}" for key in best[:3])
            what = (
                "file's format, size and compression"
                if kind == "files"
                else "pixels' fineness, blocks and colour"
            )
            yield Finding(
                kind=kind, sets=(known, name), count=len(sample), share=found["together"], severity=severity,
                message=f"The {what} alone tell {name} from {known} at AUROC {percent(found['together'])} "
                f"({percent(low)} to {percent(high)}); one by one: {single}." + ("" if severity == "fine" else f" {ADVICE[group]}"),
                examples=tuple({"statistic": key, "auroc": round(found[key], 4)} for key in ("together", *best)),
            )  # fmt: skip
