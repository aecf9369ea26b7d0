"""Augmentations after which an image still shows its class: AugMix, RandAugment and AutoAugment.

They are made of Pillow's operations, each of a strength from 0 to 1. What is moved into an image is black.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from ..core.threads import mapped
from .augment import Share

__all__ = ["OPERATIONS", "POLICIES", "Policy", "augmented", "augmix", "autoaugment", "randaugment"]

Operation = Callable[[Image.Image, float], Image.Image]
"""Of an image and a strength, which is negative for the other direction: the image changed."""
Policy = Callable[[Image.Image, Random], Image.Image]
"""Of an image and random numbers: the image augmented."""

# At strength 1: degrees, the slope of a shear, a shift in image widths, and what a factor has beside 1.
ANGLE, SHEAR, SHIFT, ENHANCEMENT = 30.0, 0.3, 150 / 331, 0.9
CHAINS, DEPTH, SEVERITY = 3, 3, 0.3  # AugMix: chains, the longest one's steps, and the greatest strength
STEPS, STRENGTH = 2, 9 / 30  # RandAugment: N = 2, and M = 9 of 30


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _enhanced(by: Callable[..., ImageEnhance._Enhance]) -> Operation:
    return lambda image, s: by(image).enhance(1 + ENHANCEMENT * s)


UNSIGNED: dict[str, Operation] = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "invert": lambda image, s: ImageOps.invert(image),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * s)),
    "solarize": lambda image, s: ImageOps.solarize(image, round(255 * (1 - s))),
}
SIGNED: dict[str, Operation] = {
    "rotate": lambda image, s: image.rotate(ANGLE * s, Image.Resampling.BILINEAR),
    "shear_x": lambda image, s: _affine(image, 1, SHEAR * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: _affine(image, 1, 0, 0, SHEAR * s, 1, 0),
    "translate_x": lambda image, s: _affine(image, 1, 0, round(SHIFT * s * image.width), 0, 1, 0),
    "translate_y": lambda image, s: _affine(image, 1, 0, 0, 0, 1, round(SHIFT * s * image.height)),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}
OPERATIONS = UNSIGNED | SIGNED

AUGMIX = (
    "autocontrast", "equalize", "posterize", "rotate", "solarize", "shear_x", "shear_y", "translate_x",
    "translate_y",
)  # fmt: skip
AUGMIX_STRENGTH = {
    # It begins at four bits, and shifts by up to a third of the image.
    "posterize": lambda s: 1 + s,
    "translate_x": lambda s: s / 3 / SHIFT,
    "translate_y": lambda s: s / 3 / SHIFT,
}
RANDAUGMENT = (*AUGMIX, "identity", "color", "contrast", "brightness", "sharpness")
# The policy for ImageNet: of each step the operation, its probability, and its strength in ninths.
AUTOAUGMENT = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


def augmix(image: Image.Image, random: Random) -> Image.Image:
    """The image mixed with the mean of three chains of one to three operations (AugMix, Hendrycks et al.
    2020, arXiv 1912.02781).

    The weights of the chains are Dirichlet(1, 1, 1), and the image's is uniform. None of the operations is a
    corruption of ImageNet-C's; one of this package's is a rotation.
    """
    weights = [random.expovariate(1) for _ in range(CHAINS)]
    mixed = np.zeros(np.asarray(image).shape)
    for weight in weights:
        chain = image
        for _ in range(random.randint(1, DEPTH)):
            name, s = random.choice(AUGMIX), random.uniform(0.01, SEVERITY)
            chain = _changed(chain, name, AUGMIX_STRENGTH.get(name, lambda s: s)(s), random)
        mixed += weight / sum(weights) * np.asarray(chain)
    own = random.random()
    return Image.fromarray((own * np.asarray(image) + (1 - own) * mixed).round().astype(np.uint8))


def randaugment(image: Image.Image, random: Random) -> Image.Image:
    """The image after two operations of fourteen (RandAugment, Cubuk et al. 2020, arXiv 1909.13719)."""
    for _ in range(STEPS):
        image = _changed(image, random.choice(RANDAUGMENT), STRENGTH, random)
    return image


def autoaugment(image: Image.Image, random: Random) -> Image.Image:
    """The image after one of 25 pairs of operations that were learned on ImageNet (AutoAugment, Cubuk et al.
    2019, arXiv 1805.09501, table 9).

    As in torchvision, colour, contrast and sharpness go up or down alike.
    """
    for name, probability, ninths in random.choice(AUTOAUGMENT):
        if random.random() < probability:
            image = _changed(image, name, ninths / 9, random)
    return image


def _changed(image: Image.Image, name: str, strength: float, random: Random) -> Image.Image:
    sign = random.choice((-1, 1)) if name in SIGNED else 1
    return OPERATIONS[name](image, sign * strength)


def augmented(policy: Policy, images_B3HW: Tensor, g: torch.Generator, share: Share | None = None) -> Tensor:
    """The images, uint8 in and out, each after the policy with random numbers of its own. They are a `share`
    of a batch, or all of it.
    """
    share = share or Share(total=len(images_B3HW))
    seeds_B = share(torch.randint(2**63 - 1, (share.total,), generator=g))

    def changed(item: tuple[Tensor, int]) -> Tensor:
        image_3HW, seed = item
        image = policy(Image.fromarray(image_3HW.permute(1, 2, 0).numpy()), Random(seed))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    images = [*mapped(changed, zip(images_B3HW, seeds_B.tolist(), strict=True))]
    return torch.stack(images) if images else images_B3HW


POLICIES: dict[str, Policy] = {policy.__name__: policy for policy in (augmix, randaugment, autoaugment)}
"""By the names of `train.augmentation` and of `regularize.known_transform`."""
