"""Known and unknown images for choosing options, made from training images alone: no test set is read for it.

Near sets are classes left out of training, as the near-OOD classes of a test are. Far sets are pseudo-OOD:
known images changed until they show nothing known. What does best on these need not do best on real unknown
images, but a choice made here owes nothing to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core.errors import DataError, listed
from ..core.seeding import generator
from .images import Images, ImageSet, from_array
from .splits import split

__all__ = ["PSEUDO_OOD", "blended", "check_left_out", "disturbed", "hold_out", "inverted", "shuffled"]

MAX_IMAGES = 1000  # in each OOD set
LEFT_OUT = "training images of classes left out of training"


def check_left_out(names: Sequence[str], classes: Sequence[str]) -> None:
    """DataError where `classes` cannot be left out of the known classes `names`."""
    if unknown := [name for name in classes if name not in names]:
        raise DataError(f"No class is called {listed(unknown)}; there are {listed(names)}.")
    if len({*names} - {*classes}) < 2:
        raise DataError("At least two classes must remain for training.")


def hold_out(train: Images, classes: Sequence[str], seed: int) -> tuple[Images, Images, list[ImageSet]]:
    """(training, test, OOD sets) from training images, with `classes` left out of the first two.

    A fifth of every other class is the test set. The near set "left-out" is of the classes left out. Each far
    set is of the test images, changed as `PSEUDO_OOD` says. OOD sets have at most 1,000 images. Raises
    DataError where `check_left_out` does, and for a class with a single image.
    """
    check_left_out(train.classes, classes)
    names = tuple(name for name in train.classes if name not in classes)
    counts = torch.bincount(train.labels, minlength=len(train.classes)).tolist()
    if few := [name for name, n in zip(train.classes, counts, strict=True) if n < 2 and name in names]:
        raise DataError(
            "Options are chosen on training images that are held back, and these classes have fewer than two "
            f"training images: {listed(few)}. Add images."
        )
    position = torch.tensor([names.index(name) if name in names else -1 for name in train.classes])
    label_N = position[train.labels]
    left_out = (label_N < 0).nonzero()[:, 0]
    known = replace(train.subset(label_N >= 0), labels=label_N[label_N >= 0], classes=names)
    fit, test = split(known, seed)
    some = torch.randperm(len(left_out), generator=generator(seed, "left-out"))[:MAX_IMAGES]
    near = train.subset(left_out[some]).as_ood("left-out")
    near_set = ImageSet(name="left-out", group="near", images=near, about=LEFT_OUT)
    # "disturbed" is the name of a stream of random numbers: another name would draw other images.
    rows = torch.randperm(len(test), generator=generator(seed, "disturbed"))[:MAX_IMAGES]
    return fit, test, [near_set, *disturbed(test, rows, seed)]


def disturbed(known: Images, rows: Tensor, seed: int) -> list[ImageSet]:
    """Far sets of the known images at `rows`, changed as `PSEUDO_OOD` says. Images of one class alone are not
    blended.
    """
    pixels, labels = known.batch(rows), known.labels[rows]
    sets = []
    for name, (change, about) in PSEUDO_OOD.items():
        if name == "blended" and len(labels.unique()) < 2:
            continue
        images = from_array(name, change(pixels, labels, generator(seed, name)), labels, ()).as_ood()
        sets.append(ImageSet(name=name, group="far", images=images, about=about))
    return sets


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
