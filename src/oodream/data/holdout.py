"""Known and unknown images for choosing options, made from training images alone: no test set is read for it.

Near: classes left out of training, as the near-OOD classes of a test are. Far: known images disturbed until they show nothing
known. What does best on these need not do best on real unknown images; but a choice made here owes nothing to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core.errors import DataError, listed
from ..core.seeding import generator
from .folders import split
from .images import Images, from_array

MOST = 1000


def hold_out(
    train: Images, classes: Sequence[str], seed: int
) -> tuple[Images, Images, dict[str, tuple[str, Images]]]:
    """(training, test, OOD sets) from training images, with `classes` left out of the first two.

    A fifth of every other class is the test set; at most 1,000 images of the classes left out are the near set "left-out"; at
    most 1,000 test images, disturbed, are each far set. Raises DataError for an unknown class or when fewer than two remain.
    """
    if unknown := [name for name in classes if name not in train.classes]:
        raise DataError(f"No class is called {listed(unknown)}; there are {listed(train.classes)}.")
    names = tuple(name for name in train.classes if name not in classes)
    if len(names) < 2:
        raise DataError("At least two classes must remain for training.")
    position = torch.tensor([names.index(name) if name in names else -1 for name in train.classes])[
        train.labels
    ]
    left_out = (position < 0).nonzero()[:, 0]
    known = replace(train.subset(position >= 0), labels=position[position >= 0], classes=names)
    fit, test = split(known, seed, 0.2)
    some = torch.randperm(len(left_out), generator=generator(seed, "left-out"))[:MOST]
    sets = {"left-out": ("near", train.subset(left_out[some]).as_ood("left-out"))}
    rows = torch.randperm(len(test), generator=generator(seed, "disturbed"))[:MOST]
    pixels, labels = test.batch(rows), test.labels[rows]
    for name, (disturb, _) in PSEUDO_OOD.items():
        images = from_array(name, disturb(pixels, labels, generator(seed, name)), labels, ())
        sets[name] = ("far", images.as_ood())
    return fit, test, sets


def shuffled(x_N3HW: Tensor, y_N: Tensor, g: torch.Generator) -> Tensor:
    """Each image's 4 x 4 tiles in a random order (its width need not divide by 4: the margin stays)."""
    out, tile = x_N3HW.clone(), x_N3HW.shape[-1] // 4
    boxes = [
        (slice(r * tile, (r + 1) * tile), slice(c * tile, (c + 1) * tile)) for r in range(4) for c in range(4)
    ]
    for n in range(len(out)):
        for (r, c), source in zip(boxes, torch.randperm(16, generator=g).tolist(), strict=True):
            out[n, :, r, c] = x_N3HW[n][:, boxes[source][0], boxes[source][1]]
    return out


def inverted(x_N3HW: Tensor, y_N: Tensor, g: torch.Generator) -> Tensor:
    """Negatives."""
    return 255 - x_N3HW


def blended(x_N3HW: Tensor, y_N: Tensor, g: torch.Generator) -> Tensor:
    """The mean of each image and a random one of another class."""
    others = [(y_N != y).nonzero()[:, 0] for y in y_N]
    partner = torch.cat([rows[torch.randint(len(rows), (1,), generator=g)] for rows in others])
    return ((x_N3HW.int() + x_N3HW[partner].int()) // 2).to(torch.uint8)


PSEUDO_OOD: dict[str, tuple[Callable[[Tensor, Tensor, torch.Generator], Tensor], str]] = {
    "shuffled": (shuffled, "known images, their tiles in a random order"),
    "inverted": (inverted, "negatives of known images"),
    "blended": (blended, "means of two known images of different classes"),
}
