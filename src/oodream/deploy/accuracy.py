"""How often a network names known images rightly, and where it seldom does, what that looks like: classes in
another order than the network's, pixels normalised in another way, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, binomtest
from torch import Tensor

from ..models.published import Triple
from ..runtime.tails import wilson

__all__ = ["NORMALISATIONS", "Accuracy", "best_order", "measure_accuracy", "other_normalisations"]

NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "ImageNet's (--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225)": (
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    ),
    "from -1 to 1 (--mean 0.5 --std 0.5)": ((0.5,) * 3, (0.5,) * 3),
    "from 0 to 1 (--mean 0 --std 1)": ((0.0,) * 3, (1.0,) * 3),
    "from 0 to 255 (--mean 0 --std 0.00392156862745098)": ((0.0,) * 3, (1 / 255,) * 3),
}
"""How networks usually want their pixels: mean and std for pixels in [0, 1]."""
BY_CHANCE = 0.001  # p-value of a difference that is taken for none
UNSURE = 0.05  # p-value of two classes' exchange, above which nothing says which is which


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The share `value` of `n` known images that a network of `classes` classes names rightly, with its 95 %
    `interval`.

    `order` is another order of the classes (class c is output `order[c]`), in which it is `reordered`; empty
    where none is better beyond chance. In that order the classes `unsure` could as well change places with
    one another.
    `normalisations` are other ways to normalise pixels that are better, and the accuracy with each.
    """

    hits: int
    n: int
    classes: int
    order: tuple[int, ...] = ()
    reordered: float = 0.0
    unsure: tuple[int, ...] = ()
    normalisations: Mapping[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.n)

    @property
    def at_chance(self) -> bool:
        """Whether somebody who guesses could be as good."""
        return bool(binomtest(self.hits, self.n, 1 / self.classes, alternative="greater").pvalue > 0.01)


def measure_accuracy(
    found: tuple[Tensor, Tensor], logits_NC: Tensor, y_N: Tensor, likely: Sequence[tuple[int, ...]] = ()
) -> Accuracy:
    """The accuracy on N images. Another order of the classes is one of the `likely` ones, tried on all
    images, or one that is sought on those of `found`, logits and labels, and is better than these on the N.
    """
    classes = logits_NC.shape[1]
    given = tuple(range(classes))
    answer_A = torch.cat([found[0], logits_NC]).argmax(1)
    y_A = torch.cat([found[1], y_N])

    def right_A(order: tuple[int, ...]) -> Tensor:
        return answer_A == torch.tensor(order)[y_A]

    best = given
    for order in likely:
        if better(right_A(order), right_A(best)):
            best = order
    tried, sought = slice(-len(y_N), None), best_order(*found)
    if better(right_A(sought)[tried], right_A(best)[tried]):
        best = sought
    plain = Accuracy(hits=int(right_A(given)[tried].sum()), n=len(y_N), classes=classes)
    if best == given:
        return plain
    share, unsure = float(right_A(best)[tried].double().mean()), exchangeable(best, answer_A, y_A)
    return replace(plain, order=best, reordered=share, unsure=unsure)


def exchangeable(order: tuple[int, ...], answer_A: Tensor, y_A: Tensor) -> tuple[int, ...]:
    """The classes that could change places in an order with another class, as far as A answers tell: the
    exchange would make no fewer answers right beyond `UNSURE` (McNemar's exact test).
    """
    classes = len(order)
    count_CC = torch.bincount(y_A * classes + answer_A, minlength=classes**2).view(classes, classes)
    by_CC = count_CC[:, list(order)]  # answers by the class that they are in this order
    right_C = by_CC.diagonal()
    won_CC, lost_CC = right_C[:, None] + right_C, by_CC + by_CC.T
    alike_CC = torch.from_numpy(binom.cdf(lost_CC.numpy(), (won_CC + lost_CC).numpy(), 0.5)) >= UNSURE
    return tuple(alike_CC.fill_diagonal_(False).any(1).nonzero()[:, 0].tolist())


def best_order(logits_MC: Tensor, y_M: Tensor) -> tuple[int, ...]:
    """The order by which most of M images are named rightly (Kuhn 1955): class c is output `order[c]`."""
    classes = logits_MC.shape[1]
    pairs_M = y_M * classes + logits_MC.argmax(1)
    count_CC = torch.bincount(pairs_M, minlength=classes**2).view(classes, classes)
    # Of equally good orders the one that leaves most classes where they are.
    cost_CC = -(count_CC.double() + 0.5 * torch.eye(classes, dtype=torch.float64) / classes)
    return tuple(linear_sum_assignment(cost_CC.numpy())[1].tolist())


def other_normalisations(
    logits_with: Callable[[Triple, Triple], Tensor], y_N: Tensor, present_NC: Tensor
) -> dict[str, float]:
    """The usual normalisations with which more of N images are named rightly than with the present one,
    beyond chance; and the accuracy with each, best first.

    `logits_with(mean, std)` are logits (N, C) for the images, normalised so; `present_NC` those as it is.
    """
    right_N = present_NC.argmax(1) == y_N
    tried = {name: logits_with(mean, std).argmax(1) == y_N for name, (mean, std) in NORMALISATIONS.items()}
    accuracy = {name: float(r.double().mean()) for name, r in tried.items() if better(r, right_N)}
    return dict(sorted(accuracy.items(), key=lambda item: -item[1]))


def better(right_N: Tensor, than_N: Tensor) -> bool:
    """Whether one series of answers has more right ones than another to the same N questions, beyond chance
    (McNemar's exact test).
    """
    won, lost = int((right_N & ~than_N).sum()), int((than_N & ~right_N).sum())
    return won > lost and bool(binomtest(lost, won + lost, alternative="less").pvalue < BY_CHANCE)
