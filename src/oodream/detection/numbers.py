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
        if self.resamples:
            of_mean = {m: torch.stack([self.resampled[key][m] for key in keys]).mean(0) for m in METRICS}
            return {metric: interval(values) for metric, values in of_mean.items()}
        if len(keys) == 1:
            return {"auroc": delong(self.known_N, self.unknown[keys[0]]).interval}
        return {}
