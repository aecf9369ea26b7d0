"""A trained classifier with all that it takes to use it: network, class names, image size, phi, and the limit of what is known.

On disk it is a folder of `model.safetensors`, `loss.safetensors` (phi's parameters, where there are some) and `classifier.json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .images import Images, from_array, read_image
from .passes import outputs
from .registry import make
from .store import StoreError, load_tensors, read_json, save_tensors, write_json
from .types import Json, Loss
from .vision import backbone

ACCEPTED = 0.95
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Verdict:
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

    def __call__(self, images: Images, device: torch.device) -> Iterator[Verdict]:
        """A verdict for every image, in order."""
        logits = outputs(self.network, images, device).logits_BC
        score, winner = -logits.logsumexp(1), logits.argmax(1)
        known: Sequence[float | None] = [None] * len(score)
        if (phi := getattr(self.loss, "phi", None)) is not None:
            with torch.no_grad():
                known = phi(logits).sigmoid().tolist()
        for s, w, k in zip(score.tolist(), winner.tolist(), known, strict=True):
            name = self.names[w]
            answer = name if s <= self.threshold else "unknown"
            yield Verdict(answer=answer, score=s, threshold=self.threshold, likeliest=name, known=k)

    def save(self, folder: Path) -> None:
        """Writes the folder; `load` reads it."""
        save_tensors(folder / "model.safetensors", self.network.state_dict())
        if parameters := self.loss.state_dict():
            save_tensors(folder / "loss.safetensors", parameters)
        write_json(
            folder / "classifier.json",
            {"names": self.names, "size": self.size, "threshold": self.threshold, "accepted": ACCEPTED, **self.told},
        )


def limit(score_N: Tensor, accepted: float = ACCEPTED) -> float:
    """The least of the scores at or below which at least that share of them lies."""
    return float(score_N.sort().values[math.ceil(accepted * len(score_N)) - 1])


def load(folder: Path) -> Classifier:
    """The classifier in a folder; StoreError when there is none. Only JSON and safetensors are read."""
    if not (folder / "classifier.json").is_file():
        raise StoreError(f"{folder} holds no classifier: it has no classifier.json. A run's lie in RUN/classifier/NAME.")
    told = read_json(folder / "classifier.json")
    names, size, threshold = tuple(told.pop("names")), told.pop("size"), told.pop("threshold")
    network, loss = backbone(told["backbone"], len(names)), make("losses", told["loss"], **told["loss_options"])
    network.load_state_dict(load_tensors(folder / "model.safetensors"))
    if loss.state_dict():
        loss.load_state_dict(load_tensors(folder / "loss.safetensors"))
    return Classifier(network=network.eval(), loss=loss, names=names, size=size, threshold=threshold, told=told)


def score_files(classifier: Classifier, files: Sequence[Path], device: torch.device) -> Iterator[tuple[Path, Verdict | str]]:
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
        verdicts: Iterator[Verdict] = iter(())
        if read:
            verdicts = classifier(from_array("files", torch.stack(list(read.values())), torch.zeros(len(read)), ()), device)
        for i, file in enumerate(part):
            yield file, problems[i] if i in problems else next(verdicts)
