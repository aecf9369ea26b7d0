"""What is deployed: a classifier, a fitted detector, and a threshold with a guarantee about false alarms.

How it lies on disk is said in `stored`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..core.errors import DataError
from ..core.files import read_json
from ..core.types import Detector, Output
from ..data.images import Images, from_array
from ..data.preprocess import Picture, is_single, read_pictures
from ..detection.detectors import probes_of
from ..detection.fit import training_outputs
from ..detection.sanity import warn_if_upside_down
from ..functional.calibration import Guarantee
from ..functional.prediction_sets import prediction_sets
from ..models.classifier import Classifier, Prediction, Predictor, load_classifier
from ..models.inference import Extractor, network_device
from .drift import Drift
from .held_out import ALL, HeldOut
from .stored import CONFIG_FILE, RUN_FILE, make_detector, name_of, read, write

__all__ = ["Guard", "predictor_of"]

WINDOW = 1000


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Says of pictures which class they show, or "unknown" where the detector's score exceeds the threshold.

    `guarantee` says how often a known picture may be flagged. `held_out` is what is kept of the held-out
    images, for `at`, p-values and prediction sets. Where the guarantee holds class by class, `threshold` is
    the common one, of the classes that have too few of them.
    """

    classifier: Classifier
    detector: Detector
    threshold: float
    guarantee: Guarantee
    held_out: HeldOut = field(repr=False)

    @property
    def per_class(self) -> bool:
        """Whether there is a threshold for each class that a picture is taken for."""
        return self.guarantee.too_few is not None

    @cached_property
    def cell_C(self) -> Tensor:
        """For each class the one whose held-out images its threshold and p-values come from, or ALL."""
        common = self.names if self.guarantee.too_few is None else self.guarantee.too_few
        return torch.tensor([ALL if name in common else c for c, name in enumerate(self.names)])

    @cached_property
    def threshold_C(self) -> Tensor:
        """The threshold for pictures that are taken for each class (C,), float64."""
        own = (None if c == ALL else self.held_out.threshold(c, self.guarantee) for c in self.cell_C.tolist())
        return torch.tensor([self.threshold if t is None else t for t in own], dtype=torch.float64)

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
        outliers: Images | None = None,
    ) -> Guard:
        """A guard that flags at most the share `alpha` of known images, with `per_class` of those that are
        taken for each class.

        The detector (a name, or one with options) learns from the ID training images `fit`, and from
        `outliers` where it uses some: images of what is unknown, such as imagined ones. The threshold comes
        from `held_out`, ID images that neither it nor the network has seen. With a `confidence` the guarantee
        holds for this threshold, else on average (see `functional.calibration`). Classes with too few
        held-out images have the common threshold; `guarantee.too_few` names them. `labelled` says whether the
        held-out images' labels are true; prediction sets need that. `extractor` is one of the classifier's,
        with its device and cache; without one the network stays where it is.

        Warns when the detector ranks upside down (see `detection.sanity`). Raises ValueError when the
        held-out images are too few, of another size, or OOD, and NoOutliers where a detector lacks outliers.
        """
        detector, kept = _fitted(classifier, detector, fit, held_out, extractor, labelled, outliers)
        threshold, guarantee = kept.calibrate(alpha, confidence, classifier.names if per_class else None)
        return cls(
            classifier=classifier, detector=detector, threshold=threshold, guarantee=guarantee, held_out=kept
        )

    def at(self, alpha: float) -> Guard:
        """The guard that `calibrate` would have made with this alpha; nothing else changes.

        Choose alpha before you look at what it flags. Raises ValueError where the held-out images are too few
        to guarantee it; it names what they can guarantee.
        """
        names = self.names if self.per_class else None
        threshold, guarantee = self.held_out.calibrate(alpha, self.guarantee.confidence, names)
        return replace(self, threshold=threshold, guarantee=guarantee)

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]:
        """A prediction for every image of a set, in order."""
        return self._predictions(images, device)

    @overload
    def predict(
        self, pictures: Image.Image | str | bytes | os.PathLike[str], batch: int = 256
    ) -> Prediction: ...
    @overload
    def predict(
        self, pictures: Images | list[Picture] | tuple[Picture, ...], batch: int = 256
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self, pictures: Picture | Iterable[Picture], batch: int = 256
    ) -> Prediction | list[Prediction]: ...

    def predict(self, pictures: Any, batch: int = 256) -> Prediction | list[Prediction]:
        """A prediction for a single picture, a list of them for several, in order.

        One picture is a path, the bytes of an image file, a row of a data set with either, a PIL image, an
        array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W): uint8, or floats in [0, 1]. Several are
        arrays (B, H, W, C), tensors (B, C, H, W), an image set, or any iterable of pictures and batches, of
        whatever sizes; it is read `batch` pictures at a time, as training images were (see
        `data.preprocess`).

        Raises DataError, which names what cannot be read.
        """
        return self._predict(pictures, batch)

    def predict_set(
        self, pictures: Any, alpha: float = 0.1, method: str = "raps", batch: int = 256
    ) -> Prediction | list[Prediction]:
        """What `predict` returns, with `candidates`: classes among which a known picture's own is.

        It is missing from at most the share `alpha` of known pictures' sets, on average over draws of the
        held-out images; flagged pictures have their set, too. `method` is "lac", "aps" or "raps" (see
        `functional.prediction_sets`). Raises ValueError for another method, and where the held-out images are
        too few, or without true labels.
        """
        return self._predict(pictures, batch, (self.held_out.set_limit(alpha, method), method))

    def scores(self, pictures: Any, batch: int = 256) -> Tensor:
        """The scores (N,) of what `predict` takes, float64, higher for OOD."""
        parts = _parts(pictures, self.size, batch)
        scores = [self.detector.score(self._outputs(part, self.device)).cpu() for part in parts]
        return torch.cat(scores) if scores else torch.zeros(0, dtype=torch.float64)

    def drift(self, stream: Any = (), window: int = WINDOW) -> Drift:
        """A summary of a stream beside the held-out images.

        The stream begins with scores (a vector, or a list of numbers) or with what `predict` takes, and goes
        on with `add(scores)`. The summary tells of all scores and of the last `window`.
        """
        score_N = self.held_out.score_N
        drift = Drift(threshold=self.threshold, guarantee=self.guarantee, score_N=score_N, window=window)
        return drift.add(stream if _is_scores(stream) else self.scores(stream))

    def _predict(
        self, pictures: Any, batch: int, sets: tuple[float, str] | None = None
    ) -> Prediction | list[Prediction]:
        parts = _parts(pictures, self.size, batch)
        predictions = [one for part in parts for one in self._predictions(part, self.device, sets)]
        single = not isinstance(pictures, Images) and is_single(pictures)
        return predictions[0] if single else predictions

    def _predictions(
        self, images: Images, device: torch.device, sets: tuple[float, str] | None = None
    ) -> Iterator[Prediction]:
        """Predictions, with sets where their limit and method are given."""
        output = self._outputs(images, device)
        score_B, likeliest_B = self.detector.score(output), output.logits_BC.argmax(1)
        return self.classifier.predictions(
            output.logits_BC,
            score_B,
            self.threshold_C[likeliest_B],
            self.held_out.p_values(score_B, self.cell_C[likeliest_B]),
            None if sets is None else prediction_sets(output.logits_BC, *sets),
        )

    def _outputs(self, images: Images, device: torch.device) -> Output:
        return self.classifier.extractor(device)(_sized(images, self.size), probes_of([self.detector]))

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
        return cls(**read(folder, device, plugins))


def predictor_of(folder: Path, classifier: str, plugins: bool = False) -> Predictor:
    """What `oodream score` asks: the folder's guard, if it is one of this classifier; else the classifier.

    `folder` is a run's, where the classifier is called `classifier`, a classifier's, or an exported guard's.
    Plug-ins are as in `Guard.load`. Raises StoreError when the folder holds none of them.
    """
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
    return load_classifier(folder / path, plugins)


def _fitted(
    classifier: Classifier,
    detector: str | Detector,
    fit: Images,
    held_out: Images,
    extractor: Extractor | None,
    labelled: bool,
    outliers: Images | None,
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
    outliers = None if outliers is None else _sized(outliers, classifier.size)
    detector = training_outputs(extractor, [detector], fit, outliers).fit(detector)
    output = extractor(held_out, probes_of([detector]))
    score_N = detector.score(output)
    name = name_of(detector)
    warn_if_upside_down(extractor, {name: detector}, held_out, {name: score_N})
    return detector, HeldOut.of(score_N, output.logits_BC, held_out.labels if labelled else None)


def _parts(pictures: Any, size: int, batch: int) -> Iterator[Images]:
    """The pictures as image sets of at most `batch`."""
    if batch < 1:
        raise ValueError(f"A batch is at least one picture, not {batch}.")
    if isinstance(pictures, Images):
        rows = torch.arange(len(pictures)).split(batch)
        yield from (pictures.subset(part) for part in rows if len(part))
        return
    squares = read_pictures(pictures, size)
    while part := list(islice(squares, batch)):
        yield from_array("pictures", torch.stack(part), torch.zeros(len(part)), ())


def _is_scores(stream: Any) -> bool:
    if isinstance(stream, (list, tuple)):
        return all(isinstance(value, (int, float, np.floating)) for value in stream)
    return not isinstance(stream, (Images, Image.Image)) and getattr(stream, "ndim", 0) == 1


def _sized(images: Images, size: int) -> Images:
    if images.size != size:
        raise DataError(
            f"The images of {images.name} are {images.size} pixels wide, and this classifier's {size}."
        )
    return images
