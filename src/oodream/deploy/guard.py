"""What is deployed: a classifier, a fitted detector, and a threshold with a guarantee about false alarms.

A guard's own folder holds all of it (`config.json` and tensors). In a run, `guard/guard.json` names the run's
classifier instead.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
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
from ..detection.fit import training_outputs
from ..detection.sanity import warn_if_upside_down
from ..functional.calibration import Guarantee, calibrate
from ..models.classifier import (
    Classifier,
    Prediction,
    Predictor,
    check_plugin,
    from_description,
    load_classifier,
)
from ..models.inference import Extractor, network_device
from .drift import Drift, representatives

__all__ = ["CONFIG_FILE", "Guard", "name_of", "options_of", "predictor_of"]

CONFIG_FILE = "config.json"  # of a guard's own folder
RUN_FILE = "guard.json"  # of a guard in a run
TENSORS_FILE = "guard.safetensors"
HUB = "hub:"
DETECTOR = "detector."  # begins the names of what the detector has learned
WINDOW = 1000


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Says of pictures which class they show, or "unknown" where the detector's score exceeds the threshold.

    `guarantee` says how often a known picture may be flagged. `score_Q` are held-out scores that stand for
    all, ascending.
    """

    classifier: Classifier
    detector: Detector
    threshold: float
    guarantee: Guarantee
    score_Q: Tensor = field(repr=False)

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
        outliers: Images | None = None,
    ) -> Guard:
        """A guard that flags at most the share `alpha` of known images.

        The detector (a name, or one with options) learns from the ID training images `fit`, and from
        `outliers` where it uses some: images of what is unknown, such as imagined ones. The threshold comes
        from `held_out`, ID images that neither it nor the network has seen. With a `confidence` the
        guarantee holds for this threshold, else on average (see `functional.calibration`). `extractor` is one
        of the classifier's, with its device and cache; without one the network stays where it is.

        Warns when the detector ranks upside down (see `detection.sanity`). Raises ValueError when the
        held-out images are too few, of another size, or OOD, and NoOutliers where a detector lacks outliers.
        """
        if (held_out.labels < 0).any():
            raise ValueError(
                f"The threshold comes from known images, and {held_out.name} holds OOD images (label -1)."
            )
        extractor = extractor or classifier.extractor(network_device(classifier.network))
        if extractor.network is not classifier.network:
            raise ValueError("The extractor is of another classifier's network.")
        detector = copy.deepcopy(detector) if not isinstance(detector, str) else _detector(detector)
        fit, held_out = _sized(fit, classifier.size), _sized(held_out, classifier.size)
        outliers = _sized(outliers, classifier.size) if outliers is not None else None
        detector = training_outputs(extractor, [detector], fit, outliers).fit(detector)
        score_N = detector.score(extractor(held_out, probes_of([detector]))).cpu()
        threshold, guarantee = calibrate(score_N, alpha, confidence)
        name = name_of(detector)
        warn_if_upside_down(extractor, {name: detector}, held_out, {name: score_N})
        return cls(
            classifier=classifier,
            detector=detector,
            threshold=threshold,
            guarantee=guarantee,
            score_Q=representatives(score_N),
        )

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]:
        """A prediction for every image of a set, in order."""
        output = self._outputs(images, device)
        return self.classifier.predictions(output.logits_BC, self.detector.score(output), self.threshold)

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
        predictions = [one for part in _parts(pictures, self.size, batch) for one in self(part, self.device)]
        single = not isinstance(pictures, Images) and is_single(pictures)
        return predictions[0] if single else predictions

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
        drift = Drift(threshold=self.threshold, guarantee=self.guarantee, score_Q=self.score_Q, window=window)
        return drift.add(
            torch.as_tensor(stream, dtype=torch.float64) if _is_scores(stream) else self.scores(stream)
        )

    def _outputs(self, images: Images, device: torch.device) -> Output:
        return self.classifier.extractor(device)(_sized(images, self.size), probes_of([self.detector]))

    def save(self, folder: Path | str, classifier: str = "") -> None:
        """Writes the folder, safetensors and JSON; `load` reads it.

        With `classifier`, the classifier's folder as seen from the folder above this one, its tensors are
        left where they are.
        """
        folder = Path(folder)
        if not classifier:
            self.classifier.save_weights(folder)
        learned = {DETECTOR + name: tensor for name, tensor in state(self.detector).items()}
        save_tensors(folder / TENSORS_FILE, {"score_Q": self.score_Q, **learned})
        write_json(folder / (RUN_FILE if classifier else CONFIG_FILE), self.described(classifier))

    def described(self, classifier: str = "") -> Json:
        """All but the tensors."""
        return {
            "library_name": "oodream",
            "classifier": classifier or self.classifier.described(),
            "detector": {"name": name_of(self.detector), "options": options_of(self.detector)},
            "threshold": self.threshold,
            "guarantee": {"kind": self.guarantee.kind, **asdict(self.guarantee)},
        }

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", plugins: bool = False) -> Guard:
        """The guard of a run, in an exported folder, or of a hub repository ("hub:OWNER/NAME").

        Only JSON and safetensors are read. A detector or loss that is named by its module is refused without
        `plugins`, for that module would be imported. Raises StoreError when there is no guard, or a damaged
        one.
        """
        file, root = _find(_fetched(str(folder)) if str(folder).startswith(HUB) else Path(folder))
        config = read_json(file)
        try:
            if isinstance(config["classifier"], str):
                classifier = load_classifier(_inside(root, config["classifier"], file), plugins)
            else:
                classifier = from_description(config["classifier"], file.parent, plugins)
            name, options = config["detector"]["name"], config["detector"]["options"]
            check_plugin(name, file.parent, plugins)
            detector = _detector(name, **options)
            guarantee = {key: value for key, value in config["guarantee"].items() if key != "kind"}
            tensors = load_tensors(file.with_name(TENSORS_FILE))
            learned = {
                key.removeprefix(DETECTOR): t for key, t in tensors.items() if key.startswith(DETECTOR)
            }
            classifier.network.to(torch.device(device))
            return cls(
                classifier=classifier,
                detector=restore(detector, learned),
                threshold=float(config["threshold"]),
                guarantee=Guarantee(**guarantee),
                score_Q=tensors["score_Q"],
            )
        except (KeyError, TypeError, AttributeError, FileNotFoundError) as error:
            raise StoreError(
                f"{file} or its tensors are damaged, or were written by another version ({error!r})."
            ) from error


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


def name_of(detector: Detector) -> str:
    """The name under which `registry.make` makes such a detector."""
    kind = type(detector)
    names = (name for name in registry.names("detectors") if registry.get("detectors", name) is kind)
    return next(names, f"{kind.__module__}:{kind.__qualname__}")


def options_of(detector: Any) -> Json:
    """The options with which `registry.make` makes such a detector."""
    return {f.name: getattr(detector, f.name) for f in fields(detector) if f.init}


def _detector(name: str, **options: Any) -> Detector:
    detector: Detector = registry.make("detectors", name, **options)
    return detector


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


def _find(folder: Path) -> tuple[Path, Path]:
    """A guard's description, and the folder that a classifier's path in it starts from and may not leave."""
    places = [
        (folder / CONFIG_FILE, folder),
        (folder / "guard" / RUN_FILE, folder),
        (folder / RUN_FILE, folder.resolve().parent),
    ]
    for file, root in places:
        if file.is_file():
            return file, root
    stamp = folder / "guard" / "stage.json"
    if stamp.is_file() and (reason := read_json(stamp).get("summary", {}).get("none")):
        raise StoreError(
            f"{folder} could have no guard: {reason}. Add images, or let it flag more known ones: the "
            "command of the run with --guard.alpha 0.15 --redo changed"
        )
    raise StoreError(
        f"{folder} holds no guard: neither {CONFIG_FILE} nor guard/{RUN_FILE}. A run's is made after its "
        "scores: oodream run … --until guard."
    )


def _inside(root: Path, path: str, file: Path) -> Path:
    """A folder below `root`; a shared run must not reach other files."""
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise StoreError(f"{file}: {path} lies outside {root}.")
    return root / path


def _fetched(name: str) -> Path:
    """A hub repository's JSON and safetensors."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name.removeprefix(HUB), allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # whatever the hub's client raises
        raise StoreError(f"{name} cannot be fetched: {error}") from error
