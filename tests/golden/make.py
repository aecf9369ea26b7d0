"""Golden values of pytorch-ood 0.4.0: what its detectors and metrics say on one small fixed problem, for
tests that lack the peer.

Peer: pytorch-ood 0.4.0 from PyPI, its public classes alone. From the root of the repository, in an
environment of the peer's own:

    python3 -m venv peer
    peer/bin/pip install pytorch-ood==0.4.0 torchvision scikit-learn safetensors
    peer/bin/python tests/golden/make.py

It writes `tests/golden/pytorch_ood.safetensors`: `input.*` (float32; images uint8, labels int64), `score.*`
(float64, one for each row of its input, higher = OOD), `fit.*` (float64, what a peer has learnt) and
`metric.*` (float64 scalars). The file's metadata has versions, and in "scores" and "metrics" JSON by key: the
peer's class, its options, its input, the arithmetic it computed in, the largest distance of its float32
scores from these where they are float64, and a note on its conventions.

Features, weights and biases are multiples of a power of two, small enough that logits and the spatial means
of maps are exact in float32 in any order of summation: no difference of scores comes from the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_ood import detector as peers
from pytorch_ood import metrics
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

FILE = Path(__file__).with_name("pytorch_ood.safetensors")
C, F, SIDE = 5, 16, 4
N_FIT, N, N_FAR = 400, 60, 20
N_ID, N_OOD = 200, 150

NOTES = {
    "msp": "The negative of the largest probability itself, of logits / t; it saturates at -1.",
    "max_logit": "The negative of the largest logit.",
    "energy": "-t logsumexp(logits / t).",
    "weighted_energy": "-log sum_c relu(w_c) exp(logit_c), the maximum not taken out first: logits above 88 "
    "overflow in float32.",
    "temperature": "MSP of logits / T. T: one L-BFGS call of 50 iterations at rate 0.01, without line "
    "search, from T = 1. It stops far from the optimum, at fit.temperature.t. Labels below 0 are dropped.",
    "entropy": "Natural logarithm; probabilities are clipped to [1e-7, 1] first.",
    "gen": "The mean, not the sum, of p^gamma (1 - p)^gamma over the M largest probabilities (over all C "
    "without M): the paper's divided by M. Probabilities are clipped to [1e-7, 1 - 1e-7].",
    "kl_matching": "min_k KL(p || d_k), d_k the mean posterior of the fit samples predicted as k. Labels "
    "only drop those below 0.",
    "openmax": "Probability of the unknown class. Centres and tails are of all samples of a class, wrongly "
    "classified ones too. A distance is measured only to classes that some row of the batch is predicted "
    "as, and is 0 to the others: scores depend on the batch (in this one every class is predicted). "
    "Distance = euclid_weight Euclidean + (1 - euclid_weight) cosine, unscaled. Weibull: two-parameter "
    "maximum likelihood on the tailsize largest distances, moved so that their smallest is 10000 (on "
    "float32 logits this rounds them to steps of 0.001). Its shape and scale and the smallest distance "
    "are fit.openmax*.weibull (C, 3). Weight of rank i: (alpha + 1 - i) / alpha, alpha at most C. Logits, "
    "negative ones too, are scaled by 1 - weight w; unknown gets the sum of what they lose.",
    "odin": "-max softmax(logits(x - eps sign(g)) / temperature), g the gradient of the cross-entropy of the "
    "predicted class at that temperature. eps is in units of the input, here [0, 1]. At temperature 1000 "
    "scores lie within 1e-3 of -1 / C, and the step moves them by 1e-6: compare score + 1 / C.",
    "mahalanobis": "min_k d_k / 2, d_k the squared distance under the scatter within classes, not divided by "
    "N, plus 1e-6 I: about the paper's divided by 2 N.",
    "relative_mahalanobis": "min_k d_k - d_0, without the half. Both scatters are not divided by N, plus "
    "1e-6 I: about the paper's divided by N.",
    "knn": "Euclidean distance, not squared, to the k-th neighbour; features of unit norm where normalize is "
    "true.",
    "nnguide": "-energy(z) times the mean of the k largest energy(z_j) cos(z, z_j), energy = "
    "logsumexp(logits) of the head.",
    "gmm": "Negative log-likelihood under one Gaussian a class: covariance divided by n_k, plus reg I; "
    "weights n_k / N.",
    "vim": "alpha |residual| - logsumexp(logits). Origin -pinv(W) b; second moments about it; the residual "
    "is what the d leading directions leave; alpha = mean largest logit / mean |residual|. d above F "
    "becomes F // 2 with a warning in the log.",
    "react": "Energy of the head on min(z, threshold). Fitted: numpy's percentile over all activations of "
    "all fit samples.",
    "ash": "k = n - round(n percentile) activations stay (round half to even; n = 16 at 0.65: 6). s: times "
    "exp(sum before / sum after); p: as they are; b: each becomes sum before / k. Then the energy of the "
    "head.",
    "scale": "z exp(sum / sum of the n - round(n percentile) largest), nothing pruned; then the energy of "
    "the head.",
    "dice": "Weights stay whose contribution mean(z) w exceeds the p-quantile of all C F contributions "
    "(linear interpolation); then the energy.",
    "vra": "z clipped to each feature's lower and upper quantile (linear interpolation, rounded to float32); "
    "then the energy. What is below the lower quantile is raised to it; the authors' code sets it to "
    "zero.",
    "she": "-z . s_k, s_k the mean of the fit features of the predicted class that were rightly classified. "
    "No norms.",
    "gradnorm": "The negative L1 norm of the gradient of the mean over classes of -log softmax(logits / T), "
    "by the head's weight alone: -|softmax - 1 / C|_1 |z|_1 / T. The authors' code sums over classes: C "
    "times this.",
    "rankfeat": "Energy of the head on the spatial mean of the map, as a matrix (F, H W), less its leading "
    "singular triplet. One layer.",
    "fdbd": "-mean over the other classes of |logit difference| / |weight difference|, divided by |z - mean "
    "of the fit features|.",
    "nci": "-(z - m) . w / |z - m| - alpha |z|_1, w the weight of the predicted class, its norm kept; m the "
    "mean of the fit features.",
    "auroc": "A tie counts one half.",
    "aupr": "The trapezoidal area, not average precision.",
    "fpr95tpr": "OOD is positive: share of ID at or above the largest threshold that flags at least 95 % of "
    "OOD.",
    "autc": "Mean of the areas under FPR and FNR over thresholds; scores are scaled to [0, 1] by the minimum "
    "and maximum of all.",
    "accuracy": "Over labels of 0 and above.",
    "oscr": "Trapezoidal area of the share of ID accepted and right over the share of OOD accepted; accepted "
    "is score <= threshold.",
    "aurra": "Mean over n of the accuracy on the n most confident.",
    "calibration_error": "Bins of beta samples in the order of confidence, the last takes the rest. Gap = "
    "|mean confidence - accuracy|. p: 1 mean gap, 2 root of the mean squared gap, both weighted by size; "
    "infty the largest gap.",
}

Options = dict[str, Any]


class Network(nn.Module):
    """Images (B, 3, 8, 8) in [0, 1] to logits (B, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, F, 3, padding=1)
        self.head = nn.Linear(F, C)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return self.head(self.conv2(self.conv1(x_B3HW).relu()).relu().mean((2, 3)))


def dyadic(values: Tensor, bits: int) -> Tensor:
    """Rounded to multiples of 2^-bits."""
    return (values * 2**bits).round() / 2**bits


def maps(mean_NF: Tensor, mix_FF: Tensor, g: torch.Generator) -> Tensor:
    """Non-negative maps (N, F, 4, 4) around the means, no two channels alike in space; a tenth of the
    channels is dead.
    """
    n = len(mean_NF)
    z_NF = mean_NF + 0.4 * torch.randn(n, F, generator=g) @ mix_FF
    tilt_FHW = torch.linspace(-1, 1, F)[:, None, None] * torch.linspace(-1, 1, SIDE * SIDE).view(SIDE, SIDE)
    map_NFHW = (
        z_NF[:, :, None, None] * (1 + tilt_FHW) + 0.6 * torch.randn(n, F, SIDE, SIDE, generator=g)
    ).relu()
    return dyadic(map_NFHW * (torch.rand(n, F, generator=g) > 0.1)[:, :, None, None], 6)


def fitted_head(z_NF: Tensor, y_N: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight and bias of a logistic regression by gradient descent, from a random weight: from zero its rank
    would be C - 1.
    """
    z_NF, weight_CF, bias_C = (
        z_NF.double(),
        0.2 * torch.randn(C, F, generator=g).double(),
        torch.zeros(C).double(),
    )
    for _ in range(120):
        error_NC = ((z_NF @ weight_CF.T + bias_C).softmax(1) - functional.one_hot(y_N, C)) / len(y_N)
        weight_CF -= 0.3 * (error_NC.T @ z_NF + 5e-3 * weight_CF)
        bias_C -= 0.3 * error_NC.sum(0)
    return dyadic(weight_CF, 8).float(), dyadic(bias_C, 8).float()


def inputs() -> dict[str, Tensor]:
    """The problem, without the prefix `input.`; asserted is what keeps scores from being a matter of ties,
    clipping or rounding.
    """
    g = torch.Generator().manual_seed(0)
    mean_CF = 2.5 * torch.rand(C, F, generator=g)
    mix_FF = torch.eye(F) + 0.3 * torch.randn(F, F, generator=g)
    y_fit, y = torch.arange(N_FIT) % C, torch.arange(N) % C
    y[N - N_FAR :] = -1
    z_fit = maps(mean_CF[y_fit], mix_FF, g).mean((2, 3))
    far = 5 * torch.rand(N_FAR, F, generator=g)
    map_ = maps(torch.cat([mean_CF[y[: N - N_FAR]], far]), mix_FF, g)
    z = map_.mean((2, 3))
    weight, bias = fitted_head(z_fit, y_fit, g)
    logits_fit, logits = z_fit @ weight.T + bias, z @ weight.T + bias

    spread = {p: (4 / t[0].numel()) ** 0.5 if t.ndim > 1 else 0.1 for p, t in Network().state_dict().items()}
    network = {
        p: dyadic(spread[p] * torch.randn(t.shape, generator=g), 8) for p, t in Network().state_dict().items()
    }
    images = 180 * torch.rand(24, 3, 1, 1, generator=g) + 75 * torch.rand(24, 3, 8, 8, generator=g)

    scores = torch.randn(N_ID + N_OOD, generator=g)
    scores[N_ID:] += 1.2
    metric_y = torch.arange(N_ID + N_OOD) % C
    wrong = torch.rand(N_ID + N_OOD, generator=g) < 0.2
    predictions = torch.where(wrong, (metric_y + 1) % C, metric_y)
    metric_y[N_ID:] = -1
    confidence = 0.2 + 0.8 * torch.rand(N_ID + N_OOD, generator=g)

    sixth, seventh = torch.cat([z_fit, z]).sort(1, descending=True).values[:, 5:7].T
    assert (sixth > seventh).all(), "a tie where ASH cuts"
    for found, of in ((logits_fit, z_fit), (logits, z)):
        assert torch.equal(found.double(), of.double() @ weight.double().T + bias.double()), (
            "logits are not exact"
        )
    assert torch.equal(z.double(), map_.double().mean((2, 3))), "means of maps are not exact"
    assert logits.argmax(1).unique().numel() == C, "a class that OpenMax would not measure"
    assert logits.double().softmax(1).min() > 1e-6, "a probability that peers clip"
    assert (logits_fit.argmax(1) == y_fit).float().mean() > 0.9, "a head that is mostly wrong"
    assert confidence.unique().numel() == len(confidence), "a tie of confidences, whose order is arbitrary"
    return {
        "weight": weight, "bias": bias, "z_fit": z_fit, "y_fit": y_fit, "logits_fit": logits_fit,
        "z": z, "y": y, "logits": logits, "map": map_,
        "energy_weight": torch.tensor([0.5, 1.0, 1.5, 0.25, 2.0]),
            "energy_weight_signed": torch.tensor([0.5, -1.0, 1.5, 0.0, 2.0]),
        "images": images.to(torch.uint8), **{f"network.{p}": t for p, t in network.items()},
        "metric_scores": dyadic(scores, 2), "metric_y": metric_y, "metric_predictions": predictions,
        "metric_confidence": confidence,
    }  # fmt: skip


def given(tensors: dict[str, Tensor], dtype: torch.dtype) -> Options:
    """The inputs in an arithmetic, and what is made of them: `head`, the head on maps `pooled_head`, and
    `network`.
    """
    p: Options = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    network, head = Network().to(dtype), nn.Linear(F, C).to(dtype)
    network.load_state_dict({name: p[f"network.{name}"] for name in network.state_dict()})
    head.load_state_dict({"weight": p["weight"], "bias": p["bias"]})
    p |= {"network": network.requires_grad_(False), "head": head.requires_grad_(False)}
    return p | {"pooled_head": lambda map_BFHW: head(map_BFHW.mean((2, 3)))}


def on_logits(peer: type, options: Options, p: Options) -> tuple[Any, Tensor]:
    detector = peer(None, **options).fit_logits(p["logits_fit"], p["y_fit"])
    return detector, detector.predict_logits(p["logits"])


def on_features(peer: type, options: Options, p: Options) -> tuple[Any, Tensor]:
    detector = peer(None, **options).fit_features(p["z_fit"], p["y_fit"])
    return detector, detector.predict_features(p["z"])


def on_pooled(peer: type, options: Options, p: Options) -> tuple[Any, Tensor]:
    detector = peer(None, p["pooled_head"], **options)
    if "threshold" not in options:
        detector.fit_feature_maps(p["z_fit"][:, :, None, None], p["y_fit"])
    return detector, detector.predict_feature_maps(p["z"][:, :, None, None])


def on_maps(peer: type, options: Options, p: Options) -> tuple[Any, Tensor]:
    detector = peer(None, p["pooled_head"], **options)
    return detector, detector.predict_feature_maps(p["map"])


def on_images(peer: type, options: Options, p: Options) -> tuple[Any, Tensor]:
    detector = peer(p["network"], **options)
    return detector, detector.predict(p["images"].to(p["weight"].dtype) / 255)


def on_head(peer: type, options: Options, p: Options) -> tuple[Any, Tensor]:
    detector = peer(p["head"], param_filter=lambda name: name == "weight", **options)
    return detector, detector.predict(p["z"])


WAYS = {
    on_logits: "input.logits; fitted on input.logits_fit and input.y_fit",
    on_features: "input.z; fitted on input.z_fit and input.y_fit",
    on_pooled: "input.z as maps (B, F, 1, 1), so that maps and pooled features mean the same; fitted on "
    "input.z_fit likewise",
    on_maps: "input.map (B, F, 4, 4), whose spatial mean is input.z; the head comes after that mean",
    on_images: "input.images / 255 through the network of input.network.*: twice a padded 3x3 convolution "
    "and relu; mean; linear",
    on_head: "input.z; the head is the model, and gradients are those of its weight",
}


@dataclass(frozen=True)
class Golden:
    """One score to store: a peer, how it is used, its options (text "input.NAME" stands for that input) and
    what it has learnt.
    """

    peer: type
    way: Callable[[type, Options, Options], tuple[Any, Tensor]]
    note: str
    options: Options
    dtype: torch.dtype
    learnt: Callable[[Any], Options]

    def run(self, tensors: dict[str, Tensor], dtype: torch.dtype) -> tuple[Any, Tensor]:
        """The fitted peer and its scores (float64), computed in `dtype` wherever the peer does not choose for
        itself.
        """
        torch.set_default_dtype(dtype)
        p = given(tensors, dtype)
        options = {
            name: p[v[6:]] if isinstance(v, str) and v.startswith("input.") else v
            for name, v in self.options.items()
        }
        detector, scores = self.way(self.peer, options, p)
        torch.set_default_dtype(torch.float32)
        return detector, scores.detach().double()


def golden(
    peer: type, way: Callable[[type, Options, Options], tuple[Any, Tensor]], note: str, *,
    dtype: torch.dtype = torch.float64,
    learnt: Callable[[Any], Options] = lambda detector: {}, **options: Any,
) -> Golden:  # fmt: skip
    return Golden(peer, way, note, options, dtype, learnt)


def tails(detector: Any) -> Options:
    """What an OpenMax has learnt of each class: the Weibull's shape and scale, the least distance of its
    tail; the centre.
    """
    fits, centers = detector._openmax.distributions, detector._openmax.centers
    weibull = [[fits[c].c, fits[c].scale, fits[c].min_val] for c in range(C)]
    return {
        "weibull": torch.tensor(weibull, dtype=torch.float64),
        "centers": torch.stack([torch.tensor(centers[c]) for c in range(C)]),
    }


SINGLE: Options = {"dtype": torch.float32}  # peers that cast to float32, whatever they are given
HEAD = {"w": "input.weight", "b": "input.bias"}
GOLDEN = {
    "msp": golden(peers.MaxSoftmax, on_logits, "msp", t=1.0),
    "msp_t2": golden(peers.MaxSoftmax, on_logits, "msp", t=2.0),
    "max_logit": golden(peers.MaxLogit, on_logits, "max_logit"),
    "energy": golden(peers.EnergyBased, on_logits, "energy", t=1.0),
    "energy_t2": golden(peers.EnergyBased, on_logits, "energy", t=2.0),
    "weighted_energy": golden(peers.WeightedEBO, on_logits, "weighted_energy", weights="input.energy_weight"),
    "weighted_energy_signed": golden(peers.WeightedEBO, on_logits, "weighted_energy",
        weights="input.energy_weight_signed"),
    "temperature": golden(peers.TemperatureScaling, on_logits, "temperature", learnt=lambda d: {"t": d.t}),
    "entropy": golden(peers.Entropy, on_logits, "entropy"),
    "gen": golden(peers.GEN, on_logits, "gen", gamma=0.1, M=None),
    "gen_top3": golden(peers.GEN, on_logits, "gen", gamma=0.5, M=3),
    "kl_matching": golden(
        peers.KLMatching, on_logits, "kl_matching",
        learnt=lambda d: {"posteriors": torch.stack([d.dists[str(c)] for c in range(C)])},
    ),
    "openmax": golden(peers.OpenMax, on_logits, "openmax", tailsize=10, alpha=3, euclid_weight=0.5,
        learnt=tails),
    "openmax_euclid": golden(peers.OpenMax, on_logits, "openmax", tailsize=20, alpha=5, euclid_weight=1.0,
        learnt=tails),
    "odin": golden(peers.ODIN, on_images, "odin", eps=0.0014, temperature=1000.0),
    "odin_t1": golden(peers.ODIN, on_images, "odin", eps=0.02, temperature=1.0),
    "mahalanobis": golden(peers.Mahalanobis, on_features, "mahalanobis"),
    "relative_mahalanobis": golden(peers.RMD, on_features, "relative_mahalanobis"),
    "knn": golden(peers.KNN, on_features, "knn", k=5, normalize=True),
    "knn_raw": golden(peers.KNN, on_features, "knn", k=1, normalize=False),
    "nnguide": golden(peers.NNGuide, on_features, "nnguide", k=10, head="input.head", **SINGLE),
    "gmm": golden(peers.GMM, on_features, "gmm", reg=1e-6),
    "vim": golden(peers.ViM, on_features, "vim", d=6, **HEAD, **SINGLE, learnt=lambda d: {"alpha": d.alpha,
        "origin": d.u}),
    "react": golden(peers.ReAct, on_pooled, "react", threshold=1.5),
    "react_fitted": golden(peers.ReAct, on_pooled, "react", percentile=0.9,
        learnt=lambda d: {"threshold": d.threshold}),
    "ash_s": golden(peers.ASH, on_pooled, "ash", variant="ash-s", percentile=0.65),
    "ash_p": golden(peers.ASH, on_pooled, "ash", variant="ash-p", percentile=0.65),
    "ash_b": golden(peers.ASH, on_pooled, "ash", variant="ash-b", percentile=0.65),
    "scale": golden(peers.SCALE, on_pooled, "scale", percentile=0.65),
    "scale_85": golden(peers.SCALE, on_pooled, "scale", percentile=0.85),
    "dice": golden(peers.DICE, on_features, "dice", p=0.5, **HEAD, **SINGLE,
        learnt=lambda d: {"weight": d.masked_w}),
    "dice_90": golden(peers.DICE, on_features, "dice", p=0.9, **HEAD, **SINGLE,
        learnt=lambda d: {"weight": d.masked_w}),
    "vra": golden(
        peers.VRA, on_pooled, "vra", lower_percentile=0.15, upper_percentile=0.9,
        learnt=lambda d: {"lower": d._lower_threshold.flatten(), "upper": d._upper_threshold.flatten()},
    ),
    "she": golden(peers.SHE, on_features, "she", head="input.head",
        learnt=lambda d: {"patterns": d.patterns}),
    "gradnorm": golden(peers.GradNorm, on_head, "gradnorm", temperature=1.0),
    "gradnorm_t2": golden(peers.GradNorm, on_head, "gradnorm", temperature=2.0),
    "rankfeat": golden(peers.RankFeat, on_maps, "rankfeat"),
    "fdbd": golden(peers.fDBD, on_features, "fdbd", head="input.head", **SINGLE),
    "nci": golden(peers.NCI, on_features, "nci", head="input.head", alpha=0.0, **SINGLE),
    "nci_norm": golden(peers.NCI, on_features, "nci", head="input.head", alpha=0.01, **SINGLE),
}  # fmt: skip


def measured(t: dict[str, Tensor]) -> dict[str, tuple[float, str, Options, str]]:
    """Every metric of the peer by key: its value, the name of its note, its options and its input."""
    scores, y, predictions = t["metric_scores"].double(), t["metric_y"], t["metric_predictions"]
    found = metrics.OODMetrics().update(scores, y, predictions).compute()
    known = y >= 0
    confidence, right = t["metric_confidence"][known].double(), (predictions == y)[known]
    ranked, named = "input.metric_scores, input.metric_y", "input.metric_predictions, input.metric_y"
    sure = (
        "where input.metric_y >= 0: input.metric_confidence, and whether input.metric_predictions is "
        "input.metric_y"
    )
    errors = {p: metrics.calibration_error(confidence, right, p=p, beta=30) for p in ("1", "2", "infty")}
    return {
        "auroc": (found["AUROC"], "auroc", {}, ranked),
        "aupr_in": (found["AUPR-IN"], "aupr", {"positive": "id"}, ranked),
        "aupr_out": (found["AUPR-OUT"], "aupr", {"positive": "ood"}, ranked),
        "fpr95tpr": (found["FPR95TPR"], "fpr95tpr", {"fpr_at": 0.95}, ranked),
        "autc": (found["AUTC"], "autc", {}, ranked),
        "accuracy": (found["ACC"], "accuracy", {}, named),
        "oscr": (metrics.oscr_score(scores, predictions, y), "oscr", {}, f"input.metric_scores, {named}"),
        "aurra": (metrics.aurra(confidence, right), "aurra", {}, sure),
        **{
            f"calibration_error_{p}": (e, "calibration_error", {"p": p, "beta": 30}, sure)
            for p, e in errors.items()
        },
    }


def main() -> None:
    torch.use_deterministic_algorithms(True)
    tensors = inputs()
    stored = {f"input.{name}": t for name, t in tensors.items()}
    about: dict[str, Options] = {}
    for key, one in GOLDEN.items():
        detector, scores = one.run(tensors, one.dtype)
        assert scores.isfinite().all(), key
        assert scores.unique().numel() > 1, key
        stored[f"score.{key}"] = scores
        stored |= {
            f"fit.{key}.{name}": torch.as_tensor(v, dtype=torch.float64).detach()
            for name, v in one.learnt(detector).items()
        }
        about[f"score.{key}"] = {
            "class": one.peer.__name__, "options": one.options, "input": WAYS[one.way],
            "arithmetic": str(one.dtype).removeprefix("torch."), "note": NOTES[one.note],
        }  # fmt: skip
        if one.dtype == torch.float64:
            about[f"score.{key}"]["float32_differs_by"] = (
                (one.run(tensors, torch.float32)[1] - scores).abs().max().item()
            )
    measures = measured(tensors)
    stored |= {
        f"metric.{key}": torch.tensor(value, dtype=torch.float64) for key, (value, *_) in measures.items()
    }
    measures_about = {
        f"metric.{key}": {"options": o, "input": i, "note": NOTES[n]}
        for key, (_, n, o, i) in measures.items()
    }
    versions = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}
    metadata = {
        "peer": "pytorch-ood", "version": version("pytorch-ood"), **versions,
        "scores": json.dumps(about), "metrics": json.dumps(measures_about),
    }  # fmt: skip
    save_file({name: t.contiguous() for name, t in stored.items()}, FILE, metadata)
    print(
        f"{len(about)} scores and {len(measures)} metrics of pytorch-ood {metadata['version']}, "
        f"{FILE.stat().st_size / 1e3:.0f} KB"
    )


if __name__ == "__main__":
    main()
