"""The verb that chooses detectors' options, on validation images that no table is made of.

The network runs once over three sets, whatever the number of candidates: candidates that need other probes of an image share the
pass. A detector's default stays unless another candidate separates the validation images better *beyond chance*, so that a search
on few images does not pick noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import registry
from ..core.options import Option
from ..core.types import Detector, Head, Loss, Output
from ..data.images import Images
from ..functional.uncertainty import delong, delong_test
from ..models.inference import head_of, outputs
from .detectors import probes_of

ALPHA = 0.05  # shared by a detector's candidates (Bonferroni)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a search has found for one detector: its options, their AUROC and the default's, and how many candidates there were."""

    options: dict[str, Option]
    auroc: float
    default: float
    candidates: int


def search(
    model: nn.Module,
    detectors: Sequence[str],
    options: Mapping[str, Option],
    *,
    fit: Images,
    known: Images,
    unknown: Sequence[Images],
    loss: Loss | None = None,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Detector], dict[str, Tried]]:
    """Detectors with the options that tell `known` from `unknown` images best by AUROC, and what was tried.

    `known` are ID images that neither the network nor a table has seen, `unknown` OOD images of no test set: real ones, or imagined
    outliers that the network was not trained on, all sets together. Each detector's `GRID` is searched, with `options`
    (`NAME.option`) kept as given.
    """
    own = registry.own_options("detectors", detectors, options)
    made = {
        name: [registry.make("detectors", _plain(name), **c) for c in candidates(name, own[name])]
        for name in detectors
    }
    probes, device = probes_of([d for several in made.values() for d in several]), torch.device(device)
    model.to(device)
    seen = [outputs(model, images, device, probes=probes, cache=cache) for images in (known, *unknown)]
    at_fit = outputs(model, fit, device, probes=[probe for probe in probes if probe.for_fit], cache=cache)
    best, tried = {}, {}
    for name, several in made.items():
        best[name], tried[name] = _best(
            candidates(name, own[name]), several, (at_fit, fit.labels), seen, head_of(model, loss)
        )
    return best, tried


def candidates(name: str, fixed: Mapping[str, Option]) -> list[dict[str, Option]]:
    """The default with the `fixed` options, then every combination of the detector's grid that agrees with them."""
    grid: Mapping[str, Sequence[Option]] = getattr(registry.get("detectors", _plain(name)), "GRID", {})
    free = {option: values for option, values in grid.items() if option not in fixed}
    combined = [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]
    return [dict(fixed), *({**fixed, **one} for one in combined if one)]


def _best(
    candidates: Sequence[dict[str, Option]],
    detectors: Sequence[Detector],
    fit: tuple[Output, Tensor],
    seen: Sequence[Output],
    head: Head | None,
) -> tuple[Detector, Tried]:
    scores: dict[int, tuple[Tensor, Tensor]] = {}
    for i, detector in enumerate(detectors):
        try:
            detector = detector.fit(*fit, head)
            scores[i] = detector.score(seen[0]), torch.cat([detector.score(output) for output in seen[1:]])
        except ValueError:
            if i == 0:
                raise
            continue  # an option that does not suit this network, as a subspace wider than its features
    aurocs = {i: delong(*both).value for i, both in scores.items()}
    chosen = max(aurocs, key=lambda i: aurocs[i])
    if chosen and (
        aurocs[chosen] <= aurocs[0] or delong_test(scores[0], scores[chosen]).p >= ALPHA / len(scores)
    ):
        chosen = 0
    told: dict[str, Any] = candidates[chosen]
    return detectors[chosen], Tried(
        options=told, auroc=aurocs[chosen], default=aurocs[0], candidates=len(scores)
    )


def _plain(name: str) -> str:
    return name.partition("@")[0]
