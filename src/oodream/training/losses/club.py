"""CLUB (Cheng et al. 2020), an upper bound of mutual information, of outliers and ID features; and OAL's use of it as coded."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms

REDUCTIONS = {
    "whole": lambda x: x.flatten(1),
    "channel_mean": lambda x: x.mean(1).flatten(1),
    "column": lambda x: x.mean((1, 2)),  # OAL's: the channel mean's column profile
}


class Gaussian(nn.Module):
    """q(y | x) = N(mu(x), diag exp(logvar(x))), logvar in [-1, 1], as OAL has it."""

    def __init__(self, x: int, y: int, width: int = 256) -> None:
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(x, width), nn.ReLU(), nn.Linear(width, y))
        self.logvar = nn.Sequential(nn.Linear(x, width), nn.ReLU(), nn.Linear(width, y), nn.Tanh())

    def bound(self, x_NX: Tensor, y_NY: Tensor) -> Tensor:
        """mean_i log q(y_i | x_i) - mean_ij log q(y_j | x_i), an upper bound of I(x; y) where q is the true conditional."""
        mu, logvar = self.mu(x_NX), self.logvar(x_NX)
        # mean_j (y_j - mu_i)^2 = (mean y - mu_i)^2 + var y: no N x N table.
        every = (y_NY.mean(0) - mu).square() + y_NY.var(0, unbiased=False)
        return ((every - (y_NY - mu).square()) / (2 * logvar.exp())).sum(1).mean()

    def unlikelihood(self, x_NX: Tensor, y_NY: Tensor) -> Tensor:
        """-mean_i log q(y_i | x_i), in nats."""
        mu, logvar = self.mu(x_NX), self.logvar(x_NX)
        return 0.5 * ((y_NY - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)).sum(1).mean()


class _Club(Loss):
    """What both have in common: x are outliers, their vectors or their latents; y are ID features."""

    outliers = True

    def __init__(self, weight: float = 0.2, of: str = "latents", reduction: str = "whole") -> None:
        super().__init__()
        if of not in ("latents", "vectors") or reduction not in REDUCTIONS:
            raise ValueError(
                f"of is latents or vectors, not {of!r}; reduction is {', '.join(REDUCTIONS)}, not {reduction!r}."
            )
        self.weight, self.of, self.reduction = weight, of, reduction

    def build(self, sizes: Sizes) -> None:
        if self.of == "latents" and sizes.latent is None:
            raise ValueError(
                "club needs latents: --decode.output latents; or, with images, the loss's option `of vectors`."
            )
        x = (
            self._x(torch.zeros(1, *sizes.latent)).shape[1]
            if self.of == "latents" and sizes.latent
            else sizes.text
        )
        self.q = Gaussian(x, sizes.features)

    def _x(self, latents: Tensor) -> Tensor:
        return REDUCTIONS[self.reduction](latents)

    def _steps(
        self, x: Tensor, y: Tensor, rate: float, learning: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The total, the bound, and what q descends at `rate` of the network's own: each is held constant in the other's term."""
        for parameter in self.q.parameters():
            parameter.requires_grad_(False)
        bound = self.q.bound(x, y)
        for parameter in self.q.parameters():
            parameter.requires_grad_(True)
        descended = learning(x, y.detach())
        return self.weight * bound + rate * descended, bound, descended

    def _outliers(self, step: Step) -> tuple[Tensor, Tensor]:
        """x (O, X) and the classes (O,) that the outliers lie around."""
        x = (
            step.vector_OD
            if self.of == "vectors"
            else None
            if step.latent_OFHW is None
            else self._x(step.latent_OFHW)
        )
        if x is None or step.near_O is None:
            raise ValueError(f"club needs outliers as {self.of}.")
        return x, step.near_O


@register("losses", "club")
class Club(_Club):
    """weight * CLUB between an outlier and the ID features of its class, minimised: ID features forget what lies beyond them.

    A pair is an ID image and an outlier sampled around its class. q learns by maximum likelihood, the features by the bound, as
    published: each is held constant in the other's term, so that one optimiser makes two separate steps; `rate` is q's learning
    rate, in units of the network's.
    """

    def __init__(
        self, weight: float = 0.2, of: str = "latents", reduction: str = "whole", rate: float = 0.01
    ) -> None:
        super().__init__(weight, of, reduction)
        self.rate = rate

    def forward(self, step: Step) -> Terms:
        x, near = self._outliers(step)
        same = step.y_B[:, None] == near
        # The i-th image of a class has the i-th outlier of the class; an image whose class has none in this batch stands aside.
        turn = torch.zeros_like(step.y_B)
        for c in step.y_B.unique():
            turn[step.y_B == c] = torch.arange(int((step.y_B == c).sum()), device=turn.device)
        paired = same.any(1)
        order = same.float().argsort(dim=1, descending=True, stable=True)
        partner = order.gather(1, (turn % same.sum(1).clamp(min=1))[:, None])[:, 0]
        x, y = x[partner[paired]], step.id.z_BF[paired]
        if len(y) < 2:
            return Terms(total=step.id.z_BF.sum() * 0, parts={"club": step.id.z_BF.sum() * 0})
        total, club, nll = self._steps(x, y, self.rate, self.q.unlikelihood)
        return Terms(total=total, parts={"club": club, "club_nll": nll})


@register("losses", "club_joint")
class ClubJoint(_Club):
    """OAL as its authors coded it: random pairs, and q descends the bound itself; no likelihood step.

    x and y are independent by construction, so the expected gradient is exactly zero for features and q alike: noise, no
    information. Here to be compared with. q's learning rate is `rate` of the network's, as there (1e-4 of 0.005): the bound is not
    bounded from below, and a faster q follows the noise away until numbers overflow.
    """

    def __init__(
        self, weight: float = 0.2, of: str = "latents", reduction: str = "whole", rate: float = 0.02
    ) -> None:
        super().__init__(weight, of, reduction)
        self.rate = rate

    def forward(self, step: Step) -> Terms:
        x, _ = self._outliers(step)
        x = x[torch.arange(len(step.y_B), device=x.device) % len(x)]
        total, club, _ = self._steps(x, step.id.z_BF, self.weight * self.rate, self.q.bound)
        return Terms(total=total, parts={"club_joint": club})
