"""How well scores separate out-of-distribution (OOD) from in-distribution (ID) data, with intervals.

A score is higher for OOD. Every number follows from how many ID and OOD scores lie on each distinct value
("level") of the pooled scores, so one sort serves all metrics and all bootstrap resamples, and ties are
exact. N ID scores, M OOD scores, K levels (ascending), R resamples. Models and image sets do not appear here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..core import seeding

__all__ = [
    "METRICS",
    "augrc",
    "aupr_in",
    "aupr_out",
    "aupr_trapezoid",
    "aurc",
    "auroc",
    "autc",
    "bootstrap",
    "calibration_error",
    "fpr95_id",
    "fpr95_ood",
    "fpr_at",
    "interval",
    "mean_roc",
    "measure",
    "oscr",
    "roc",
]

METRICS = ("auroc", "aupr_out", "aupr_in", "fpr95_id", "fpr95_ood")
_CELLS = 2**16  # counts held at once by the bootstrap: fits the cache


def measure(id_N: Tensor, ood_M: Tensor, *, fpr95_nearest: bool = False) -> dict[str, float]:
    """All of METRICS by name, each in [0, 1].

    With `fpr95_nearest` both FPR95 are taken where the share is nearest to 95 % (of two as near, the
    greater), as in DREAM-OOD's published code, and not where the share first reaches 95 %.

    Raises ValueError for an empty set or NaN. Infinities rank like any number.
    """
    levels, id_level_N, ood_level_M = _levels(id_N, ood_M)
    id_1K, ood_1K = (level.bincount(minlength=len(levels))[None] for level in (id_level_N, ood_level_M))
    return {
        name: value_1.item()
        for name, value_1 in _from_counts(id_1K, ood_1K, fpr95_nearest=fpr95_nearest).items()
    }


def auroc(id_N: Tensor, ood_M: Tensor) -> float:
    """Chance that an OOD score exceeds an ID score, a tie counting one half (Mann & Whitney 1947).

    Errors as `measure`.
    """
    return measure(id_N, ood_M)["auroc"]


def aupr_out(id_N: Tensor, ood_M: Tensor) -> float:
    """Average precision (sum of recall steps times precision), OOD positive. It depends on M / N.

    Errors as `measure`.
    """
    return measure(id_N, ood_M)["aupr_out"]


def aupr_in(id_N: Tensor, ood_M: Tensor) -> float:
    """Average precision, ID positive (low scores first). It depends on M / N. Errors as `measure`."""
    return measure(id_N, ood_M)["aupr_in"]


def fpr95_id(id_N: Tensor, ood_M: Tensor) -> float:
    """Share of OOD accepted (score <= t) at the smallest t that accepts at least 95 % of ID.

    The convention of ODIN (Liang et al. 2018), VOS and DREAM-OOD. Errors as `measure`.
    """
    return measure(id_N, ood_M)["fpr95_id"]


def fpr95_ood(id_N: Tensor, ood_M: Tensor) -> float:
    """Share of ID flagged (score >= t) at the largest t that flags at least 95 % of OOD.

    The convention of OpenOOD v1.5 and pytorch-ood. Errors as `measure`.
    """
    return measure(id_N, ood_M)["fpr95_ood"]


def fpr_at(id_N: Tensor, ood_M: Tensor, tpr: float, *, positive: str) -> float:
    """The false positive rate at a true positive rate of at least `tpr`, in (0, 1].

    With `positive` "id" it is the share of OOD accepted where `tpr` of ID is; with "ood" the share of ID
    flagged where `tpr` of OOD is. Errors as `measure`, and ValueError for another `tpr` or `positive`.
    """
    if not 0 < tpr <= 1 or positive not in ("id", "ood"):
        raise ValueError(f"tpr lies in (0, 1] and positive is id or ood; they are {tpr} and {positive!r}.")
    _levels(id_N, ood_M)
    hits, others = (id_N, ood_M) if positive == "id" else (-ood_M, -id_N)
    need = math.ceil(round(tpr * len(hits), 9))  # 0.95 * 20 is 19, whatever floats say
    threshold = hits.double().sort().values[need - 1]
    return (others.double() <= threshold).double().mean().item()


def aupr_trapezoid(id_N: Tensor, ood_M: Tensor, *, positive: str) -> float:
    """Area under the precision-recall curve by trapezoids, as OpenOOD and pytorch-ood compute it.

    Linear interpolation between points overstates the area, most for tied scores; `aupr_out` and `aupr_in` do
    not interpolate. Errors as `measure`.
    """
    levels, id_level_N, ood_level_M = _levels(id_N, ood_M)
    id_K, ood_K = (level.bincount(minlength=len(levels)).double() for level in (id_level_N, ood_level_M))
    hit_K, other_K = (id_K, ood_K) if positive == "id" else (ood_K.flip(0), id_K.flip(0))
    hits_K, others_K = hit_K.cumsum(0), other_K.cumsum(0)
    precision = torch.cat([hits_K.new_ones(1), hits_K / (hits_K + others_K)])
    recall = torch.cat([hits_K.new_zeros(1), hits_K / hits_K[-1]])
    return torch.trapezoid(precision, recall).item()


def autc(id_N: Tensor, ood_M: Tensor) -> float:
    """Area under the threshold curve, in [0, 1], lower is better.

    Humblot-Renaux et al. 2023, "Beyond AUROC & co.". With pooled scores scaled to [0, 1] it is the mean, over
    all thresholds, of the false positive and the false negative rate: in closed form (mean ID score + 1 -
    mean OOD score) / 2. Equal scores give 0.5. Unlike the other metrics it depends on the scores' scale.
    Errors as `measure`, and ValueError for infinite scores.
    """
    _levels(id_N, ood_M)
    id_N, ood_M = id_N.double(), ood_M.double()
    low, high = (f(torch.stack([f(id_N), f(ood_M)])) for f in (torch.min, torch.max))
    if not (low.isfinite() and high.isfinite()):
        raise ValueError(
            "Infinite scores fit on no scale from 0 to 1, which the area under the threshold curve needs."
        )
    return 0.5 if low == high else (0.5 * (1 + (id_N.mean() - ood_M.mean()) / (high - low))).item()


def oscr(id_N: Tensor, ood_M: Tensor, right_N: Tensor) -> float:
    """Area under the curve of correctly classified accepted ID against accepted OOD (Dhamija et al. 2018).

    It is the chance that an ID image is classified correctly, `right_N` (bool), and has a lower score than an
    OOD image; ties count one half. It is at most the accuracy and at most the AUROC. Errors as `measure`.
    """
    if not right_N.any():
        _levels(id_N, ood_M)
        return 0.0
    return auroc(id_N[right_N], ood_M) * right_N.double().mean().item()


def aurc(score_N: Tensor, right_N: Tensor) -> float:
    """Area under the risk-coverage curve, in [0, 1], lower is better (Geifman & El-Yaniv 2017).

    Of the n images with the lowest scores a share is not classified correctly, `right_N` (bool); this is its
    mean over n = 1 to N. Tied scores count as the mean over their orders. Errors as `measure`.
    """
    levels_K, level_N, _ = _levels(score_N, score_N)
    level_N, order_N = level_N.sort()
    wrong_K = torch.zeros(len(levels_K), dtype=torch.float64).index_add_(
        0, level_N, (~right_N.cpu()[order_N]).double()
    )
    size_K = level_N.bincount(minlength=len(levels_K))
    before_K, wrong_before_K = size_K.cumsum(0) - size_K, wrong_K.cumsum(0) - wrong_K
    rank_N = torch.arange(1, len(level_N) + 1, dtype=torch.float64)
    share_N = (rank_N - before_K[level_N]) / size_K[level_N]
    return ((wrong_before_K[level_N] + share_N * wrong_K[level_N]) / rank_N).mean().item()


def augrc(score_N: Tensor, right_N: Tensor) -> float:
    """Area under the generalized risk-coverage curve, in [0, 1/2], lower is better (Traub et al. 2024).

    The generalized risk is the share of all images that are accepted and not classified correctly, `right_N`
    (bool): unlike `aurc` it does not count the images with the lowest scores most. In closed form it is
    (1 - AUROC) a (1 - a) + (1 - a)^2 / 2, a the accuracy and AUROC that of wrong images' scores against right
    ones'; ties count one half. Errors as `measure`.
    """
    _levels(score_N, score_N)
    wrong = 1 - right_N.double().mean().item()
    both = 0 < int(right_N.sum()) < len(right_N)
    mixed = (1 - auroc(score_N[right_N], score_N[~right_N])) * wrong * (1 - wrong) if both else 0.0
    return mixed + wrong**2 / 2


def calibration_error(logits_NC: Tensor, y_N: Tensor, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - mean confidence| in bins of equal width.

    The bins' gaps are weighted by how many images fall into them.
    """
    confidence_N, predicted_N = logits_NC.double().softmax(1).max(1)
    bin_N = (confidence_N * bins).ceil().long().clamp(1, bins) - 1
    correct_N = (predicted_N == y_N).double()
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_N, correct_N - confidence_N)
    return (gap.abs().sum() / len(y_N)).item()


def bootstrap(
    id_N: Tensor, ood_M: Tensor, *, seed: int, resamples: int, stream: str = "", fpr95_nearest: bool = False
) -> dict[str, Tensor]:
    """METRICS on each of R resamples: name -> float64 (R,). ID and OOD scores are resampled separately.

    Resample r of the ID scores depends on `seed` alone, that of the OOD scores on `seed` and `stream` (the
    OOD set's name). So a mean over OOD sets, or a difference of detectors, may be taken per resample. Errors
    as `measure`.
    """
    levels, *level_of = _levels(id_N, ood_M)
    generators = [seeding.generator(seed, "bootstrap-id"), seeding.generator(seed, "bootstrap-ood", stream)]
    at_once = max(1, _CELLS // (len(id_N) + len(ood_M)))
    parts = []
    for start in range(0, resamples, at_once):
        r = min(at_once, resamples - start)
        counts = (_draw(level, r, len(levels), g) for level, g in zip(level_of, generators, strict=True))
        parts.append(_from_counts(*counts, fpr95_nearest=fpr95_nearest))
    return {name: torch.cat([part[name] for part in parts]) for name in METRICS}


def interval(values_R: Tensor, n: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval (low, high) of bootstrap values (Efron & Tibshirani 1993, chapter 13).

    Resamples of a share that is 0 or 1 have no width, and so promise certainty. Where they are all 0 or all 1
    and `n` says of how many images the share is, the interval is the exact binomial one instead (Clopper &
    Pearson 1934): from 0 to 1 - 0.025^(1/n), or from 0.025^(1/n) to 1.
    """
    low, high = values_R.quantile(torch.tensor([0.025, 0.975], dtype=values_R.dtype)).tolist()
    if n and low == high and low in (0.0, 1.0):
        end = 0.025 ** (1 / n)
        return (end, 1.0) if low else (0.0, 1 - end)
    return low, high


def roc(id_N: Tensor, ood_M: Tensor, points: int = 200) -> tuple[Tensor, Tensor]:
    """The ROC curve for plotting, OOD positive: (fpr_P, tpr_P) from (0, 0) to (1, 1), at most `points`.

    Points are picked evenly along fpr + tpr, so steep and flat stretches are drawn equally well. Errors as
    `measure`.
    """
    levels, *level_of = _levels(id_N, ood_M)
    counts = (
        level.bincount(minlength=len(levels)).flip(0).cumsum(0).double() / len(level) for level in level_of
    )
    fpr, tpr = (torch.cat([share.new_zeros(1), share]) for share in counts)
    keep = torch.searchsorted(fpr + tpr, torch.linspace(0, 2, points, dtype=torch.float64)).unique()
    return fpr[keep], tpr[keep]


def mean_roc(pairs: Sequence[tuple[Tensor, Tensor]], points: int = 200) -> tuple[Tensor, Tensor]:
    """The mean of several ROC curves, of (ID scores, OOD scores) each: (fpr_P, tpr_P), OOD positive.

    At each false positive rate it is the mean true positive rate (vertical averaging, Fawcett 2006, section
    8), so its area is the mean AUROC but for the `points` that it is drawn with. These lie densest at small
    rates. Errors as `measure`, and ValueError where there is no pair.
    """
    if not pairs:
        raise ValueError("A mean takes one curve at least.")
    fpr_P = np.linspace(0, 1, points) ** 2
    curves = [roc(id_N, ood_M, 20 * points) for id_N, ood_M in pairs]
    tpr_RP = [np.interp(fpr_P, fpr.numpy(), tpr.numpy()) for fpr, tpr in curves]
    return torch.from_numpy(fpr_P), torch.from_numpy(np.mean(tpr_RP, axis=0))


def _levels(id_N: Tensor, ood_M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct pooled scores, ascending, and each ID and OOD score's position among them."""
    for name, scores in (("ID", id_N), ("OOD", ood_M)):
        if not len(scores):
            raise ValueError(f"There are no {name} scores.")
        if scores.isnan().any():
            raise ValueError(f"The {name} scores contain NaN.")
    pooled = torch.cat([scores.detach().cpu().double() for scores in (id_N, ood_M)])
    levels_K, level = pooled.unique(return_inverse=True)
    return levels_K, level[: len(id_N)], level[len(id_N) :]


def _draw(level_N: Tensor, r: int, k: int, generator: torch.Generator) -> Tensor:
    """Counts (r, k) over the levels of r resamples. The draws do not depend on how many are made at once."""
    pick_RN = torch.randint(len(level_N), (r, len(level_N)), generator=generator)
    level_RN = level_N.index_select(0, pick_RN.flatten()).view_as(pick_RN)
    return level_RN.add_(k * torch.arange(r)[:, None]).flatten().bincount(minlength=r * k).view(r, k)


def _from_counts(id_RK: Tensor, ood_RK: Tensor, *, fpr95_nearest: bool) -> dict[str, Tensor]:
    """METRICS of R score sets, given as counts on K ascending levels.

    All is a whole number up to the last division, so ties are exact. Whole numbers are float64 here, which
    holds them exactly; half of the time goes into memory, so what is no longer needed is written over.
    """
    n, m = int(id_RK[0].sum()), int(ood_RK[0].sum())
    id_RK, ood_RK = id_RK.double(), ood_RK.double()
    id_upto_RK, ood_upto_RK = id_RK.cumsum(1), ood_RK.cumsum(1)
    id_below_RK, ood_below_RK = id_upto_RK - id_RK, ood_upto_RK - ood_RK

    if fpr95_nearest:
        # 20 times the distance of each count from 95 %, in whole numbers. Of thresholds that include all
        # scores the first one counts.
        off_id = (20 * id_upto_RK - 19 * n).abs().masked_fill(id_below_RK == n, 20 * n)
        off_ood = (m - 20 * ood_below_RK).abs().masked_fill(ood_upto_RK == 0, 20 * m)
        accept_R1 = id_RK.shape[1] - 1 - off_id.flip(1).argmin(1, keepdim=True)
        flag_R1 = off_ood.argmin(1, keepdim=True)
    else:
        # 95 % as a count, rounded up in integers: 0.95 * n in floats may miss a threshold that reaches it
        # exactly.
        need_n, need_m = ((19 * total + 19) // 20 for total in (n, m))
        accept_R1 = torch.searchsorted(id_upto_RK, id_upto_RK.new_full((len(id_RK), 1), need_n))
        unflagged_R1 = ood_below_RK.new_full((len(id_RK), 1), m - need_m)
        flag_R1 = torch.searchsorted(ood_below_RK, unflagged_R1, right=True) - 1
    fpr95_id_R = ood_upto_RK.gather(1, accept_R1)[:, 0] / m
    fpr95_ood_R = (n - id_below_RK.gather(1, flag_R1)[:, 0]) / n
    auroc_R = (id_upto_RK + id_below_RK).mul_(ood_RK).sum(1) / (2 * n * m)

    def average_precision(hits_RK: Tensor, true_RK: Tensor, all_RK: Tensor) -> Tensor:
        # A level that no resampled score reaches has no precision, and no hits to weigh it with.
        return true_RK.div_(all_RK.clamp_(min=1)).mul_(hits_RK).sum(1)

    ood_from_RK = m - ood_below_RK
    aupr_out_R = average_precision(ood_RK, ood_from_RK, id_below_RK.neg_().add_(n).add_(ood_from_RK)) / m
    aupr_in_R = average_precision(id_RK, id_upto_RK, ood_upto_RK.add_(id_upto_RK)) / n
    return {
        "auroc": auroc_R,
        "aupr_out": aupr_out_R,
        "aupr_in": aupr_in_R,
        "fpr95_id": fpr95_id_R,
        "fpr95_ood": fpr95_ood_R,
    }
