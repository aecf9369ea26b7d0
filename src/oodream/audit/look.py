"""The look control: how well outliers are told from known images by anything but what they show.

Outliers that look otherwise than known images, by compression, sharpness, noise or tone, teach a classifier
the look in place of the things. The statistics here hold little meaning; `docs/audit.md` has what they say of
sets of one origin and of several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.seeding import generator
from ..core.types import OOD
from ..data.images import Images, ImageSet
from .finding import Finding, percent
from .shortcuts import MIN_IMAGES, SAMPLE, Facts, discriminability, facts_of, pixel_statistics

__all__ = ["LOOK", "look_control", "look_statistics", "matched", "separation"]

LOOK = "look"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
FLAT = 0.5  # of 255: a pixel that differs less from its neighbours is called flat


def look_statistics(x_B3HW: Tensor) -> Facts:
    """What is left of images uint8 (B, 3, H, W) without the things in them: name -> float (B,).

    - `pixel_statistics`: fineness, blocks of 8 and colour.
    - "grain" at six quantiles: logarithm of how much a gray pixel differs from its four neighbours.
    - "flatness": the share of pixels that hardly do.
    - "brightness" and "contrast": mean and standard deviation of gray, which the strongest blur leaves.
    """
    gray = x_B3HW.float().mean(1)
    inner = gray[:, 1:-1, 1:-1]
    around = gray[:, 2:, 1:-1] + gray[:, :-2, 1:-1] + gray[:, 1:-1, 2:] + gray[:, 1:-1, :-2]
    grain = (inner - around / 4).abs().flatten(1)
    at = np.log(np.quantile(grain.numpy(), QUANTILES, axis=1) + 0.1)
    return {
        **pixel_statistics(x_B3HW),
        **{f"grain q{100 * q:g}": values for q, values in zip(QUANTILES, at, strict=True)},
        "flatness": (grain < FLAT).float().mean(1).numpy(),
        "brightness": gray.mean((1, 2)).numpy() / 255,
        "contrast": gray.std((1, 2)).numpy() / 255,
    }


def look_control(sets: Sequence[ImageSet], seed: int) -> Iterator[Finding]:
    """How well a small classifier tells each set of outliers from known training images by their look alone.

    Its AUROC is 50 % where the look betrays nothing. Of every class that outliers lie around as many known
    images are drawn as outliers; real outliers lie around none, and are compared with all known images. Known
    test images against training images are the control's own control. No number is a verdict, for what
    outliers show changes their look, too. A set of fewer than MIN_IMAGES is left out.
    """
    known = next((s for s in sets if s.group == "train"), None)
    test = next((s for s in sets if s.group == "test"), None)
    outliers = [s for s in sets if s.group == "outliers"]
    if known is None or test is None or not outliers:
        return
    check = separation(known.images, test.images, seed)
    for other in outliers:
        if (measured := separation(known.images, other.images, seed)) is None:
            continue
        aurocs, (low, high), n = measured
        best = sorted((name for name in aurocs if name != "together"), key=aurocs.__getitem__, reverse=True)
        single = ", ".join(f"{name} {percent(aurocs[name])}" for name in best[:3])
        control = f", and {test.name} at {percent(check[0]['together'])}" if check else ""
        classes = " of the same classes" if bool((other.images.labels != OOD).any()) else ""
        yield Finding(
            kind=LOOK,
            sets=(known.name, other.name),
            count=n,
            share=aurocs["together"],
            severity="fine",
            interval=(low, high),
            message=f"The look alone tells {other.name} from {known.name}{classes} at AUROC "
            f"{percent(aurocs['together'])} ({percent(low)} to {percent(high)}){control}. "
            f"At 50\u00a0% an outlier's look betrays nothing. One by one: {single}.",
            examples=tuple(
                {"statistic": name, "auroc": round(aurocs[name], 4)} for name in ("together", *best)
            ),
        )


def separation(
    known: Images, other: Images, seed: int
) -> tuple[dict[str, float], tuple[float, float], int] | None:
    """The AUROCs by which the look separates two sets, the interval of the one called "together", and how
    many images of each were compared; None where these are too few.

    An AUROC below 50 % is chance and counts as 50 %. Colour counts where the known images have some: beside
    gray ones, outliers are shown gray, too.
    """
    rows_known, rows_other = matched(known.labels, other.labels, seed)
    if len(rows_known) < MIN_IMAGES:
        return None
    known_facts = facts_of(known.subset(rows_known), look_statistics)
    other_facts = facts_of(other.subset(rows_other), look_statistics)
    if not known_facts["colour"].any():
        del known_facts["colour"], other_facts["colour"]
    aurocs, (low, high) = discriminability(known_facts, other_facts, seed)
    return aurocs, (max(low, 0.5), max(high, 0.5)), len(rows_known)


def matched(known_N: Tensor, other_M: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of two sets, as many of every class of both; of each at most SAMPLE, drawn by `seed`.

    Where no row of the second set has a class (label -1), as many rows of any class are drawn from both.
    """
    g = generator(seed, "look")
    if bool((other_M == OOD).all()):
        known_N, other_M = torch.zeros_like(known_N), torch.zeros_like(other_M)
    classes = sorted({*known_N.tolist()} & {*other_M.tolist()})
    rows_known, rows_other = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]
    for y in classes:
        of_known, of_other = ((labels == y).nonzero()[:, 0] for labels in (known_N, other_M))
        n = min(len(of_known), len(of_other), max(1, SAMPLE // len(classes)))
        for rows, of_class in ((rows_known, of_known), (rows_other, of_other)):
            rows.append(of_class[torch.randperm(len(of_class), generator=g)[:n]])
    return torch.cat(rows_known), torch.cat(rows_other)
