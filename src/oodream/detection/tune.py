"""The verb that chooses a detector's options, on validation images that no table is made of.

The network runs once over each set, whatever the number of candidates: candidates that need other probes of
an image share the pass. A detector's default stays unless another candidate separates the validation images
better *beyond chance*, so that tuning on few images does not pick noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import registry
from ..core.options import Option
from ..core.types import Detector, Output
from ..data.images import Images
from ..functional.uncertainty import delong, delong_test
from ..models.inference import Extractor
from .detectors import probes_of, scores_of
from .fit import Lesson, Training, training_outputs

__all__ = ["Tried", "candidates", "kind_of", "tune"]

ALPHA = 0.05  # shared by the candidates (Bonferroni)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """How tuning went: the options chosen, their AUROC, the default's, and how many candidates were used."""

    options: dict[str, Option]
    auroc: float
    default: float
    candidates: int


def tune(
    extractor: Extractor,
    name: str,
    options: Mapping[str, Option],
    *,
    fit: Images,
    known: Images,
    unknown: Sequence[Images],
    outliers: Images | Lesson | None = None,
) -> tuple[Detector, Tried]:
    """The fitted detector of a name with the options that tell `known` from `unknown` images best by AUROC,
    and what was tried.

    `fit` are ID training images. `known` are ID images that neither the network nor a table has seen,
    `unknown` OOD images of no test set: real ones, or imagined outliers that the network was not trained on,
    all sets together. The detector's `GRID` is tried, with `options` kept as they are.
    `outliers`, none of the `unknown` images, are what a detector learns from that uses outliers.

    Raises ValueError for a detector that cannot be used with its default options.
    """
    usable = _usable(name, candidates(name, options))
    training = training_outputs(extractor, [detector for _, detector in usable], fit, outliers)
    fitted = _fitted(usable, training)
    # Only now is all known that they want of an image.
    probes = probes_of([detector for _, detector in fitted])
    return _best(fitted, [extractor(images, probes) for images in (known, *unknown)])


def candidates(name: str, fixed: Mapping[str, Option]) -> list[dict[str, Option]]:
    """The default with the `fixed` options, then every combination of the detector's grid that agrees with
    them.
    """
    grid: Mapping[str, Sequence[Option]] = getattr(registry.get("detectors", kind_of(name)), "GRID", {})
    free = {option: values for option, values in grid.items() if option not in fixed}
    combinations = [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]
    return [dict(fixed), *({**fixed, **one} for one in combinations if one)]


def _usable(name: str, candidates: Sequence[dict[str, Option]]) -> list[tuple[dict[str, Option], Detector]]:
    """The candidates that can be made; ValueError when the first one, the default, cannot."""
    pairs: list[tuple[dict[str, Option], Detector]] = []
    for options in candidates:
        try:
            pairs.append((options, registry.make("detectors", kind_of(name), **options)))
        except ValueError:
            if not pairs:
                raise
    return pairs


def _fitted(
    candidates: Sequence[tuple[dict[str, Option], Detector]], training: Training
) -> list[tuple[dict[str, Option], Detector]]:
    """The candidates that can be fitted; ValueError when the first one, the default, cannot."""
    pairs: list[tuple[dict[str, Option], Detector]] = []
    for options, detector in candidates:
        try:
            pairs.append((options, training.fit(detector)))
        except ValueError:
            if not pairs:
                raise  # others may not suit this network, as a subspace wider than its features
    return pairs


def _best(
    candidates: Sequence[tuple[dict[str, Option], Detector]], validation: Sequence[Output]
) -> tuple[Detector, Tried]:
    """The best of fitted candidates."""
    scores: dict[int, tuple[Tensor, Tensor]] = {}
    for i, (_, detector) in enumerate(candidates):
        try:
            known_N, *unknown = (scores_of(detector, output) for output in validation)
            scores[i] = known_N, torch.cat(unknown)
        except ValueError:
            if i == 0:
                raise
            continue  # an option that does not suit these images
    aurocs = {i: delong(*both).value for i, both in scores.items()}
    chosen = max(aurocs, key=lambda i: aurocs[i])
    p = delong_test(scores[0], scores[chosen]).p
    if aurocs[chosen] <= aurocs[0] or (p is not None and p >= ALPHA / len(scores)):
        chosen = 0
    options, detector = candidates[chosen]
    tried = Tried(options=options, auroc=aurocs[chosen], default=aurocs[0], candidates=len(scores))
    return detector, tried


def kind_of(name: str) -> str:
    """The registered name of a detector that may be told apart as NAME@LABEL."""
    return name.partition("@")[0]
