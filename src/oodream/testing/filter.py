"""The rules that every filter of imagined images keeps, as a check for authors of new ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core.faults import require
from ..core.registry import make
from ..core.seeding import generator
from ..core.types import Filter, Output
from ..synthesis.filters import check_mask, check_reason
from ._rules import run_rules, untouched

__all__ = ["check_filter"]

IMAGES, CLASSES, SIZE = 24, 3, 8


def check_filter(filter: str | Callable[..., Filter], **options: Any) -> None:
    """Checks that a filter keeps the rules; AssertionError says which one it breaks.

    `filter` is a registered name, `package.module:Class` or the class itself, and `options` are its own. The
    rules:

    - `reason` is a sentence for people, of three words or more, that says why an image goes.
    - It returns a boolean (B,) on the CPU, also for one image and for none.
    - What it says of an image depends on that image and its class alone, and is the same the next time. If it
      `compares`, it may depend on the images of the class before it, too, but on no others.
    - Images, labels, the baseline's weights and global random numbers stay as they are.
    """

    def made() -> Filter:
        result: Filter = make("filters", filter, **options) if isinstance(filter, str) else filter(**options)
        return result

    run_rules(filter, [partial(rule, made) for rule in (_check_reason, _check_answer, _check_rows)])


class ToyBaseline(nn.Module):
    """A classifier of random weights, sure of itself for some images and unsure for others."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(3 * SIZE * SIZE, CLASSES, generator=generator(0, "check_filter", "weights"))
        self.weight_PC = nn.Parameter(weight / 10)

    def forward(self, images_B3HW: Tensor) -> Output:
        pixels_BP = images_B3HW.float().flatten(1) / 127.5 - 1
        # Row by row: a product's last bits would depend on how many rows there are.
        logits_BC = (
            torch.stack([(row[:, None] * self.weight_PC).sum(0) for row in pixels_BP])
            if len(pixels_BP)
            else pixels_BP.new_zeros(0, CLASSES)
        )
        return Output(logits_BC=logits_BC, z_BF=pixels_BP)


def _inputs() -> tuple[Tensor, Tensor, ToyBaseline]:
    g = generator(0, "check_filter", "images")
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, generator=g)
    images[-1], images[-2] = (
        images[-1 - CLASSES],
        128,
    )  # one that repeats another of its class; and a blank one
    return images, torch.arange(IMAGES) % CLASSES, ToyBaseline()


def _check_reason(made: Callable[[], Filter]) -> None:
    check_reason(made())


def _check_answer(made: Callable[[], Filter]) -> None:
    images, y, baseline = _inputs()
    with untouched(images, y, *baseline.state_dict().values()):
        keep = made()(images, y, baseline)
    for count in (IMAGES, 1, 0):
        with warnings.catch_warnings():
            if not count:  # PyTorch warns of standard deviations of no image, which nobody asks for
                warnings.simplefilter("ignore")
            keep = made()(images[:count], y[:count], baseline)
        check_mask(keep, count)


def _check_rows(made: Callable[[], Filter]) -> None:
    images, y, baseline = _inputs()
    keeps = made()
    together = keeps(images, y, baseline)
    require(torch.equal(together, keeps(images, y, baseline)), "Its answer is the same the next time.")
    if getattr(keeps, "compares", False):
        first = torch.stack([keeps(images[: i + 1], y[: i + 1], baseline)[-1] for i in range(IMAGES)])
        by_class = torch.empty_like(together)
        for c in range(CLASSES):
            by_class[y == c] = keeps(images[y == c], y[y == c], baseline)
        require(
            torch.equal(together, first) and torch.equal(together, by_class),
            "What it says of an image depends on the images of its class before it, and on no others.",
        )
        return
    alone = torch.cat([keeps(images[i : i + 1], y[i : i + 1], baseline) for i in range(IMAGES)])
    backwards = keeps(images.flip(0), y.flip(0), baseline).flip(0)
    require(
        torch.equal(together, alone) and torch.equal(together, backwards),
        "What it says of an image does not depend on the images beside it.",
    )
