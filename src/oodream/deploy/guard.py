"""What is deployed: a classifier, a fitted detector, and a threshold that keeps a promise about false alarms.

A guard's own folder holds all of it (`config.json` and tensors); in a run, `guard/guard.json` names the run's classifier instead.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..core import registry
from ..core.errors import DataError, StoreError
from ..core.files import load_tensors, read_json, save_tensors, write_json
from ..core.types import Detector, Json, Output
from ..data.images import Images, from_array
from ..data.preprocess import Picture, is_single, read_pictures
from ..detection.detectors import probes_of, restore, state
from ..functional.calibration import Guarantee, calibrate
from ..models.classifier import Classifier, Prediction, Predictor, check_plugin, from_description
from ..models.classifier import load as load_classifier
from ..models.inference import head_of, outputs
from .drift import Drift, stand_ins

OWN, IN_RUN, TENSORS = "config.json", "guard.json", "guard.safetensors"
HUB = "hub:"
LEARNT = "detector."  # begins the names of what the detector has learnt
WINDOW = 1000


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Says of pictures which class they show, or "unknown" where the detector's score exceeds the threshold.

    `promise` says how often a known picture may be called unknown; `score_Q` are held-out scores that stand for all, ascending.
    """

    classifier: Classifier
    detector: Detector
    threshold: float
    promise: Guarantee
    score_Q: Tensor = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self.classifier.names

    @property
    def size(self) -> int:
        """Width and height of the network's images, in pixels."""
        return self.classifier.size

    @property
    def network(self) -> nn.Module:
        return self.classifier.network

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @classmethod
    def calibrate(
        cls,
        classifier: Classifier,
        detector: str | Detector,
        fit: Images,
        held_out: Images,
        alpha: float = 0.05,
        confidence: float | None = 0.95,
        device: torch.device | str | None = None,
        cache: Path | None = None,
    ) -> Guard:
        """A guard that calls at most the share `alpha` of known images unknown.

        The detector (a name, or one with options) learns from the ID training images `fit`; the threshold comes from `held_out`,
        ID images that neither it nor the network has seen. With a `confidence` the promise holds for this threshold, else on
        average (see `calibration`). The network goes to `device`, or stays where it is. In the folder `cache` its outputs are kept.
        ValueError when the held-out images are too few, of another size, or OOD.
        """
        if (held_out.labels < 0).any():
            raise ValueError(
                f"The threshold comes from known images, and {held_out.name} holds OOD images (label -1)."
            )
        if device is not None:
            classifier.network.to(torch.device(device))
        detector = (
            registry.make("detectors", detector) if isinstance(detector, str) else copy.deepcopy(detector)
        )
        see = partial(
            outputs, classifier.network, device=next(classifier.network.parameters()).device, cache=cache
        )
        probes = probes_of([detector])
        known = see(_sized(fit, classifier.size), probes=[probe for probe in probes if probe.for_fit])
        detector = detector.fit(known, fit.labels, head_of(classifier.network, classifier.loss))
        score_N = detector.score(see(_sized(held_out, classifier.size), probes=probes)).cpu()
        threshold, promise = calibrate(score_N, alpha, confidence)
        return cls(
            classifier=classifier,
            detector=detector,
            threshold=threshold,
            promise=promise,
            score_Q=stand_ins(score_N),
        )

    # Answers -----------------------------------------------------------------------------------------------------------------

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]:
        """A verdict for every image of a set, in order."""
        output = self._see(images, device)
        return self.classifier.verdicts(output.logits_BC, self.detector.score(output), self.threshold)

    @overload
    def predict(self, given: Image.Image | str | os.PathLike[str], batch: int = 256) -> Prediction: ...
    @overload
    def predict(
        self, given: Images | list[Picture] | tuple[Picture, ...], batch: int = 256
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self, given: Picture | Iterable[Picture], batch: int = 256
    ) -> Prediction | list[Prediction]: ...

    def predict(self, given: Any, batch: int = 256) -> Prediction | list[Prediction]:
        """A verdict for a single picture, a list of them for several, in order.

        One picture is a path, a PIL image, an array (H, W) or (H, W, C) or a tensor (H, W) or (C, H, W): uint8, or floats in
        [0, 1]. Several are arrays (B, H, W, C), tensors (B, C, H, W), an image set, or any iterable of pictures and batches, of
        whatever sizes; it is read `batch` pictures at a time. They are read as training images were: turned as EXIF says, alpha
        over white, the shorter side resized, the centre taken. DataError names what cannot be read.
        """
        found = [verdict for part in self._parts(given, batch) for verdict in self(part, self.device)]
        return found[0] if _one(given) else found

    def scores(self, given: Any, batch: int = 256) -> Tensor:
        """The scores (N,) of what `predict` takes, float64, higher for OOD."""
        found = [
            self.detector.score(self._see(part, self.device)).cpu() for part in self._parts(given, batch)
        ]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def drift(self, given: Any = (), window: int = WINDOW) -> Drift:
        """A summary of a stream beside the held-out images: of scores (a vector, or a list of numbers) or of what `predict` takes.

        It goes on with `add(scores)`, and tells of all scores and of the last `window`.
        """
        drift = Drift(threshold=self.threshold, promise=self.promise, score_Q=self.score_Q, window=window)
        return drift.add(
            torch.as_tensor(given, dtype=torch.float64) if _is_scores(given) else self.scores(given)
        )

    def _see(self, images: Images, device: torch.device) -> Output:
        return outputs(self.network, _sized(images, self.size), device, probes=probes_of([self.detector]))

    def _parts(self, given: Any, batch: int) -> Iterator[Images]:
        """The pictures as image sets of at most `batch`."""
        if batch < 1:
            raise ValueError(f"A batch is at least one picture, not {batch}.")
        if isinstance(given, Images):
            yield from (given.subset(rows) for rows in torch.arange(len(given)).split(batch) if len(rows))
            return
        pictures = read_pictures(given, self.size)
        while part := list(islice(pictures, batch)):
            yield from_array("pictures", torch.stack(part), torch.zeros(len(part)), ())

    # Files -------------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str, classifier: str = "") -> None:
        """Writes the folder, safetensors and JSON; `load` reads it.

        With `classifier`, the classifier's folder as seen from the folder above this one, its tensors are left where they are.
        """
        folder = Path(folder)
        if not classifier:
            self.classifier.save_weights(folder)
        save_tensors(
            folder / TENSORS,
            {"score_Q": self.score_Q, **{LEARNT + k: t for k, t in state(self.detector).items()}},
        )
        write_json(folder / (IN_RUN if classifier else OWN), self.described(classifier))

    def described(self, classifier: str = "") -> Json:
        """All but the tensors."""
        return {
            "library_name": "oodream",
            "classifier": classifier or self.classifier.described(),
            "detector": {"name": name_of(self.detector), "options": options_of(self.detector)},
            "threshold": self.threshold,
            "promise": {"kind": self.promise.kind, **asdict(self.promise)},
        }

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", plugins: bool = False) -> Guard:
        """The guard of a run, in an exported folder, or of a hub repository ("hub:OWNER/NAME"); StoreError when there is none.

        Only JSON and safetensors are read. A detector or loss that is named by its module is refused without `plugins`, for that
        module would be imported.
        """
        file, above = _find(_fetched(str(folder)) if str(folder).startswith(HUB) else Path(folder))
        told = read_json(file)
        try:
            if isinstance(told["classifier"], str):
                classifier = load_classifier(_inside(above, told["classifier"], file), plugins)
            else:
                classifier = from_description(told["classifier"], file.parent, plugins)
            check_plugin(told["detector"]["name"], file.parent, plugins)
            made = registry.make("detectors", told["detector"]["name"], **told["detector"]["options"])
            tensors = load_tensors(file.with_name(TENSORS))
            learnt = {key[len(LEARNT) :]: tensor for key, tensor in tensors.items() if key.startswith(LEARNT)}
            promise = Guarantee(**{key: value for key, value in told["promise"].items() if key != "kind"})
            classifier.network.to(torch.device(device))
            return cls(
                classifier=classifier, detector=restore(made, learnt), threshold=float(told["threshold"]), promise=promise,
                score_Q=tensors["score_Q"],
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, FileNotFoundError) as error:
            raise StoreError(
                f"{file} or its tensors are damaged, or were written by another version ({error!r})."
            ) from error


def predictor_of(folder: Path, classifier: str, plugins: bool = False) -> Predictor:
    """What `oodream score` asks: the folder's guard, if that is one of this classifier; else the classifier with its own limit.

    `folder` is a run's, where the classifier is called `classifier`, a classifier's, or an exported guard's. StoreError when it
    holds none of them; plug-ins as in `Guard.load`.
    """
    if (folder / "classifier.json").is_file():
        return load_classifier(folder, plugins)
    path = f"classifier/{classifier}"
    if (folder / OWN).is_file() or (
        (file := folder / "guard" / IN_RUN).is_file() and read_json(file).get("classifier") == path
    ):
        return Guard.load(folder, plugins=plugins)
    return load_classifier(folder / path, plugins)


def name_of(detector: Detector) -> str:
    """The name under which `registry.make` makes such a detector."""
    kind = type(detector)
    known = (name for name in registry.names("detectors") if registry.get("detectors", name) is kind)
    return next(known, f"{kind.__module__}:{kind.__qualname__}")


def options_of(detector: Any) -> Json:
    """The options with which `registry.make` makes such a detector."""
    return {f.name: getattr(detector, f.name) for f in fields(detector) if f.init}


def _one(given: Any) -> bool:
    return not isinstance(given, Images) and is_single(given)


def _is_scores(given: Any) -> bool:
    if isinstance(given, (list, tuple)):
        return all(isinstance(value, (int, float, np.floating)) for value in given)
    return not isinstance(given, (Images, Image.Image)) and getattr(given, "ndim", 0) == 1


def _sized(images: Images, size: int) -> Images:
    if images.size != size:
        raise DataError(
            f"The images of {images.name} are {images.size} pixels wide, and this classifier's {size}."
        )
    return images


def _find(folder: Path) -> tuple[Path, Path]:
    """A guard's description, and the folder that a classifier's path in it starts from and may not leave."""
    places = [
        (folder / OWN, folder),
        (folder / "guard" / IN_RUN, folder),
        (folder / IN_RUN, folder.resolve().parent),
    ]
    for file, above in places:
        if file.is_file():
            return file, above
    raise StoreError(
        f"{folder} holds no guard: neither {OWN} nor guard/{IN_RUN}. A run's is made after its scores: oodream run … --until guard."
    )


def _inside(above: Path, path: str, file: Path) -> Path:
    """A folder below `above`; a shared run must not reach other files."""
    if not (above / path).resolve().is_relative_to(above.resolve()):
        raise StoreError(f"{file}: {path} lies outside {above}.")
    return above / path


def _fetched(name: str) -> Path:
    """A hub repository's JSON and safetensors."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name.removeprefix(HUB), allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # whatever the hub's client raises
        raise StoreError(f"{name} cannot be fetched: {error}") from error
