"""A trained classifier with all that it takes to use it: network, class names, image size, phi, and the limit of what is known.

On disk it is a folder of `model.safetensors`, `loss.safetensors` (phi's parameters, where there are some) and `classifier.json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ..core.errors import StoreError
from ..core.files import load_tensors, read_json, save_tensors, write_json
from ..core.registry import make
from ..core.types import Json, Loss
from ..data.images import Images, from_array
from ..data.preprocess import read_image
from .factory import backbone
from .inference import outputs

ACCEPTED = 0.95
BATCH = 256
NAMED = (
    "timm",
    "hf",
    "torchvision",
)  # families whose names stand for architectures, and run no code from elsewhere


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says to one image: a class name or "unknown", the energy (higher for OOD) and the most likely class.

    `known` is phi's probability that the image is of a known kind, where the classifier was trained with one.
    """

    answer: str
    score: float
    threshold: float
    likeliest: str
    known: float | None = None


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network of one output for each of `names`, on images `size` pixels wide; scores above `threshold` mean "unknown"."""

    network: nn.Module
    loss: Loss
    names: tuple[str, ...]
    size: int
    threshold: float
    told: Json

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]:
        """A verdict for every image, in order, by the energy."""
        logits_NC = outputs(self.network, images, device).logits_BC
        return self.verdicts(logits_NC, -logits_NC.logsumexp(1), self.threshold)

    def verdicts(self, logits_NC: Tensor, score_N: Tensor, threshold: float) -> Iterator[Prediction]:
        """A verdict for each row of logits and its score: above the threshold it is "unknown"."""
        known: Sequence[float | None] = [None] * len(score_N)
        if (phi := getattr(self.loss, "phi", None)) is not None:
            with torch.no_grad():
                known = phi(logits_NC).sigmoid().tolist()
        for s, w, k in zip(score_N.tolist(), logits_NC.argmax(1).tolist(), known, strict=True):
            name = self.names[w]
            answer = name if s <= threshold else "unknown"
            yield Prediction(answer=answer, score=s, threshold=threshold, likeliest=name, known=k)

    def save(self, folder: Path) -> None:
        """Writes the folder; `load` reads it."""
        self.save_weights(folder)
        write_json(folder / "classifier.json", self.described())

    def save_weights(self, folder: Path) -> None:
        """Writes the tensors alone."""
        save_tensors(folder / "model.safetensors", self.network.state_dict())
        if parameters := self.loss.state_dict():
            save_tensors(folder / "loss.safetensors", parameters)

    def described(self) -> Json:
        """All but the tensors, for `from_description`."""
        return {
            "names": self.names,
            "size": self.size,
            "threshold": self.threshold,
            "accepted": ACCEPTED,
            **self.told,
        }


def limit(score_N: Tensor, accepted: float = ACCEPTED) -> float:
    """The least of the scores at or below which at least that share of them lies."""
    return float(score_N.sort().values[math.ceil(accepted * len(score_N)) - 1])


def load(folder: Path, plugins: bool = True) -> Classifier:
    """The classifier in a folder; StoreError when there is none. Only JSON and safetensors are read; plug-ins as below."""
    if not (folder / "classifier.json").is_file():
        raise StoreError(
            f"{folder} holds no classifier: it has no classifier.json. A run's lie in RUN/classifier/NAME."
        )
    return from_description(read_json(folder / "classifier.json"), folder, plugins)


def from_description(told: Json, folder: Path, plugins: bool) -> Classifier:
    """The classifier so described, with its tensors in `folder`.

    Without `plugins` a loss named by its module is refused (StoreError), for that module would be imported; and so is a network
    in a file of another format.
    """
    told = dict(told)
    names, size, threshold = tuple(told.pop("names")), told.pop("size"), told.pop("threshold")
    check_plugin(told["loss"], folder, plugins)
    check_plugin(told["backbone"], folder, plugins, NAMED)
    network, loss = (
        backbone(told["backbone"], len(names)),
        make("losses", told["loss"], **told["loss_options"]),
    )
    network.load_state_dict(load_tensors(folder / "model.safetensors"))
    if loss.state_dict():
        loss.load_state_dict(load_tensors(folder / "loss.safetensors"))
    return Classifier(
        network=network.eval(), loss=loss, names=names, size=size, threshold=threshold, told=told
    )


def check_plugin(name: str, folder: Path, plugins: bool, harmless: Sequence[str] = ()) -> None:
    """Refuses a name that would run code from elsewhere, unless that is wanted."""
    if ":" in name and name.partition(":")[0] not in harmless and not plugins:
        raise StoreError(
            f"{folder} names the plug-in {name!r}, and loading it runs its code. Allow plug-ins if you trust both."
        )


class Predictor(Protocol):
    """What gives verdicts: a classifier, or a guard."""

    @property
    def size(self) -> int: ...

    @property
    def network(self) -> nn.Module: ...

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]: ...


def predict_files(
    classifier: Predictor, files: Sequence[Path], device: torch.device
) -> Iterator[tuple[Path, Prediction | str]]:
    """Each file with its verdict, or with the reason why it cannot be read; memory does not grow with their number."""
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        read: dict[int, Tensor] = {}
        problems: dict[int, str] = {}
        for i, file in enumerate(part):
            try:
                read[i] = read_image(file, classifier.size)
            except OSError as error:
                problems[i] = str(error)
        verdicts: Iterator[Prediction] = iter(())
        if read:
            verdicts = classifier(
                from_array("files", torch.stack(list(read.values())), torch.zeros(len(read)), ()), device
            )
        for i, file in enumerate(part):
            yield file, problems[i] if i in problems else next(verdicts)
