"""The metrics of one detector's scores, with intervals, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..core.results import Row
from ..functional.metrics import METRICS, augrc, aurc, auroc, autc, bootstrap, interval, measure, oscr
from ..functional.uncertainty import delong

__all__ = ["Numbers"]

MEANS = {"near": ("near",), "far": ("far",), "all": ("near", "far")}
POINT_METRICS = (*METRICS, "autc", "oscr")


class Numbers:
    """What one detector's scores say: of each OOD set the metrics, and their values on each resample."""

    def __init__(
        self,
        known_N: Tensor,
        unknown: Mapping[str, Tensor],
        right_N: Tensor,
        seed: int,
        resamples: int,
        nearest: bool,
    ) -> None:
        self.known_N, self.unknown, self.resamples = known_N, unknown, resamples
        both_kinds = 0 < int(right_N.sum()) < len(right_N)
        self.of_wrong_answers: dict[str, Any] = {
            "misclassification_auroc": auroc(known_N[right_N], known_N[~right_N]) if both_kinds else None,
            "aurc": aurc(known_N, right_N),
            "augrc": augrc(known_N, right_N),
        }
        self.point = {
            key: {
                **measure(known_N, scores_M, fpr95_nearest=nearest),
                "autc": autc(known_N, scores_M),
                "oscr": oscr(known_N, scores_M, right_N),
            }
            for key, scores_M in unknown.items()
        }
        self.resampled = {
            key: bootstrap(
                known_N, scores_M, seed=seed, resamples=resamples, stream=key, fpr95_nearest=nearest
            )
            for key, scores_M in unknown.items()
            if resamples
        }

    def rows(
        self, groups: Mapping[str, str], facts: dict[str, Any], accuracy_interval: tuple[float, float]
    ) -> Iterator[Row]:
        """A row per set, then one per mean that has members."""
        members = {(name, group): [name] for name, group in groups.items()}
        for mean, parts in MEANS.items():
            members["mean", mean] = [name for name, group in groups.items() if group in parts]
        for (dataset, group), keys in members.items():
            if not keys:
                continue
            values: dict[str, Any] = {m: fmean(self.point[key][m] for key in keys) for m in POINT_METRICS}
            yield Row(
                dataset=dataset,
                group=group,
                n_ood=sum(len(self.unknown[key]) for key in keys),
                intervals=self._intervals(keys) | {"accuracy": accuracy_interval},
                **self.of_wrong_answers,
                **values,
                **facts,
            )

    def _intervals(self, keys: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Intervals of the mean over sets. Shares of 0 and 1 have an exact one (see `interval`): a share of
        known images is one of N images, and a mean of K shares of unknown images is as certain at least as
        one of K times the fewest of a set. An AUROC of 1 has the mean of DeLong's.
        """
        if self.resamples:
            fewest = min(len(self.unknown[key]) for key in keys)
            n = {"fpr95_id": len(keys) * fewest, "fpr95_ood": len(self.known_N)}
            of_mean = {m: torch.stack([self.resampled[key][m] for key in keys]).mean(0) for m in METRICS}
            result = {metric: interval(values, n.get(metric, 0)) for metric, values in of_mean.items()}
            if result["auroc"] in ((0.0, 0.0), (1.0, 1.0)) and min(len(self.known_N), fewest) > 1:
                areas = [delong(self.known_N, self.unknown[key]).interval for key in keys]
                result["auroc"] = (fmean(low for low, _ in areas), fmean(high for _, high in areas))
            return result
        if len(keys) == 1:
            return {"auroc": delong(self.known_N, self.unknown[keys[0]]).interval}
        return {}
