"""Sets of known classes that hold the true one of a known image with a stated chance: split conformal
prediction.

A class's nonconformity, in a network's probabilities of an image, never falls from likelier classes to less
likely ones, so a set is the likeliest so many. It is the classes that conform as well as the true classes of
nearly all held-out images do. Nothing is drawn at random: a picture's set is always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import conformal, least, least_alpha
from .tails import Floats

__all__ = ["METHODS", "Standing", "prediction_sets", "set_limit", "softmax", "standing"]

PENALTY, FREE = 0.01, 5  # RAPS's lambda and k_reg


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where N classes, one of each image, stand in the network's probabilities, float64.

    `probability_N` are their own, `above_N` the sum of the probabilities of likelier classes, and `rank_N` is
    how many these are. That is all that any of METHODS needs of a held-out image's true class.
    """

    probability_N: Floats
    above_N: Floats
    rank_N: NDArray[np.int64]


METHODS: dict[str, Callable[[Standing], Floats]] = {
    "lac": lambda s: 1 - s.probability_N,
    "aps": lambda s: s.above_N + s.probability_N / 2,
    "raps": lambda s: METHODS["aps"](s) + PENALTY * np.maximum(s.rank_N + 1 - FREE, 0),
}
"""How little a class conforms, by the name of the method.

lac: the least ambiguous sets (Sadinle et al. 2019, arXiv 1609.00451), the smallest on average. aps: adaptive
sets (Romano et al. 2020, arXiv 2006.02544), larger for difficult images. raps: adaptive and regularised
(Angelopoulos et al. 2021, arXiv 2009.14193, equation 4): unlikely classes cost more, from the sixth on. Of a
class's own probability these papers count a share drawn at random, and here it is one half: coverage holds
for any share, and without one sets are far too large where a network is sure.
"""


def standing(logits_NC: ArrayLike, y_N: ArrayLike) -> Standing:
    """Where the classes `y_N` stand in the softmax of logits (N, C)."""
    order_NC, all_NC = _ranked(logits_NC)
    _, at_N = np.nonzero(order_NC == np.asarray(y_N)[:, None])
    rows_N = np.arange(len(at_N))
    return Standing(
        probability_N=all_NC.probability_N[rows_N, at_N], above_N=all_NC.above_N[rows_N, at_N], rank_N=at_N
    )


def set_limit(held_out: Standing, alpha: float, method: str) -> float:
    """The nonconformity up to which a class is in a set, so that a known image's true class is missing from
    at most the share `alpha` of sets, on average over draws of the held-out images.

    `held_out` says where their true classes stand. Nothing is said of OOD images. Raises ValueError for
    another method, and where the held-out images are too few; it names what they allow.
    """
    if method not in METHODS:
        raise ValueError(f"There are no prediction sets by {method!r}, but by {', '.join(METHODS)}.")
    n = len(held_out.rank_N)
    if 0 < alpha < 1 and n < (needed := least(alpha, None)):
        raise ValueError(
            f"Sets that miss the true class of at most {alpha:.4g} of known images take {needed:,} held-out "
            f"images, and there are {n:,}: these allow {least_alpha(n, None):.3g} and more."
        )
    return conformal(METHODS[method](held_out), alpha)


def prediction_sets(logits_BC: ArrayLike, limit: float, method: str) -> list[NDArray[np.int64]]:
    """For each row of logits the classes of its set, likeliest first, at least one; `limit` is `set_limit`'s
    of the same method.
    """
    order_BC, all_BC = _ranked(logits_BC)
    size_B = np.maximum((METHODS[method](all_BC) <= limit).sum(1), 1)
    return [order_C[:size] for order_C, size in zip(order_BC, size_B.tolist(), strict=True)]


def softmax(logits_BC: ArrayLike) -> Floats:
    """The probabilities (B, C) of logits (B, C), float64."""
    logits_BC = np.asarray(logits_BC, dtype=np.float64)
    exp_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    return np.asarray(exp_BC / exp_BC.sum(1, keepdims=True))


def _ranked(logits_BC: ArrayLike) -> tuple[NDArray[np.int64], Standing]:
    """The classes of each row, likeliest first, and where all of them stand (B, C), in this order."""
    probability_BC = softmax(logits_BC)
    order_BC = np.argsort(-probability_BC, axis=1, kind="stable")
    probability_BC = np.take_along_axis(probability_BC, order_BC, axis=1)
    above_BC = probability_BC.cumsum(1) - probability_BC
    rank_BC = np.broadcast_to(np.arange(probability_BC.shape[1]), order_BC.shape)
    return order_BC, Standing(probability_N=probability_BC, above_N=above_BC, rank_N=rank_BC)
