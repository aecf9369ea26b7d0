"""OAL's mutual-information contrast, made to carry information.

Features are contrasted with the text vectors that their images come from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms

__all__ = ["MICL", "info_nce"]


@register("losses", "micl")
class MICL(Loss):
    """weight * InfoNCE (van den Oord et al. 2018) of features and text vectors, known and unknown together.

    A true pair is a known image and its class's vector T(y), or an outlier and the vector v it was imagined
    from; the negatives of each are all other T and all other v of the batch. log(candidates) minus the loss
    bounds I(feature; vector) from below. So minimising it makes features tell where in the text space an
    image lies, and on which side of the boundary. OAL's own term (`club_joint`) pairs ID features with random
    outliers and has no expected gradient; here the pairs are true. A linear map takes features to the text
    space; it is thrown away after training.
    """

    outliers = True

    def __init__(self, weight: float = 0.03, temperature: float = 0.1) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def build(self, sizes: Sizes) -> None:
        if sizes.text == 0:
            raise ValueError(
                "micl needs the vectors outliers were imagined from, and these outliers have none."
            )
        self.map = nn.Linear(sizes.features, sizes.text)

    def forward(self, step: Step) -> Terms:
        if step.ood is None or step.vector_OD is None or step.tokens_CD is None:
            raise ValueError("micl needs outliers and the vectors they were imagined from.")
        candidates = F.normalize(torch.cat([step.tokens_CD, step.vector_OD]), dim=1)
        of_outliers = len(step.tokens_CD) + torch.arange(len(step.vector_OD), device=step.y_B.device)
        positive = torch.cat([step.y_B, of_outliers])
        similarity = F.normalize(self.map(torch.cat([step.id.z_BF, step.ood.z_BF])), dim=1) @ candidates.T
        micl = info_nce(similarity / self.temperature, positive)
        return Terms(total=self.weight * micl, parts={"micl": micl})


def info_nce(score_BK: Tensor, positive_B: Tensor) -> Tensor:
    """The mean of -log softmax(score)_positive; log(K) minus it bounds the information from below."""
    return F.cross_entropy(score_BK, positive_B)
