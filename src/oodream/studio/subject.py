"""What pictures are tried on: a guard, with its scores of unknown images and the known ones that it learned
from. Nothing here knows HTTP.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.types import Json
from ..data.images import Images, from_array
from ..deploy.guard import Guard
from ..deploy.tradeoff import Accepted, Scored, alphas, tradeoff
from ..models.inference import Extractor
from ..models.neighbours import Neighbour, Neighbours
from ..report.figures import sorted_scores, threshold_histogram
from ..runtime.answers import Prediction
from ..runtime.tails import wilson
from .guards import Place

__all__ = ["HEIGHT", "WIDTH", "Subject"]

NEAREST = 6  # known images beside a picture
WIDTH, HEIGHT = 480.0, 150.0  # of a histogram
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # that stand in for it in words


@dataclass(frozen=True)
class Subject:
    """A guard, and what it is tried with. What is slow is made when it is first asked for.

    Image sets are read only for the nearest known images, and for a guard with a threshold for each class.
    Several threads may ask: the network answers one of them at a time, and a search through the known images,
    which has a network of its own, holds up no answer.
    """

    guard: Guard
    place: Place
    _answering: Lock = field(default_factory=Lock)
    _searching: Lock = field(default_factory=Lock)

    @cached_property
    def unknown(self) -> dict[str, Scored]:
        """The guard's scores of unknown sets; empty where its detector was not measured."""
        scores = self.place.scores()
        names = [name for name in self._groups if name in scores]
        classes = {name: self._likeliest(name) for name in names} if self.guard.per_class else {}
        return {
            name: Scored(score_N=scores[name].double().numpy(), likeliest_N=classes.get(name))
            for name in names
        }

    @cached_property
    def _groups(self) -> dict[str, str]:
        return self.place.groups()

    def _likeliest(self, name: str) -> NDArray:
        """The classes that the network takes the images of an unknown set for."""
        with self._searching:
            output = self._extractor(self.place.images(name))
        return output.logits_BC.argmax(1).numpy()

    @cached_property
    def _extractor(self) -> Extractor:
        network = copy.deepcopy(self.guard.network)
        return Extractor(
            network, loss=self.guard.classifier.loss, device=self.guard.device, cache=self.place.cache
        )

    @cached_property
    def _neighbours(self) -> Neighbours:
        known = self.place.images("train")
        return Neighbours(self._extractor, known)

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
            known = self._neighbours
            uncached = Extractor(self._extractor.network, device=self.guard.device)
            found = known.nearest(uncached(images).z_BF, NEAREST)
        return [[_alike(one, known.images) for one in part] for part in found]


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
