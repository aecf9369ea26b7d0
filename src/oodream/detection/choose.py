"""The choice of one detector of several, with its options, on images that are no test set's.

Each detector's options are tuned first (`tune`), then detectors are compared by how well they tell known from
unknown images, over all kinds of unknown images alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from ..core import registry
from ..core.options import Option
from ..core.types import Detector
from ..data.images import Images, ImageSet
from ..functional.metrics import auroc
from ..models.inference import Extractor
from .detectors import probes_of
from .tune import tune

__all__ = ["Candidate", "Choice", "choose_detector", "without_labels"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A fitted detector with the options that suit it best, and its AUROC by kind of unknown images."""

    name: str
    detector: Detector
    options: Mapping[str, Option]
    aurocs: Mapping[str, float]

    @property
    def mean(self) -> float:
        return fmean(self.aurocs.values())


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidates, best first, and why other detectors cannot be used."""

    candidates: Sequence[Candidate]
    skipped: Mapping[str, str]

    @property
    def best(self) -> Candidate:
        return self.candidates[0]


def choose_detector(
    extractor: Extractor,
    detectors: Mapping[str, Mapping[str, Option]],
    *,
    fit: Images,
    known: Images,
    unknown: Sequence[ImageSet],
) -> Choice:
    """The detectors (by name, with the options that stay as they are) by their mean AUROC over the `unknown` sets.

    They learn from the ID images `fit`, and are compared on `known` ones that are none of these. Of equally good
    ones the first wins. Raises ValueError, with the reasons, where none can be used.
    """
    candidates, skipped = [], {}
    for name, fixed in detectors.items():
        try:
            best, tried = tune(
                extractor, [name], fixed, fit=fit, known=known, unknown=[one.images for one in unknown]
            )
        except (ValueError, torch.linalg.LinAlgError) as error:
            skipped[name] = str(error)
            continue
        probes = probes_of([best[name]])
        known_N = best[name].score(extractor(known, probes))
        aurocs = {
            one.name: auroc(known_N, best[name].score(extractor(one.images, probes))) for one in unknown
        }
        candidates.append(
            Candidate(name=name, detector=best[name], options=tried[name].options, aurocs=aurocs)
        )
    if not candidates:
        reasons = (f"  {name}: {reason}" for name, reason in skipped.items())
        raise ValueError("\n".join(["None of the detectors can be used:", *reasons]))
    return Choice(candidates=sorted(candidates, key=lambda one: -one.mean), skipped=skipped)


def without_labels(names: Sequence[str]) -> list[str]:
    """Those of the detectors that look at no labels of training images."""
    return [
        name
        for name in names
        if "labels" not in getattr(registry.get("detectors", name.partition("@")[0]), "reads", ())
    ]
