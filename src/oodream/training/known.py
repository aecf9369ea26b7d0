"""What known images become in the place of imagined ones: no generator draws, and no image but the training
set's is read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..data import holdout
from ..data.images import Images
from .pixmix import structured
from .policies import POLICIES, Policy, augmented

__all__ = ["KEEP_CLASS", "TRANSFORMS", "Transform", "cut", "inverted", "mixed", "partners", "shuffled"]

LEAST = 1 / 3  # what each of two images has at least, of the mixture or of the area

Transform = Callable[[Images, Tensor, torch.Generator], Tensor]
"""Of known images, rows and a generator: what those rows become, uint8 (B, 3, H, W)."""


def mixed(known: Images, rows: Tensor, g: torch.Generator) -> Tensor:
    """Each image mixed with one of another class; either weighs a third at least.

    The mixtures of MixOE (Zhang et al. 2023), with known images in place of its real outliers.
    """
    weight_B = _share(len(rows), g)[:, None, None, None]
    others = known.batch(partners(known, rows, g))
    return (weight_B * known.batch(rows) + (1 - weight_B) * others).round().to(torch.uint8)


def cut(known: Images, rows: Tensor, g: torch.Generator) -> Tensor:
    """Each image with a box of one of another class in it; either has about a third of the area at least.

    CutMix (Yun et al. 2019), whose images have two labels there and are of no class here. The box has the
    image's shape and lies inside.
    """
    images, others = known.batch(rows), known.batch(partners(known, rows, g))
    B, _, H, W = images.shape
    side_B = _share(B, g).sqrt()
    place = torch.rand(2, B, generator=g)
    inside = []
    for length, place_B in zip((H, W), place, strict=True):
        box_B = (side_B * length).round()
        start_B = (place_B * (length - box_B + 1)).floor()
        at = torch.arange(length)
        inside.append((at >= start_B[:, None]) & (at < (start_B + box_B)[:, None]))
    rows_BH, columns_BW = inside
    return torch.where((rows_BH[:, :, None] & columns_BW[:, None])[:, None], others, images)


def shuffled(known: Images, rows: Tensor, g: torch.Generator) -> Tensor:
    """Each image's 4 x 4 tiles in a random order."""
    return holdout.shuffled(known.batch(rows), known.labels[rows], g)


def inverted(known: Images, rows: Tensor, g: torch.Generator) -> Tensor:
    """Negatives."""
    return holdout.inverted(known.batch(rows), known.labels[rows], g)


def _after(policy: Policy) -> Transform:
    return lambda known, rows, g: augmented(policy, known.batch(rows), g)


TRANSFORMS: dict[str, Transform] = {
    "mixed": mixed,
    "cut": cut,
    "shuffled": shuffled,
    "inverted": inverted,
    "structured": structured,
    **{name: _after(policy) for name, policy in POLICIES.items()},
}
"""By the names of `regularize.known_transform`; "varied" is none of these, but how outliers are shown."""

KEEP_CLASS = ("varied", "inverted", "structured", *POLICIES)
"""The names of those after which an image still shows its class, so that it can be an inlier."""


def partners(known: Images, rows: Tensor, g: torch.Generator) -> Tensor:
    """For each of the rows a random one of another class.

    ValueError where there is no other class.
    """
    by_class = known.labels.argsort(stable=True)
    count_C = torch.bincount(known.labels)
    start_C = count_C.cumsum(0) - count_C
    own_B = known.labels[rows]
    other_B = len(known) - count_C[own_B]
    if (other_B == 0).any():
        raise ValueError("Known images are mixed with those of other classes, and there is no other class.")
    place_B = (torch.rand(len(rows), generator=g, dtype=torch.float64) * other_B).long()
    return by_class[torch.where(place_B < start_C[own_B], place_B, place_B + count_C[own_B])]


def _share(n: int, g: torch.Generator) -> Tensor:
    return LEAST + (1 - 2 * LEAST) * torch.rand(n, generator=g)
