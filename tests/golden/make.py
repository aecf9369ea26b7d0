"""Golden values of pytorch-ood 0.4.0: what its detectors and metrics say on one small fixed problem, for tests that lack the peer.

Peer: pytorch-ood 0.4.0 from PyPI, its public classes alone. From the root of the repository, in an environment of the peer's own:

    python3 -m venv peer
    peer/bin/pip install pytorch-ood==0.4.0 torchvision scikit-learn safetensors
    peer/bin/python tests/golden/make.py

It writes `tests/golden/pytorch_ood.safetensors`: `input.*` (float32; images uint8, labels int64), `score.*` (float64, a score a row
of the inputs, higher = OOD), `fit.*` (float64, what a peer has learnt) and `metric.*` (float64 scalars). The file's metadata has the
versions, and as JSON by key in "scores" and "metrics" the peer's class, its options, its input, the arithmetic it ran in, how far
its float32 scores lie from these where they are float64, and a note where its convention is not the paper's.

Features, weights and biases are multiples of a power of two, small enough that the logits are exact in float32 in any order of
summation. So no difference of scores comes from the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
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
    "msp": "The negative of the largest probability itself: saturates at -1.",
    "energy": "-T logsumexp(logits / T): with the factor T.",
    "weighted_energy": "-log sum_c relu(w_c) exp(logit_c), without subtracting the maximum first: logits above 88 overflow in float32.",
    "temperature": "One L-BFGS call of at most 50 iterations at a fixed rate of 0.01, without line search, from T = 1: stops before "
    "the optimum. The T it stops at is fit.temperature.t. Labels below 0 are dropped.",
    "entropy": "Natural logarithm; probabilities are clipped to [1e-7, 1] first.",
    "gen": "Mean, not sum, of p^gamma (1 - p)^gamma over the M largest probabilities (all C without M): the paper's over M; "
    "probabilities are clipped to [1e-7, 1 - 1e-7].",
    "kl_matching": "min_k KL(p || d_k), d_k the mean posterior of fit samples predicted as k (labels unused, but those below 0 dropped).",
    "openmax": "Probability of the unknown class. Centres and tails come from all samples of a class, also wrongly classified ones. "
    "Distances are measured only to classes that are the argmax of some row of the batch; for the others they stay 0, so a score "
    "depends on its batch (here every class is predicted). Distance = euclid_weight * Euclidean + (1 - euclid_weight) * cosine, "
    "unscaled. The Weibull is a scipy fit of the tail moved to start at 10000, which ends before the likelihood's maximum; its shape, "
    "scale and smallest value are fit.openmax.weibull. The rank weights are (alpha + 1 - i) / alpha, i = 1...alpha, and alpha is at most C.",
    "odin": "-max softmax(logits(x - eps sign(gradient of the cross-entropy of the predicted class at T)) / T); eps in the units of "
    "the images, here [0, 1]; the network has no normalisation. At T = 1000 scores lie within 1e-3 of -1 / C: compare score + 1 / C.",
    "mahalanobis": "Half the squared distance under the inverse of the scatter, which is not divided by N, plus 1e-6 I: about the "
    "paper's divided by 2 N.",
    "relative_mahalanobis": "min_k d_k - d_0 without the half; both scatters are undivided, plus 1e-6 I: about the paper's divided by N.",
    "knn": "Euclidean distance to the k-th neighbour of features of unit norm, not squared.",
    "nnguide": "-(mean of the k largest energy_j cos(z, z_j)) energy(z), energy = logsumexp(logits). Ranked after scaling with the energy.",
    "gmm": "Negative log-likelihood of a mixture of a Gaussian a class (covariance divided by n_k, plus reg I; weights n_k / N).",
    "vim": "alpha |residual| - logsumexp(logits); origin -pinv(W) b; covariance about the origin; the residual drops the d leading "
    "directions; alpha = mean of the largest logit / mean residual. float32 throughout. d above F silently becomes F // 2.",
    "react": "Energy of the head on min(z, threshold). A fitted threshold is numpy's percentile over all activations at once.",
    "ash": "n - round(n percentile) activations stay (numpy's round, half to even), of 16 at 0.65: 6. s: times exp(sum before / sum "
    "after); p: as they are; b: each sum before / kept. Then the energy of the head.",
    "scale": "z exp(sum of all / sum of the n - round(n percentile) largest), nothing pruned, then the energy of the head.",
    "dice": "Weights stay whose contribution mean(z) w is above the p-quantile over all C F contributions (strictly above, linear "
    "interpolation); then the energy. float32 fit.",
    "vra": "z clipped to each feature's own lower and upper quantile (linear interpolation, rounded to float32), then the energy. The "
    "paper sets what is below the lower threshold to zero; the peer raises it to the threshold.",
    "she": "-z . mean of the fit features that are rightly classified as the predicted class. No norms.",
    "gradnorm": "-L1 norm of the gradient, with respect to the head's weight alone, of the mean over classes of -log softmax(logits "
    "/ T): -|softmax - 1/C|_1 |z|_1 / T. The authors' code sums over classes and has no 1 / C in it: C times this.",
    "rankfeat": "The energy of the head on the spatial mean of the map minus its leading singular triplet, map as (F, H W), one layer.",
    "fdbd": "-mean over the other C - 1 classes of |logit difference| / |weight difference|, over |z - mean of the fit features|.",
    "nci": "-(z - mean) . w_predicted / |z - mean| - alpha |z|_1: with the norm of w. alpha <= 0 leaves the second term out.",
    "aupr": "Trapezoidal area, not average precision.",
    "fpr95tpr": "OOD is positive: the share of ID at or above the largest threshold that flags at least 95 % of OOD.",
    "autc": "Mean of the areas under FPR and FNR over thresholds on the scores scaled to [0, 1] by their joint minimum and maximum.",
    "oscr": "Trapezoidal area of the rate of correct and accepted ID over accepted OOD; a tie of both is a diagonal.",
    "calibration_error": "Bins of beta samples in the order of confidence, the rest goes to the last; p: 1 mean gap, 2 root of the mean "
    "squared gap, infty the largest.",
    "aurra": "Mean accuracy over answering 1, 2, ..., N samples, the most confident first.",
}  # fmt: skip


class Network(nn.Module):
    """Images (B, 3, 8, 8) in [0, 1] to logits (B, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, F, 3, padding=1)
        self.head = nn.Linear(F, C)

    def features(self, x_B3HW: Tensor) -> Tensor:
        return self.conv2(self.conv1(x_B3HW).relu()).relu().mean((2, 3))

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return self.head(self.features(x_B3HW))


def pooled_head(head: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The head on a map (B, F, H, W)."""
    return lambda map_BFHW: head(map_BFHW.mean((2, 3)))


def dyadic(values: Tensor, bits: int) -> Tensor:
    """Rounded to multiples of 2^-bits."""
    return (values * 2**bits).round() / 2**bits


def maps(mean_NF: Tensor, mix_FF: Tensor, g: torch.Generator) -> Tensor:
    """Non-negative maps (N, F, 4, 4) around the means; a tenth of the channels is dead. Their spatial mean is exact in float32."""
    n = len(mean_NF)
    z_NF = mean_NF + 0.4 * torch.randn(n, F, generator=g) @ mix_FF
    tilt_FHW = torch.linspace(-1, 1, F)[:, None, None] * torch.linspace(-1, 1, SIDE * SIDE).view(SIDE, SIDE)
    map_NFHW = (z_NF[:, :, None, None] * (1 + tilt_FHW) + 0.6 * torch.randn(n, F, SIDE, SIDE, generator=g)).relu()
    return dyadic(map_NFHW * (torch.rand(n, F, generator=g) > 0.1)[:, :, None, None], 6)


def fitted_head(z_NF: Tensor, y_N: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight and bias of a logistic regression, by gradient descent in float64 from a random weight (from zero, its rank is C - 1)."""
    z_NF, weight_CF, bias_C = z_NF.double(), 0.2 * torch.randn(C, F, generator=g).double(), torch.zeros(C, dtype=torch.float64)
    for _ in range(120):
        error_NC = ((z_NF @ weight_CF.T + bias_C).softmax(1) - functional.one_hot(y_N, C)) / len(y_N)
        weight_CF -= 0.3 * (error_NC.T @ z_NF + 5e-3 * weight_CF)
        bias_C -= 0.3 * error_NC.sum(0)
    return dyadic(weight_CF, 8).float(), dyadic(bias_C, 8).float()


def inputs() -> dict[str, Tensor]:
    """The problem, without the prefix `input.`; what it must satisfy so that scores are not a matter of ties is asserted."""
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

    network = {
        f"network.{name}": dyadic(torch.randn(p.shape, generator=g) * ((4 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1), 8)
        for name, p in Network().state_dict().items()
    }
    images = 180 * torch.rand(24, 3, 1, 1, generator=g) + 75 * torch.rand(24, 3, 8, 8, generator=g)
    id = torch.randn(N_ID, generator=g)
    ood = torch.randn(N_OOD, generator=g) + 1.2
    metric_y = torch.cat([torch.arange(N_ID) % C, torch.full((N_OOD,), -1)])
    wrong = torch.rand(N_ID + N_OOD, generator=g) < 0.2
    confidence = torch.rand(N_ID + N_OOD, generator=g) * 0.8 + 0.2

    for values in (z_fit, z):
        kept = values.sort(1, descending=True).values[:, 5:7]
        assert (kept[:, 0] > kept[:, 1]).all(), "a tie where ASH cuts"
    for found, values in ((logits_fit, z_fit), (logits, z)):
        assert torch.equal(found.double(), values.double() @ weight.double().T + bias.double()), "logits are not exact"
    assert set(logits.argmax(1).tolist()) == set(range(C)), "OpenMax needs every class among the predictions"
    assert logits.double().softmax(1).min() > 1e-6, "a probability that peers clip"
    assert (logits_fit.argmax(1) == y_fit).float().mean() > 0.9, "the head is bad"
    return {
        "weight": weight, "bias": bias, "z_fit": z_fit, "y_fit": y_fit, "logits_fit": logits_fit,
        "z": z, "y": y, "logits": logits, "map": map_,
        "energy_weight": torch.tensor([0.5, 1.0, 1.5, 0.25, 2.0]), "energy_weight_signed": torch.tensor([0.5, -1.0, 1.5, 0.0, 2.0]),
        "images": images.to(torch.uint8), **network,
        "metric_scores": dyadic(torch.cat([id, ood]), 2), "metric_y": metric_y,
        "metric_predictions": torch.where(wrong, torch.arange(N_ID + N_OOD).roll(1) % C, torch.arange(N_ID + N_OOD) % C),
        "metric_confidence": confidence,
    }  # fmt: skip


Given = dict[str, Any]


def given(tensors: dict[str, Tensor], dtype: torch.dtype) -> Given:
    """The inputs in an arithmetic, and the modules made of them: head, pooled_head, network."""
    found: Given = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    network, head = Network(), nn.Linear(F, C)
    network.load_state_dict({name: found[f"network.{name}"] for name in network.state_dict()})
    head.load_state_dict({"weight": found["weight"], "bias": found["bias"]})
    for module in (network, head):
        module.requires_grad_(False)
    return found | {"network": network, "head": head, "pooled_head": pooled_head(head)}


def on_logits(peer: type, options: Given, p: Given) -> tuple[Any, Tensor]:
    detector = peer(None, **options).fit_logits(p["logits_fit"], p["y_fit"])
    return detector, detector.predict_logits(p["logits"])


def on_features(peer: type, options: Given, p: Given) -> tuple[Any, Tensor]:
    detector = peer(None, **options).fit_features(p["z_fit"], p["y_fit"])
    return detector, detector.predict_features(p["z"])


def on_pooled_maps(peer: type, options: Given, p: Given) -> tuple[Any, Tensor]:
    detector = peer(None, p["pooled_head"], **options)
    if "threshold" not in options:
        detector.fit_feature_maps(p["z_fit"][:, :, None, None], p["y_fit"])
    return detector, detector.predict_feature_maps(p["z"][:, :, None, None])


def on_maps(peer: type, options: Given, p: Given) -> tuple[Any, Tensor]:
    detector = peer(None, p["pooled_head"], **options)
    return detector, detector.predict_feature_maps(p["map"])


def on_images(peer: type, options: Given, p: Given) -> tuple[Any, Tensor]:
    detector = peer(p["network"], **options)
    return detector, detector.predict(p["images"].to(p["weight"].dtype) / 255)


def on_head_weight(peer: type, options: Given, p: Given) -> tuple[Any, Tensor]:
    detector = peer(p["head"], param_filter=lambda name: name == "weight", **options)
    return detector, detector.predict(p["z"])


WAYS = {
    on_logits: "input.logits, fitted on input.logits_fit and input.y_fit",
    on_features: "input.z, fitted on input.z_fit and input.y_fit",
    on_pooled_maps: "input.z as maps (B, F, 1, 1), fitted on input.z_fit as such: maps and pooled features mean the same",
    on_maps: "input.map, (B, F, 4, 4), whose spatial mean is input.z; the head pools",
    on_images: "input.images / 255, through the network of input.network.*",
    on_head_weight: "input.z, the head as the model, gradients of its weight alone",
}


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One score to store. An option "input.NAME" stands for that input; `learnt` names what to keep of the fitted peer."""

    peer: type
    way: Callable[[type, Given, Given], tuple[Any, Tensor]]
    note: str
    options: Given = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    learnt: Callable[[Any], dict[str, Any]] = lambda detector: {}

    def run(self, tensors: dict[str, Tensor], dtype: torch.dtype) -> tuple[Any, Tensor]:
        """The fitted peer and its scores in float64; the peer computes in `dtype` wherever it does not cast by itself."""
        torch.set_default_dtype(dtype)
        p = given(tensors, dtype)
        options = {name: p[v[6:]] if isinstance(v, str) and v.startswith("input.") else v for name, v in self.options.items()}
        detector, scores = self.way(self.peer, options, p)
        torch.set_default_dtype(torch.float32)
        return detector, scores.detach().double()


def openmax(detector: Any) -> dict[str, Any]:
    fits = [detector._openmax.distributions[c] for c in range(C)]
    return {
        "weibull": torch.tensor([[f.c, f.scale, f.min_val] for f in fits], dtype=torch.float64),
        "centers": torch.stack([torch.tensor(detector._openmax.centers[c]) for c in range(C)]),
    }


HEAD = {"w": "input.weight", "b": "input.bias"}
GOLDEN = {
    "msp": Golden(peer=peers.MaxSoftmax, way=on_logits, note="msp"),
    "msp_t2": Golden(peer=peers.MaxSoftmax, way=on_logits, note="msp", options={"t": 2.0}),
    "max_logit": Golden(peer=peers.MaxLogit, way=on_logits, note=""),
    "energy": Golden(peer=peers.EnergyBased, way=on_logits, note="energy"),
    "energy_t2": Golden(peer=peers.EnergyBased, way=on_logits, note="energy", options={"t": 2.0}),
    "weighted_energy": Golden(
        peer=peers.WeightedEBO, way=on_logits, note="weighted_energy", options={"weights": "input.energy_weight"}
    ),
    "weighted_energy_signed": Golden(
        peer=peers.WeightedEBO, way=on_logits, note="weighted_energy", options={"weights": "input.energy_weight_signed"}
    ),
    "temperature": Golden(peer=peers.TemperatureScaling, way=on_logits, note="temperature", learnt=lambda d: {"t": d.t}),
    "entropy": Golden(peer=peers.Entropy, way=on_logits, note="entropy"),
    "gen": Golden(peer=peers.GEN, way=on_logits, note="gen", options={"gamma": 0.1, "M": None}),
    "gen_top3": Golden(peer=peers.GEN, way=on_logits, note="gen", options={"gamma": 0.5, "M": 3}),
    "kl_matching": Golden(
        peer=peers.KLMatching, way=on_logits, note="kl_matching",
        learnt=lambda d: {"posteriors": torch.stack([d.dists[str(c)] for c in range(C)])},
    ),
    "openmax": Golden(
        peer=peers.OpenMax, way=on_logits, note="openmax", options={"tailsize": 10, "alpha": 3, "euclid_weight": 0.5}, learnt=openmax
    ),
    "openmax_euclid": Golden(
        peer=peers.OpenMax, way=on_logits, note="openmax", options={"tailsize": 20, "alpha": 5, "euclid_weight": 1.0}, learnt=openmax
    ),
    "odin": Golden(peer=peers.ODIN, way=on_images, note="odin", options={"eps": 0.0014, "temperature": 1000.0}),
    "odin_t1": Golden(peer=peers.ODIN, way=on_images, note="odin", options={"eps": 0.02, "temperature": 1.0}),
    "mahalanobis": Golden(peer=peers.Mahalanobis, way=on_features, note="mahalanobis"),
    "relative_mahalanobis": Golden(peer=peers.RMD, way=on_features, note="relative_mahalanobis"),
    "knn": Golden(peer=peers.KNN, way=on_features, note="knn", options={"k": 5, "normalize": True}),
    "knn_raw": Golden(peer=peers.KNN, way=on_features, note="knn", options={"k": 1, "normalize": False}),
    "nnguide": Golden(
        peer=peers.NNGuide, way=on_features, note="nnguide", options={"head": "input.head", "k": 10}, dtype=torch.float32
    ),
    "gmm": Golden(peer=peers.GMM, way=on_features, note="gmm", options={"reg": 1e-6}),
    "vim": Golden(
        peer=peers.ViM, way=on_features, note="vim", options={"d": 6, **HEAD}, dtype=torch.float32,
        learnt=lambda d: {"alpha": d.alpha, "origin": d.u},
    ),
    "react": Golden(peer=peers.ReAct, way=on_pooled_maps, note="react", options={"threshold": 1.5}),
    "react_fitted": Golden(
        peer=peers.ReAct, way=on_pooled_maps, note="react", options={"percentile": 0.9}, learnt=lambda d: {"threshold": d.threshold}
    ),
    **{
        f"ash_{v}": Golden(
            peer=peers.ASH, way=on_pooled_maps, note="ash", options={"variant": f"ash-{v}", "percentile": 0.65}
        )
        for v in "spb"
    },
    "scale": Golden(peer=peers.SCALE, way=on_pooled_maps, note="scale", options={"percentile": 0.65}),
    "scale_85": Golden(peer=peers.SCALE, way=on_pooled_maps, note="scale", options={"percentile": 0.85}),
    **{
        f"dice_{round(100 * p)}": Golden(
            peer=peers.DICE, way=on_features, note="dice", options={"p": p, **HEAD}, dtype=torch.float32,
            learnt=lambda d: {"threshold": d.threshold, "weight": d.masked_w},
        )
        for p in (0.5, 0.9)
    },
    "vra": Golden(
        peer=peers.VRA, way=on_pooled_maps, note="vra", options={"lower_percentile": 0.15, "upper_percentile": 0.9},
        learnt=lambda d: {"lower": d._lower_threshold.flatten(), "upper": d._upper_threshold.flatten()},
    ),
    "she": Golden(peer=peers.SHE, way=on_features, note="she", options={"head": "input.head"}, learnt=lambda d: {"patterns": d.patterns}),
    "gradnorm": Golden(peer=peers.GradNorm, way=on_head_weight, note="gradnorm", options={"temperature": 1.0}),
    "gradnorm_t2": Golden(peer=peers.GradNorm, way=on_head_weight, note="gradnorm", options={"temperature": 2.0}),
    "rankfeat": Golden(peer=peers.RankFeat, way=on_maps, note="rankfeat"),
    "fdbd": Golden(peer=peers.fDBD, way=on_features, note="fdbd", options={"head": "input.head"}, dtype=torch.float32),
    "nci": Golden(peer=peers.NCI, way=on_features, note="nci", options={"head": "input.head", "alpha": 0.0}, dtype=torch.float32),
    "nci_norm": Golden(peer=peers.NCI, way=on_features, note="nci", options={"head": "input.head", "alpha": 0.01}, dtype=torch.float32),
}  # fmt: skip


def measured(t: dict[str, Tensor]) -> dict[str, tuple[float, str, Given]]:
    """Every metric of the peer by key: its value, the note's name, and its options."""
    scores, y, predictions = t["metric_scores"].double(), t["metric_y"], t["metric_predictions"]
    found = metrics.OODMetrics().update(scores, y, predictions).compute()
    known = y >= 0
    confidence, right = t["metric_confidence"][known].double(), (predictions == y)[known]
    return {
        "auroc": (found["AUROC"], "", {}),
        "aupr_in": (found["AUPR-IN"], "aupr", {"positive": "id"}),
        "aupr_out": (found["AUPR-OUT"], "aupr", {"positive": "ood"}),
        "fpr95tpr": (found["FPR95TPR"], "fpr95tpr", {"fpr_at": 0.95}),
        "autc": (found["AUTC"], "autc", {}),
        "accuracy": (found["ACC"], "", {}),
        "oscr": (metrics.oscr_score(scores, predictions, y), "oscr", {}),
        "aurra": (metrics.aurra(confidence, right), "aurra", {}),
        **{
            f"calibration_error_{p}": (metrics.calibration_error(confidence, right, p=p, beta=30), "calibration_error", {"p": p, "beta": 30})
            for p in ("1", "2", "infty")
        },
    }  # fmt: skip


def main() -> None:
    torch.use_deterministic_algorithms(True)
    tensors = inputs()
    stored = {f"input.{name}": t for name, t in tensors.items()}
    about: dict[str, dict[str, Any]] = {}
    for key, golden in GOLDEN.items():
        detector, scores = golden.run(tensors, golden.dtype)
        assert scores.isfinite().all()
        assert scores.unique().numel() > 1
        stored[f"score.{key}"] = scores
        for name, value in golden.learnt(detector).items():
            stored[f"fit.{key}.{name}"] = torch.as_tensor(value).detach().double().contiguous()
        about[f"score.{key}"] = {
            "class": golden.peer.__name__, "options": golden.options, "input": WAYS[golden.way],
            "arithmetic": str(golden.dtype).removeprefix("torch."), "note": NOTES.get(golden.note, ""),
        }  # fmt: skip
        if golden.dtype == torch.float64:
            gap = (golden.run(tensors, torch.float32)[1] - scores).abs().max().item()
            about[f"score.{key}"]["float32_differs_by"] = gap
    measures = measured(tensors)
    stored |= {f"metric.{key}": torch.tensor(value, dtype=torch.float64) for key, (value, _, _) in measures.items()}
    save_file(
        {name: t.contiguous() for name, t in stored.items()}, FILE,
        {
            "peer": "pytorch-ood", "version": version("pytorch-ood"), "torch": version("torch"), "scipy": version("scipy"),
            "scikit-learn": version("scikit-learn"), "scores": json.dumps(about),
            "metrics": json.dumps({f"metric.{k}": {"options": o, "note": NOTES.get(n, "")} for k, (_, n, o) in measures.items()}),
        },
    )  # fmt: skip
    print(
        f"{len(about)} scores and {len(measures)} metrics of pytorch-ood {version('pytorch-ood')}: {FILE.stat().st_size / 1e3:.0f} KB"
    )


if __name__ == "__main__":
    main()
