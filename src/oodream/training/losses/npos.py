"""NPOS: virtual outliers beside the features at the edge of their class, without any Gaussian of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config.types import Count, Fraction, NotNegative, Positive
from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms
from ...functional.knn import kth_distance
from ._virtual import FeatureQueue
from .cross_entropy import cross_entropy

__all__ = ["NPOS", "beyond_boundary"]


@register("losses", "npos")
class NPOS(Loss):
    """CE + beta * E[-log sigmoid(+-g(z))], + for known images, - for virtual outliers (Tao et al. 2023).

    All features z are scaled to unit norm, and g is a small network of the loss. Of the last `queue` features
    of a class (if it has two) the `boundary` ones are taken whose `k`-th neighbour in the class is farthest.
    Each is moved by `candidates` draws from a Gaussian of standard deviation `sigma`, and the `select` copies
    stay whose k-th neighbour is farthest. They come once the share `start` of the training is done;
    until then the loss is the cross-entropy. Outliers of the step, if any, are ignored.

    It differs from the paper so: the classes are learnt by cross-entropy on the logits, where the paper
    contrasts features with prototypes; candidates have unit norm again, for by their length alone they would
    be told from features; known images and outliers weigh the same. The published code mixes up the
    candidates of different boundary points when it selects; here each point keeps its own. `sigma` is the
    code's for CIFAR, where features have the length that they have; the numbers are smaller than there, so
    that a step on a processor does not take twice its time.
    """

    def __init__(
        self,
        beta: NotNegative = 0.1,
        start: Fraction = 0.4,
        queue: Count = 200,
        k: Count = 50,
        boundary: Count = 5,
        sigma: Positive = 0.1,
        candidates: Count = 50,
        select: Count = 1,
    ) -> None:
        super().__init__()
        if select > candidates:
            raise ValueError(f"select is at most the number of candidates, {candidates}, not {select}.")
        self.beta, self.start, self.k, self.boundary = beta, start, k, boundary
        self.sigma, self.candidates, self.select = sigma, candidates, select
        self.queue = FeatureQueue(queue)

    def build(self, sizes: Sizes) -> None:
        """Makes the queue and g."""
        self.queue.build(sizes.classes, sizes.features)
        self.known = nn.Sequential(
            nn.Linear(sizes.features, sizes.features), nn.ReLU(), nn.Linear(sizes.features, 1)
        )

    def finish(self) -> None:
        """Empties the queue."""
        self.queue.clear()

    def forward(self, step: Step) -> Terms:
        self.queue.push(step)
        ce = cross_entropy(step.id.logits_BC, step)
        of_known_B = self.known(F.normalize(step.id.z_BF, dim=1))[:, 0]
        features = self.queue.by_class()
        if step.progress < self.start or not features:
            nothing = 0 * of_known_B.sum()  # all parameters have gradients in every step
            return Terms(total=ce + nothing, parts={"ce": ce, "npos": nothing})
        noise_SF = self.sigma * torch.randn(self.candidates, features[0].shape[1], device=ce.device)
        virtual_OF = torch.cat(
            [
                beyond_boundary(F.normalize(z, dim=1), self.k, self.boundary, noise_SF, self.select)
                for z in features
            ]
        )
        of_virtual_O = self.known(virtual_OF)[:, 0]
        npos = 0.5 * (F.softplus(-of_known_B).mean() + F.softplus(of_virtual_O).mean())
        return Terms(total=ce + self.beta * npos, parts={"ce": ce, "npos": npos})


def beyond_boundary(z_NF: Tensor, k: int, boundary: int, noise_SF: Tensor, select: int) -> Tensor:
    """Unit vectors beside the edge of a class of N unit features: (min(boundary, N) * select, F).

    The edge is where the distance to the k-th nearest other feature is largest (the farthest, where N - 1 is
    below k). Each point there is moved by each row of the noise, scaled to unit norm again, and `select` of
    its copies stay: those with the largest distance to the k-th nearest feature.
    """
    k = min(k, len(z_NF) - 1)
    rows = torch.arange(len(z_NF), device=z_NF.device)
    edge_PF = z_NF[kth_distance(z_NF, z_NF, k, self_Q=rows).topk(min(boundary, len(z_NF))).indices]
    candidate_PSF = F.normalize(edge_PF[:, None] + noise_SF, dim=2)
    distance_PS = kth_distance(candidate_PSF.flatten(0, 1), z_NF, k).view(len(edge_PF), len(noise_SF))
    chosen_PO = distance_PS.topk(select, dim=1).indices
    return candidate_PSF.gather(1, chosen_PO[:, :, None].expand(-1, -1, z_NF.shape[1])).flatten(0, 1)
