"""What is deployed: a classifier, a fitted detector, and a threshold with a guarantee about false alarms.

How it lies on disk is said in `stored`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import DataError, StoreError, first_line, shown
from ..core.faults import PluginFault
from ..core.files import read_json
from ..core.folders import check_is_there
from ..core.seeding import generator
from ..core.types import Detector, Json
from ..data.images import Images, from_array
from ..data.preprocess import read_pictures
from ..detection.apart import warn_of_shared
from ..detection.detectors import probes_of, scores_of, state
from ..detection.fit import Lesson, training_outputs
from ..detection.sanity import own_scores_of, upside_down, warn_of_upside_down
from ..models.classifier import Classifier, from_squares, load_classifier
from ..models.inference import Extractor, network_device, weights_hash
from ..runtime.answering import Answering
from ..runtime.answers import Outputs, Prediction
from ..runtime.calibration import OtherHalf, other_half
from ..runtime.held_out import HeldOut
from .hub import OnHub
from .stored import CONFIG_FILE, RUN_FILE, make_detector, name_of, options_of, read, write

__all__ = ["Guard", "observed_half", "predictor_of"]


@dataclass(frozen=True, kw_only=True)
class Guard(Answering, OnHub):
    """Says of pictures which class they show, or "unknown" where the detector's score exceeds the threshold.

    What it answers, and what `threshold`, `guarantee` and `held_out` are, is said in `Answering`.
    """

    classifier: Classifier
    detector: Detector

    @property
    def names(self) -> tuple[str, ...]:
        return self.classifier.names

    @property
    def size(self) -> int:
        """Width and height of the network's images, in pixels."""
        return self.classifier.size

    @property
    def white(self) -> float:
        """The value of white in pictures of more than 8 bits; 0: found for each picture."""
        return self.classifier.white

    @property
    def network(self) -> nn.Module:
        return self.classifier.network

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return network_device(self.network)

    @classmethod
    def calibrate(
        cls,
        classifier: Classifier,
        detector: str | Detector,
        fit: Images,
        held_out: Images,
        alpha: float = 0.05,
        confidence: float | None = 0.95,
        extractor: Extractor | None = None,
        *,
        per_class: bool = False,
        labelled: bool = True,
        outliers: Images | Lesson | None = None,
    ) -> Guard:
        """A guard that flags at most the share `alpha` of known images, with `per_class` of those that are
        taken for each class.

        The detector (a name, or one with options) learns from the ID training images `fit`, and from
        `outliers` where it uses some: images of what is unknown, such as imagined ones. The threshold comes
        from `held_out`, ID images that neither it nor the network has seen. With a `confidence` the guarantee
        holds for this threshold, else on average (see `runtime.calibration`). Classes with too few
        held-out images have the common threshold; `guarantee.too_few` names them. `labelled` says whether the
        held-out images' labels are true; prediction sets need that. `extractor` is one of the classifier's,
        with its device and cache; without one the network stays where it is.

        Warns when the detector ranks upside down (see `detection.sanity`), and when held-out images are among
        those of `fit`. Raises ValueError when the held-out images are too few, of another size, or OOD, or
        their scores are not finite or all the same, and NoOutliers where a detector lacks outliers. What else
        the detector raises is a ValueError, too.
        """
        detector, kept = _fitted(classifier, detector, fit, held_out, extractor, labelled, outliers)
        threshold, guarantee = kept.calibrate(alpha, confidence, classifier.names if per_class else None)
        return cls(
            classifier=classifier, detector=detector, threshold=threshold, guarantee=guarantee, held_out=kept
        )

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]:
        """A prediction for every image of a set, in order."""
        return self.answers(self._outputs(images, device))

    def of_squares(self, images_B3SS: NDArray[np.uint8]) -> Iterator[Prediction]:
        """A prediction for each uint8 square (B, 3, S, S) of its size, in order, where the network is."""
        return self(from_squares(images_B3SS), self.device)

    def identity(self) -> Json:
        """All that answers depend on, beside the pictures: a hash `guard` of network, loss, detector and
        held-out scores, the guaranteed `alpha`, and the `threshold`.
        """
        tensors = self.classifier.tensors()
        arrays = self.held_out.arrays()
        tensors |= {f"held_out.{name}": torch.from_numpy(array) for name, array in arrays.items()}
        tensors |= {f"detector.{name}": tensor for name, tensor in state(self.detector).items()}
        facts = [
            self.classifier.described(), name_of(self.detector), options_of(self.detector),
            self.guarantee.confidence, self.per_class,
        ]  # fmt: skip
        digest = weights_hash(tensors, json.dumps(facts))
        return {"guard": digest, "alpha": self.guarantee.alpha, "threshold": self.threshold}

    def outputs(self, pictures: Any, batch: int) -> Iterator[Outputs]:
        """The outputs for what `predict` takes, of at most `batch` pictures at a time, in order."""
        return (self._outputs(part, self.device) for part in _parts(pictures, self.size, self.white, batch))

    def scores(self, pictures: Any, batch: int = 256) -> Tensor:
        """The scores (N,) of what `predict` takes, float64, higher for OOD."""
        return torch.from_numpy(self._scores(pictures, batch))

    def _outputs(self, images: Images, device: torch.device) -> Outputs:
        output = self.classifier.extractor(device)(_sized(images, self.size), probes_of([self.detector]))
        return self.classifier.outputs(output.logits_BC, scores_of(self.detector, output))

    def save(self, folder: Path | str, classifier: str = "") -> None:
        """Writes the folder, safetensors and JSON; `load` reads it.

        With `classifier`, the classifier's folder as seen from the folder above this one, its tensors are
        left where they are.
        """
        write(self, Path(folder), classifier)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", plugins: bool = False) -> Guard:
        """The guard of a run, in an exported folder, or of a hub repository ("hub:OWNER/NAME").

        Only JSON and safetensors are read. A detector or loss that is named by its module is refused without
        `plugins`, for that module would be imported. Raises StoreError when there is no guard, or one that is
        damaged or of an earlier version.
        """
        guard = cls(**read(folder, device, plugins))
        guard._try(folder)
        return guard

    def _try(self, place: Path | str) -> None:
        """StoreError where the network and the detector do not answer to black pictures: tensors of another
        network, another number of classes, or a plug-in that fails.
        """
        black = torch.zeros(2, 3, self.size, self.size, dtype=torch.uint8)
        try:
            list(self(from_array("black", black, torch.zeros(2), ()), self.device))
        except PluginFault as error:
            raise StoreError(f"The guard in {shown(place)} does not answer. {error}") from error
        except Exception as error:  # whatever a network raises whose parts do not fit
            raise StoreError(
                f"{shown(place)} is damaged, or was written by another version: its network and its detector "
                f"do not answer ({first_line(error)})"
            ) from error


def observed_half(score_N: Tensor, alpha: float, confidence: float | None, seed: int) -> OtherHalf | None:
    """How many of a random half of held-out scores (N,) the threshold flags that the other half gives.

    None where a half is too small to guarantee alpha.
    """
    order_N = torch.randperm(len(score_N), generator=generator(seed, "halves"))
    return other_half(score_N.numpy(), alpha, confidence, order_N.numpy())


def predictor_of(folder: Path, classifier: str, plugins: bool = False) -> Guard | Classifier:
    """What `oodream score` asks: the folder's guard, if it is one of this classifier; else the classifier.

    `folder` is a run's, where the classifier is called `classifier`, a classifier's, or an exported guard's.
    Plug-ins are as in `Guard.load`. Raises StoreError when the folder holds none of them.
    """
    check_is_there(folder)
    if (folder / "classifier.json").is_file():
        return load_classifier(folder, plugins)
    path = f"classifier/{classifier}"
    in_run = folder / "guard" / RUN_FILE
    described = read_json(in_run) if in_run.is_file() else {"classifier": ""}
    if (
        (folder / CONFIG_FILE).is_file()
        or not isinstance(described, dict)
        or described.get("classifier") == path
    ):
        return Guard.load(folder, plugins=plugins)  # which says what is wrong with a torn description
    return load_classifier(folder / path if (folder / "classifier").is_dir() else folder, plugins)


def _fitted(
    classifier: Classifier,
    detector: str | Detector,
    fit: Images,
    held_out: Images,
    extractor: Extractor | None,
    labelled: bool,
    outliers: Images | Lesson | None,
) -> tuple[Detector, HeldOut]:
    """The fitted detector, and what is kept of the held-out images, of which nothing is fitted."""
    if (held_out.labels < 0).any():
        raise ValueError(
            f"The threshold comes from known images, and {held_out.name} holds OOD images (label -1)."
        )
    extractor = extractor or classifier.extractor(network_device(classifier.network))
    if extractor.network is not classifier.network:
        raise ValueError("The extractor is of another classifier's network.")
    detector = make_detector(detector) if isinstance(detector, str) else copy.deepcopy(detector)
    fit, held_out = _sized(fit, classifier.size), _sized(held_out, classifier.size)
    warn_of_shared([fit, held_out])
    if isinstance(outliers, Lesson):
        for images in (outliers.outliers, *outliers.known):
            _sized(images, classifier.size)
    elif outliers is not None:
        _sized(outliers, classifier.size)
    detector = training_outputs(extractor, [detector], fit, outliers).fit(detector)
    output = extractor(held_out, probes_of([detector]))
    score_N, name = own_scores_of(detector, output), name_of(detector)
    _check_scores(score_N, name)
    warn_of_upside_down({"guard": upside_down(extractor, {name: detector}, held_out, {name: score_N})})
    return detector, HeldOut.of(score_N, output.logits_BC, held_out.labels if labelled else None)


def _check_scores(score_N: Tensor, name: str) -> None:
    """ValueError, which names the detector, for held-out scores that no threshold can come from."""
    if bad := int((~score_N.isfinite()).sum()):
        raise ValueError(
            f"The detector {name} gives {bad:,} of {len(score_N):,} held-out images a score that is NaN or "
            "infinite. Choose another detector."
        )
    if len(score_N) > 1 and bool((score_N == score_N[0]).all()):
        raise ValueError(
            f"The detector {name} gives all {len(score_N):,} held-out images the score "
            f"{score_N[0].item():g}: it tells no image from another. Choose another detector."
        )


def _parts(pictures: Any, size: int, white: float, batch: int) -> Iterator[Images]:
    """The pictures as image sets of at most `batch`."""
    if batch < 1:
        raise ValueError(f"A batch is at least one picture, not {batch}.")
    if isinstance(pictures, Images):
        rows = torch.arange(len(pictures)).split(batch)
        yield from (pictures.subset(part) for part in rows if len(part))
        return
    squares = read_pictures(pictures, size, white)
    while part := list(islice(squares, batch)):
        yield from_array("pictures", torch.stack(part), torch.zeros(len(part)), ())


def _sized(images: Images, size: int) -> Images:
    if images.size != size:
        raise DataError(
            f"The images of {images.name} are {images.size} pixels wide, and this classifier's {size}."
        )
    return images
