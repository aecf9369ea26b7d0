"""CLUB (Cheng et al. 2020), an upper bound of the mutual information of outliers and ID features.

`club` is OAL's loss as published, `club_joint` as its authors coded it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms

__all__ = ["REDUCTIONS", "Club", "ClubJoint", "Gaussian"]

REDUCTIONS = {
    "whole": lambda x: x.flatten(1),
    "channel_mean": lambda x: x.mean(1).flatten(1),
    "column": lambda x: x.mean((1, 2)),  # OAL's: the channel mean's column profile
}


class Gaussian(nn.Module):
    """q(y | x) = N(mu(x), diag exp(logvar(x))), logvar in [-1, 1], as OAL has it.

    With `deep` mu begins with two narrow layers, of a half and a quarter of the width of x.
    """

    def __init__(self, x: int, y: int, width: int = 256, deep: bool = False) -> None:
        super().__init__()
        widths = (x, max(1, x // 2), max(1, x // 4), width) if deep else (x, width)
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.mu = nn.Sequential(*layers, nn.Linear(width, y))
        self.logvar = nn.Sequential(nn.Linear(x, width), nn.ReLU(), nn.Linear(width, y), nn.Tanh())

    def bound(self, x_NX: Tensor, y_NY: Tensor) -> Tensor:
        """mean_i log q(y_i | x_i) - mean_ij log q(y_j | x_i), in nats: above I(x; y) for the true q."""
        mu, logvar = self.mu(x_NX), self.logvar(x_NX)
        # mean_j (y_j - mu_i)^2 = (mean y - mu_i)^2 + var y: no N x N table.
        all_pairs = (y_NY.mean(0) - mu).square() + y_NY.var(0, unbiased=False)
        return ((all_pairs - (y_NY - mu).square()) / (2 * logvar.exp())).sum(1).mean()

    def unlikelihood(self, x_NX: Tensor, y_NY: Tensor) -> Tensor:
        """-mean_i log q(y_i | x_i), in nats."""
        mu, logvar = self.mu(x_NX), self.logvar(x_NX)
        return 0.5 * ((y_NY - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)).sum(1).mean()


class _Club(Loss):
    """What both losses share: x are outliers, their vectors or their latents; y are ID features.

    With `deep` q is the published code's for latents (`DEEP_CLUB`), and else that for vectors (`CLUB`).
    """

    name = "club"
    outliers = True

    def __init__(
        self,
        weight: float = 0.2,
        of: str = "latents",
        reduction: str = "whole",
        rate: float = 0.01,
        deep: bool = False,
    ) -> None:
        super().__init__()
        if of not in ("latents", "vectors") or reduction not in REDUCTIONS:
            raise ValueError(
                f"{self.name}: of is latents or vectors, not {of!r}; reduction is {', '.join(REDUCTIONS)}, "
                f"not {reduction!r}."
            )
        self.weight, self.of, self.reduction = weight, of, reduction
        self.rate, self.deep = rate, deep

    def build(self, sizes: Sizes) -> None:
        if self.of == "latents":
            if sizes.latent is None:
                raise ValueError(
                    f"{self.name} needs outliers as latents: --decode.output latents; "
                    "or, with images, the loss's option of=vectors."
                )
            x = self._reduced(torch.zeros(1, *sizes.latent)).shape[1]
        elif (x := sizes.text) == 0:
            raise ValueError(
                f"{self.name} needs the vectors outliers were imagined from, and these outliers have none."
            )
        self.q = Gaussian(x, sizes.features, deep=self.deep)

    def _reduced(self, latents: Tensor) -> Tensor:
        return REDUCTIONS[self.reduction](latents)

    def _outliers(self, step: Step) -> tuple[Tensor, Tensor]:
        """x (O, X) and the classes (O,) that the outliers lie around."""
        x = step.vector_OD if self.of == "vectors" else step.latent_OFHW
        if x is None or step.near_O is None:
            raise ValueError(f"{self.name} needs outliers as {self.of}.")
        return (x if self.of == "vectors" else self._reduced(x)), step.near_O

    def _two_steps(
        self, x: Tensor, y: Tensor, rate: float, q_loss: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The total, the bound, and what q descends at `rate` of the network's own rate.

        Features are constant in q's term, and q is in theirs.
        """
        for parameter in self.q.parameters():
            parameter.requires_grad_(False)
        bound = self.q.bound(x, y)
        for parameter in self.q.parameters():
            parameter.requires_grad_(True)
        descended = q_loss(x, y.detach())
        return self.weight * bound + rate * descended, bound, descended


@register("losses", "club")
class Club(_Club):
    """weight * CLUB between an outlier and the ID features of its class, minimised.

    ID features forget what lies beyond them. A pair is an ID image and an outlier sampled around its class. q
    learns by maximum likelihood, the features by the bound, as published: each is held constant in the
    other's term, so that one optimiser makes two separate steps. `rate` is q's learning rate, in units of the
    network's.
    """

    def forward(self, step: Step) -> Terms:
        x, near_O = self._outliers(step)
        rows, partners = pairs(step.y_B, near_O)
        if len(rows) < 2:
            nothing = step.id.z_BF.sum() * 0
            return Terms(total=nothing, parts={"club": nothing})
        total, club, nll = self._two_steps(x[partners], step.id.z_BF[rows], self.rate, self.q.unlikelihood)
        return Terms(total=total, parts={"club": club, "club_nll": nll})


@register("losses", "club_joint")
class ClubJoint(_Club):
    """OAL as its authors coded it: random pairs, and q descends the bound itself; no likelihood step.

    x and y are independent by construction, so the expected gradient is exactly zero for features and q
    alike: noise, no information. It is here for comparisons. q's learning rate is `rate` of the network's, as
    there (1e-4 of 0.005): the bound is not bounded from below, and a faster q follows the noise away until
    numbers overflow.
    """

    name = "club_joint"

    def __init__(
        self,
        weight: float = 0.2,
        of: str = "latents",
        reduction: str = "whole",
        rate: float = 0.02,
        deep: bool = False,
    ) -> None:
        super().__init__(weight, of, reduction, rate, deep)

    def forward(self, step: Step) -> Terms:
        x, _ = self._outliers(step)
        x = x[torch.arange(len(step.y_B), device=x.device) % len(x)]
        total, club, _ = self._two_steps(x, step.id.z_BF, self.weight * self.rate, self.q.bound)
        return Terms(total=total, parts={"club_joint": club})


def pairs(y_B: Tensor, near_O: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ID images and, for each, the row of an outlier around its class.

    The i-th image of a class has the i-th outlier of the class; where outliers are fewer they take turns.
    Images of a class without an outlier are left out.
    """
    same_BO = y_B[:, None] == near_O
    turn_B = (y_B[:, None] == y_B).tril(-1).sum(1)  # how many images of its class stand before
    rows = same_BO.any(1).nonzero()[:, 0]
    same_BO, turn_B = same_BO[rows], turn_B[rows]
    in_order = same_BO.float().argsort(dim=1, descending=True, stable=True)
    return rows, in_order.gather(1, (turn_B % same_BO.sum(1))[:, None])[:, 0]
