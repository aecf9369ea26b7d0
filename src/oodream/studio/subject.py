"""What pictures are tried on: a run's guard, with the scores of its test images and the known images that it
learned from. Nothing here knows HTTP.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import StoreError
from ..core.types import Json
from ..data.images import Images, from_array
from ..deploy.guard import Guard
from ..deploy.tradeoff import Accepted, Scored, alphas, tradeoff
from ..models.inference import Extractor
from ..models.neighbours import Neighbour, Neighbours
from ..report.figures import sorted_scores, threshold_histogram
from ..run.artifacts import Run
from ..run.layout import REGULARIZED
from ..runtime.answers import Prediction
from ..runtime.tails import wilson
from .sets import RunSets

__all__ = ["HEIGHT", "WIDTH", "Subject"]

NEAREST = 6  # known images beside a picture
WIDTH, HEIGHT = 480.0, 150.0  # of a histogram
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # that stand in for it in words


@dataclass(frozen=True)
class Subject:
    """A run's guard, and what it is tried with. What is slow is made when it is first asked for.

    The run's image `sets` are read only for the nearest known images, and for a guard with a threshold for
    each class. Several threads may ask: the network answers one of them at a time, and a
    search through the known images, which has a network of its own, holds up no answer.
    """

    run: Run
    guard: Guard
    sets: RunSets
    _answering: Lock = field(default_factory=Lock)
    _searching: Lock = field(default_factory=Lock)

    @cached_property
    def unknown(self) -> dict[str, Scored]:
        """The guard's scores of the run's unknown sets; empty where the run has not measured its detector."""
        if not self._groups:
            return {}
        stamp = self.run.stamp("guard")
        try:
            scores = self.run.scores(REGULARIZED, 0, stamp["inputs"]["detector"] if stamp else "")
        except StoreError:  # a detector that could not be fitted there has none
            return {}
        classes = self._likeliest() if self.guard.per_class else {}
        return {
            name: Scored(score_N=scores[name].double().numpy(), likeliest_N=classes.get(name))
            for name in self._groups
            if name in scores
        }

    @cached_property
    def _groups(self) -> dict[str, str]:
        """The groups of the run's unknown sets by name, near before far."""
        scores = self.run.stamp("scores")
        sets = scores["inputs"]["sets"] if scores else {}
        return dict(
            sorted(((name, facts[0]) for name, facts in sets.items()), key=lambda one: one[1] != "near")
        )

    def _likeliest(self) -> dict[str, NDArray]:
        """The classes that the network takes unknown images for, by set."""
        extractor = self._extractor(self.run.layout.cache)
        sets = {name: self.sets.read(self.run, name) for name in self._groups}
        return {name: extractor(images).logits_BC.argmax(1).numpy() for name, images in sets.items()}

    def _extractor(self, cache: Path | None = None) -> Extractor:
        network = copy.deepcopy(self.guard.network)
        return Extractor(network, loss=self.guard.classifier.loss, device=self.guard.device, cache=cache)

    @cached_property
    def _search(self) -> tuple[Extractor, Neighbours]:
        """The known images that the classifier learned from, and what makes features of other pictures."""
        extractor = self._extractor(self.run.layout.cache)
        return Extractor(extractor.network, device=extractor.device), Neighbours(
            extractor, self.sets.read(self.run, "train")
        )

    def facts(self) -> Json:
        """What a page is told first: the rates to choose from, and the histograms of scores."""
        guard = self.guard
        known = sorted_scores(torch.from_numpy(guard.held_out.score_N), "held out")
        panels = []
        for name, scored in self.unknown.items():
            unknown = sorted_scores(torch.from_numpy(scored.score_N), name)
            panels.append(_panel(name, self._groups[name], known, unknown, guard.threshold))
        return {
            "classes": list(guard.names),
            "size": guard.size,
            "alpha": guard.guarantee.alpha,
            "alphas": alphas(guard),
            "per_class": guard.per_class,
            "quantiles": QUANTILES,
            "panels": panels or [_panel("", "", known, known, guard.threshold)],
            "width": WIDTH,
            "height": HEIGHT,
        }

    def at(self, alpha: float) -> Json:
        """What the guard promises and accepts at this alpha; ValueError where it cannot promise it."""
        result = tradeoff(self.guard, alpha, self.unknown)
        thresholds = dict(zip(self.guard.names, result.threshold_C.tolist(), strict=True))
        return {
            "alpha": alpha,
            "guarantee": result.guarantee,
            "threshold": result.threshold,
            "thresholds": thresholds if self.guard.per_class else None,
            "known": _counted(result.known),
            "unknown": [
                {"name": name, "group": self._groups[name], **_counted(accepted)}
                for name, accepted in result.unknown.items()
            ],
        }

    def answers(self, squares_B: NDArray) -> list[Prediction]:
        """What the guard says of squares (B, S, S, 3)."""
        with self._answering:
            return self.guard.predict(list(squares_B))

    def nearest(self, squares_B: NDArray) -> list[list[Json]]:
        """For each square (B, S, S, 3) the known images that look most alike to the classifier."""
        pixels = torch.from_numpy(squares_B).permute(0, 3, 1, 2).contiguous()
        images = from_array("pictures", pixels, torch.zeros(len(pixels)), ())
        with self._searching:
            extractor, neighbours = self._search
            found = neighbours.nearest(extractor(images).z_BF, NEAREST)
        return [[_alike(one, neighbours.images) for one in part] for part in found]


def _panel(name: str, group: str, known: NDArray, unknown: NDArray, threshold: float) -> Json:
    quantiles = {
        key: np.quantile(scores, QUANTILES).tolist()
        for key, scores in (("known", known), ("unknown", unknown))
    }
    figure = threshold_histogram(known, unknown, threshold, WIDTH, HEIGHT)
    return {"name": name, "group": group, "n": len(unknown), "quantiles": quantiles, **figure}


def _counted(accepted: Accepted) -> Json:
    low, high = wilson(accepted.accepted, accepted.n)
    return {**asdict(accepted), "share": accepted.share, "low": low, "high": high}


def _alike(one: Neighbour, known: Images) -> Json:
    label = int(known.labels[one.row])
    return {"row": one.row, "cosine": one.cosine, "class": known.classes[label]}
