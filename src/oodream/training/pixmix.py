"""Known images mixed with pictures of structure, as PixMix mixes: fractals, which are drawn here and read
from nowhere.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..core.seeding import generator
from ..data.images import Images
from .augment import per_image, vary

__all__ = ["fractals", "gallery", "structured"]

ROUNDS, BETA = 4, 3.0  # andyzoujm/pixmix at ee8af2d: the defaults of k and beta in cifar.py
DARKEST = 1e-37  # below it a value is no base of a negative power (pixmix_utils.py, `multiply`)
STEPS, ESCAPED = 32, 4.0  # of a Julia set: iterations, and the modulus from which on a point never returns
PICTURES, WIDTH = 256, 96  # of the gallery


def structured(known: Images, rows: Tensor, g: torch.Generator) -> Tensor:
    """Each image mixed with a fractal, and in up to three more rounds with the same one or with itself in
    another pose or tone (PixMix, Hendrycks et al. 2022, arXiv 2112.05135).

    A round takes weighted sums or weighted products, and cuts off at black and white; every second image is
    varied before the first one. PixMix trains on such images with their label. Here they are unknown, and so
    none is without a fractal, as one in five at least is there. Poses and tones are those of `augment.vary`.
    """
    images = known.batch(rows)
    B, _, H, W = images.shape
    fractal = gallery()[torch.randint(PICTURES, (B,), generator=g)]
    fractal = interpolate(fractal, (H, W), mode="bilinear", antialias=True)
    none_B = torch.zeros(B, dtype=torch.bool)
    mixed = torch.where(_some(B, g), vary(none_B, 1.0, g)(images), images) / 255
    rounds_B = torch.randint(1, ROUNDS + 1, (B,), generator=g)
    for turn in range(ROUNDS):
        itself = _some(B, g) & (turn > 0)
        other = torch.where(itself, vary(none_B, 1.0, g)(images) / 255, fractal)
        mixed = torch.where(per_image(turn < rounds_B), mix(mixed, other, g), mixed)
    return (mixed * 255).round().to(torch.uint8)


def mix(x_B3HW: Tensor, y_B3HW: Tensor, g: torch.Generator) -> Tensor:
    """Images from 0 to 1 mixed: of each pair, as often, the weighted sum a x + b y about mid-gray, or the
    product x^a y^b in units of mid-gray.

    As often, too, (a, b) are drawn from Beta(3, 1) and Beta(1, 3), or are 1 plus one draw of Beta(1, 3) and
    minus another.
    """
    B = len(x_B3HW)
    large, *small = torch.rand(3, B, 1, 1, 1, generator=g) ** (1 / BETA)
    first, second = (1 - u for u in small)  # Beta(1, n) is 1 - Beta(n, 1), the n-th root of a uniform draw
    between = _some(B, g)
    a, b = torch.where(between, large, 1 + first), torch.where(between, second, -second)
    total = (a * (2 * x_B3HW - 1) + b * (2 * y_B3HW - 1) + 1) / 2
    product = (2 * x_B3HW) ** a * (2 * y_B3HW).clamp(min=DARKEST) ** b / 2
    return torch.where(_some(B, g), total, product).clamp(0, 1)


@cache
def gallery() -> Tensor:
    """256 fractals of 96 pixels, the same ones always, drawn when first asked for."""
    return fractals(PICTURES, WIDTH, generator(0, "fractals"))


def fractals(n: int, width: int, g: torch.Generator) -> Tensor:
    """Square pictures (n, 3, width, width) from 0 to 1 of Julia sets, each of a random place, scale and turn
    in random colours.

    The set of c is where z -> z^2 + c stays bounded. With c near the edge of the Mandelbrot set's cardioid it
    has the most structure. Colours are waves of how soon a point escapes, in fractions of a step.
    """
    turn, angle, zoom, colour = torch.rand(4, n, 1, 1, generator=g)
    on_edge = torch.polar(torch.ones_like(turn), 2 * math.pi * turn)
    c = 1.02 * (on_edge / 2 - on_edge**2 / 4)
    centre = torch.complex(*(torch.rand(2, n, 1, 1, generator=g) - 0.5))
    side = torch.linspace(-1, 1, width)
    plane = torch.complex(*torch.meshgrid(side, side, indexing="xy"))
    z = centre + torch.polar(0.3 + 1.2 * zoom, 2 * math.pi * angle) * plane
    soon = torch.zeros(n, width, width)
    for _ in range(STEPS):
        inside = z.abs() < ESCAPED
        soon += inside
        z = torch.where(inside, z**2 + c, z)
    soon += 1 - z.abs().clamp(min=ESCAPED).log().div(math.log(ESCAPED)).log2()
    phase, waves = torch.rand(2, n, 3, 1, 1, generator=g)
    return 0.5 + 0.5 * torch.cos(2 * math.pi * (phase + (1 + 3 * waves) * (colour + soon / STEPS)[:, None]))


def _some(n: int, g: torch.Generator) -> Tensor:
    return per_image(torch.rand(n, generator=g) < 0.5)
