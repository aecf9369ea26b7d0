"""VOS: virtual outliers from the tails of the classes' Gaussians in feature space, and no image of any."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.types import Count, Fraction, NotNegative
from ...core.registry import register
from ...core.types import Output, Sizes, Step, Terms
from ._virtual import FeatureQueue
from .cross_entropy import cross_entropy
from .energy_logistic import EnergyLogistic

__all__ = ["VOS", "gaussian_tails"]

RIDGE = 1e-3  # of the mean variance, on the covariance's diagonal


@register("losses", "vos")
class VOS(EnergyLogistic):
    """`energy_logistic` with virtual outliers in place of imagined ones (VOS, Du et al. 2022).

    The last `queue` features of every class give its mean, and all of them one covariance. For every class
    of which two have been seen the `select` least likely of `candidates` draws from its Gaussian go through
    the classification head. They come once the share `start` of the training is done; until then the loss is
    the cross-entropy. Outliers of the step, if any, are ignored. The defaults are those of the authors'
    training on CIFAR, but for `queue`, there 1,000, and `weighted`, there true. There the covariance's
    diagonal is raised by 1e-4, here by a thousandth of the mean variance; phi has a slope of a free sign
    there, and here known images and outliers weigh the same.
    """

    outliers = False
    needs_head = True

    def __init__(
        self,
        beta: NotNegative = 0.1,
        weighted: bool = False,
        start: Fraction = 0.4,
        queue: Count = 200,
        candidates: Count = 10_000,
        select: Count = 1,
    ) -> None:
        super().__init__(beta, weighted)
        if select > candidates:
            raise ValueError(f"select is at most the number of candidates, {candidates}, not {select}.")
        self.start, self.candidates, self.select = start, candidates, select
        self.queue = FeatureQueue(queue)

    def build(self, sizes: Sizes) -> None:
        super().build(sizes)
        self.queue.build(sizes.classes, sizes.features)

    def finish(self) -> None:
        """Empties the queue."""
        self.queue.clear()

    def forward(self, step: Step) -> Terms:
        if step.head is None:
            raise ValueError("vos needs the classifier's linear head.")
        self.queue.push(step)
        features = self.queue.by_class()
        if step.progress < self.start or not features:
            ce = cross_entropy(step.id.logits_BC, step)
            nothing = 0 * self.phi(step.id.logits_BC).sum()  # all parameters have gradients in every step
            return Terms(total=ce + nothing, parts={"ce": ce, "energy": nothing})
        virtual_OF = gaussian_tails(features, self.candidates, self.select)
        logits_OC = F.linear(virtual_OF, step.head.weight_CF, step.head.bias_C)
        return super().forward(replace(step, ood=Output(logits_BC=logits_OC, z_BF=virtual_OF)))


def gaussian_tails(features: list[Tensor], candidates: int, select: int) -> Tensor:
    """For each class the `select` least likely of so many draws from its Gaussian: (C * select, F).

    `features` are those of every class (n, F). The Gaussians have one covariance, that of all features around
    the means of their classes. A draw is mean + L e with e standard normal, and its density falls with |e|
    alone. The direction of e does not depend on its length, so that lengths are drawn first, and
    directions for the longest alone: the draws that stay are distributed as if all had been made.
    """
    mean_CF = torch.stack([z.mean(0) for z in features])
    centered_NF = torch.cat([z - z.mean(0) for z in features])
    width = centered_NF.shape[1]
    covariance_FF = centered_NF.T @ centered_NF / len(centered_NF)
    ridge = RIDGE * covariance_FF.diagonal().mean() + torch.finfo(covariance_FF.dtype).tiny
    covariance_FF = covariance_FF + ridge * torch.eye(width, device=covariance_FF.device)
    shape_CS = torch.full((len(features), candidates), width / 2, device=mean_CF.device)
    length_CS = (2 * torch._standard_gamma(shape_CS)).sqrt()
    longest_CO1 = length_CS.topk(select, dim=1).values[:, :, None]
    direction_COF = F.normalize(torch.randn(len(features), select, width, device=mean_CF.device), dim=2)
    step_COF = longest_CO1 * direction_COF @ torch.linalg.cholesky(covariance_FF).T
    return (mean_CF[:, None] + step_COF).flatten(0, 1)
