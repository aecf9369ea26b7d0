"""Likelihood under a Gaussian mixture of the features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import RIDGE, NotFitted, checked, class_means, every_class, fitted


@register("detectors", "gmm")
@dataclass
class GMM:
    """Score = -log sum_m pi_m N(z; mu_m, S), a mixture with one shared covariance, fitted by expectation maximisation.

    It begins at the class means, one component for each; labels play no other part (scikit-learn's `GaussianMixture`, "tied").
    """

    iterations: int = 100
    log_pi_M_: Tensor | None = fitted()
    means_MF_: Tensor | None = fitted()
    whiten_FF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> GMM:
        """Fits the mixture; ValueError for NaN or a class without samples."""
        z_NF, classes = checked(output.z_BF, "features"), output.logits_BC.shape[1]
        means_CF = class_means(z_NF, y_N, every_class(y_N, classes, self))
        ridge = RIDGE * max(z_NF.var(0, correction=0).mean().item(), 1e-12)
        mixture = GaussianMixture(
            classes,
            covariance_type="tied",
            reg_covar=ridge,
            max_iter=self.iterations,
            means_init=means_CF.numpy(),
            random_state=0,
        ).fit(z_NF.numpy())
        self.log_pi_M_ = torch.from_numpy(mixture.weights_).log()
        self.whiten_FF_ = torch.from_numpy(mixture.precisions_cholesky_)
        self.means_MF_ = torch.from_numpy(mixture.means_) @ self.whiten_FF_
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in nats, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.log_pi_M_ is None or self.means_MF_ is None or self.whiten_FF_ is None:
            raise NotFitted(self)
        white_NF = checked(output.z_BF, "features") @ self.whiten_FF_
        distance_NM = torch.cdist(
            white_NF, self.means_MF_, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        norm = self.whiten_FF_.diagonal().log().sum() - 0.5 * white_NF.shape[1] * math.log(2 * math.pi)
        return -((self.log_pi_M_ - distance_NM / 2).logsumexp(1) + norm)
