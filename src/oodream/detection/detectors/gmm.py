"""Likelihood under a Gaussian mixture of the features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import RIDGE, BaseDetector, class_means, count_classes, learned

__all__ = ["GMM"]


@register("detectors", "gmm")
@dataclass
class GMM(BaseDetector):
    """Score = -log sum_m pi_m N(z; mu_m, S), a mixture with one shared covariance, fitted by expectation
    maximisation.

    It begins at the class means, one component for each; labels play no other part (scikit-learn's
    `GaussianMixture`, "tied", with at most `iterations` steps).
    """

    reads: ClassVar = ("features", "labels")

    iterations: Annotated[int, Range(1)] = 100
    log_pi_M_: Tensor = learned()
    means_MF_: Tensor = learned()
    whiten_FF_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for a class without samples, or features that hardly vary."""
        z_NF, classes = output.z_BF, output.logits_BC.shape[1]
        means_CF = class_means(z_NF, y_N, count_classes(y_N, classes, self))
        mixture = GaussianMixture(
            classes,
            covariance_type="tied",
            reg_covar=RIDGE * max(z_NF.var(0, correction=0).mean().item(), 1e-12),
            max_iter=self.iterations,
            means_init=means_CF.numpy(),
            random_state=0,
        )
        try:
            mixture.fit(z_NF.numpy())
        except ValueError as error:
            raise ValueError(
                f"GMM: no mixture fits these features, which may vary too little ({error})"
            ) from error
        self.log_pi_M_ = torch.from_numpy(mixture.weights_).log()
        self.whiten_FF_ = torch.from_numpy(mixture.precisions_cholesky_)
        self.means_MF_ = torch.from_numpy(mixture.means_) @ self.whiten_FF_

    def _score(self, output: Output) -> Tensor:
        """In nats."""
        white_NF = output.z_BF @ self.whiten_FF_
        distance_NM = torch.cdist(white_NF, self.means_MF_, compute_mode="donot_use_mm_for_euclid_dist")
        norm = self.whiten_FF_.diagonal().log().sum() - 0.5 * white_NF.shape[1] * math.log(2 * math.pi)
        return -((self.log_pi_M_ - distance_NM.square() / 2).logsumexp(1) + norm)
