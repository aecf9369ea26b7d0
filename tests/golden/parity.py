"""Our detectors and metrics beside pytorch-ood 0.4.0's golden values, on the same tensors.

Run as a script it prints the table in `docs/detectors.md`.

A case turns the peer's convention into ours (`ours`), so that what is left is arithmetic. `remark` says what
was turned, or, where the two do not mean the same thing, what the peer does instead; such a case compares the
part that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oodream.core import registry
from oodream.core.types import ForwardPass, Head, Output
from oodream.data.images import from_array
from oodream.detection.detectors import probes_of, restore
from oodream.functional.metrics import aupr_trapezoid, auroc, autc, fpr95_ood, oscr
from oodream.models.inference import Extractor

GOLDEN = load_file(Path(__file__).with_name("pytorch_ood.safetensors"))
IN = {key.removeprefix("input."): value for key, value in GOLDEN.items() if key.startswith("input.")}
N_FIT, CLASSES = IN["logits_fit"].shape


@dataclass(frozen=True)
class Case:
    """A detector with options, the peer's key, what makes the peer's scores ours, and what may differ."""

    name: str
    peer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    turned: Callable[[Tensor], Tensor] = lambda s: s
    tolerance: float = 1e-12
    remark: str = ""
    learned: Callable[[], dict[str, Tensor]] | None = None


def _log_unsure(negative_p: Tensor) -> Tensor:
    return torch.log1p(negative_p)


def _openmax() -> dict[str, Tensor]:
    shape_C, scale_C, least_C = GOLDEN["fit.openmax_euclid.weibull"].T
    return {
        "means_CC_": GOLDEN["fit.openmax_euclid.centers"],
        "shape_C_": shape_C,
        "scale_C_": scale_C,
        "least_C_": least_C,
    }


CASES = [
    Case("msp", "msp", turned=_log_unsure, remark="ours is log(1 - p), which does not saturate"),
    Case("max_logit", "max_logit"),
    Case("energy", "energy"),
    Case("weighted_energy", "weighted_energy", remark="the peer overflows above logits of 88"),
    Case("temperature", "temperature", turned=_log_unsure,
         learned=lambda: {"t_": GOLDEN["fit.temperature.t"]},
         remark="at the peer's T: its search stops at 0.75, the likelihood's maximum, which ours finds, is "
         "at 0.54"),
    Case("entropy", "entropy"),
    Case("gen", "gen", {"gamma": 0.1}, lambda s: s * CLASSES, remark="the paper's sum; the peer's is a mean"),
    Case("gen", "gen_top3", {"gamma": 0.5, "m": 3}, lambda s: s * 3,
         remark="the paper's sum; the peer's is a mean"),
    Case("kl_matching", "kl_matching"),
    Case("openmax", "openmax_euclid", {"tail": 20, "alpha": 5}, lambda s: s.logit(), 1e-9, learned=_openmax,
         remark="with the peer's fit, which also counts wrongly classified samples; ours is log odds. The "
         "peer depends on the batch: up to 0.54 when rows are scored alone"),
    Case("odin", "odin", {"temperature": 1000.0, "epsilon": 0.0014}, _log_unsure, 1e-5,
         "ours is log(1 - p), from float32 pixels"),
    Case("odin", "odin_t1", {"temperature": 1.0, "epsilon": 0.02}, _log_unsure, 1e-5,
         "ours is log(1 - p), from float32 pixels"),
    Case("mahalanobis", "mahalanobis", turned=lambda s: s * 2 * N_FIT, tolerance=1e-4,
         remark="the peer halves, and does not divide its covariance by N; ridges differ"),
    Case("relative_mahalanobis", "relative_mahalanobis", turned=lambda s: s * N_FIT, tolerance=1e-4,
         remark="the peer does not divide its covariances by N; ridges differ"),
    Case("knn", "knn", {"k": 5}, tolerance=1e-5, remark="distances in float32"),
    Case("nnguide", "nnguide", {"k": 10}, tolerance=1e-5, remark="the peer computes in float32"),
    Case("vim", "vim", {"dim": 6}, tolerance=1e-4,
         remark="the peer computes in float32; with d = F it returns NaN, ours refuses"),
    Case("react", "react_fitted", {"percentile": 0.9}),
    Case("ash", "ash_s", {"variant": "s", "percentile": 0.65}, remark="on pooled features"),
    Case("ash", "ash_p", {"variant": "p", "percentile": 0.65}, remark="on pooled features"),
    Case("ash", "ash_b", {"variant": "b", "percentile": 0.65}, remark="on pooled features"),
    Case("scale", "scale", {"percentile": 0.65}, remark="on pooled features"),
    Case("scale", "scale_85", {"percentile": 0.85}, remark="on pooled features"),
    Case("dice", "dice", {"percentile": 0.5}, tolerance=1e-5, remark="the peer computes in float32"),
    Case("dice", "dice_90", {"percentile": 0.9}, tolerance=1e-5, remark="the peer computes in float32"),
    Case("she", "she"),
    Case("gradnorm", "gradnorm", remark="the peer takes a gradient for every image"),
    Case("rankfeat", "rankfeat"),
    Case("fdbd", "fdbd", tolerance=1e-5, remark="the peer computes in float32"),
    Case("nci", "nci_norm", {"alpha": 0.01}, tolerance=1e-5, remark="the peer computes in float32"),
]  # fmt: skip

# Of the same name, and not the same thing: nothing to compare.
UNLIKE = {
    "vra": "the peer raises what is below the lower quantile to it, feature by feature; ours (VRA-P) sets it "
    "to zero, and has one pair of quantiles for all activations",
    "gmm": "the peer's is one Gaussian for each class with a covariance of its own; ours is a mixture fitted "
    "by expectation maximisation with a shared one",
}
OURS_ALONE = (
    "adascale", "combood", "energy_gen", "energy_probe", "nac", "normalized_mahalanobis",
    "normalized_relative_mahalanobis", "outlier_probe", "perturbed_mahalanobis", "residual", "ssd", "weiper",
)  # fmt: skip


class Network(nn.Module):
    """The golden network: two padded 3 x 3 convolutions with ReLU, their mean over positions, and a linear
    layer.
    """

    def forward(self, images_B3HW: Tensor) -> Output:
        x = images_B3HW.double() / 255
        for name in ("conv1", "conv2"):
            weight, bias = (IN[f"network.{name}.{part}"].double() for part in ("weight", "bias"))
            x = nn.functional.conv2d(x, weight, bias, padding=1).relu()
        z = x.mean((2, 3))
        logits = z @ IN["network.head.weight"].double().T + IN["network.head.bias"].double()
        return Output(logits_BC=logits, z_BF=z)


def scores(case: Case) -> Tensor:
    """Our scores for a case."""
    detector = registry.make("detectors", case.name, **case.options)
    head = Head(weight_CF=IN["weight"], bias_C=IN["bias"], energy_C=IN["energy_weight"])
    probes = {probe.key: probe for probe in probes_of([detector])}
    if case.name == "odin":
        images = from_array("golden", IN["images"], torch.zeros(len(IN["images"])), ())
        return detector.score(Extractor(Network())(images, list(probes.values())))
    fit, test = (Output(logits_BC=IN[f"logits{part}"], z_BF=IN[f"z{part}"]) for part in ("_fit", ""))
    forward = ForwardPass(model=nn.Identity(), images_B3HW=torch.empty(0), output=test, map_BFHW=IN["map"])
    test = Output(
        logits_BC=test.logits_BC,
        z_BF=test.z_BF,
        probes={key: probe(forward) for key, probe in probes.items()},
    )
    if case.learned is not None:
        return restore(detector, case.learned()).score(test)
    return detector.fit(fit, IN["y_fit"], head).score(test)


def theirs(case: Case) -> Tensor:
    """The peer's scores for a case, in our convention."""
    return case.turned(GOLDEN[f"score.{case.peer}"])


def difference(case: Case) -> float:
    """The largest difference, relative to the spread of the scores."""
    ours, peer = scores(case), theirs(case)
    return ((ours - peer).abs().max() / (peer.max() - peer.min())).item()


def metrics() -> dict[str, tuple[float, float]]:
    """Our value and the peer's of each metric they share."""
    s, y, guess = IN["metric_scores"].double(), IN["metric_y"], IN["metric_predictions"]
    id_N, ood_M, right_N = s[y >= 0], s[y < 0], (guess == y)[y >= 0]
    ours = {
        "auroc": auroc(id_N, ood_M),
        "aupr_in": aupr_trapezoid(id_N, ood_M, positive="id"),
        "aupr_out": aupr_trapezoid(id_N, ood_M, positive="ood"),
        "fpr95tpr": fpr95_ood(id_N, ood_M),
        "autc": autc(id_N, ood_M),
        "oscr": oscr(id_N, ood_M, right_N),
        "accuracy": right_N.double().mean().item(),
    }
    return {name: (value, GOLDEN[f"metric.{name}"].item()) for name, value in ours.items()}


def table() -> str:
    """The parity table in Markdown: how well 40 known and 20 far rows are told apart, and how far the scores
    differ at most.
    """
    known = IN["y"] >= 0
    lines = [
        "| detector | options | AUROC, ours | AUROC, peer | difference | remark |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        options = ", ".join(f"{key} {value}" for key, value in case.options.items())
        both = ["", ""]
        if case.name != "odin":
            both = [
                f"{100 * auroc(s[known], s[~known]):.2f}"
                for s in (scores(case), GOLDEN[f"score.{case.peer}"])
            ]
        lines.append(
            f"| `{case.name}` | {options} | {both[0]} | {both[1]} | < {case.tolerance:.0e} | {case.remark} |"
        )
    lines += [f"| `{name}` | | | | not comparable | {remark} |" for name, remark in UNLIKE.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
