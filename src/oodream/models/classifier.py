"""A trained classifier with all that it takes to use it: network, class names, image size, loss and
threshold.

On disk it is a folder of `model.safetensors`, `loss.safetensors` (where the loss has weights) and
`classifier.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import StoreError, brief, first_line, shown
from ..core.files import read_json, write_json
from ..core.folders import check_is_there
from ..core.options import is_number, is_whole
from ..core.registry import make
from ..core.tensors import load_tensors, save_tensors
from ..core.threads import MAKING
from ..core.types import Json, Loss
from ..data.images import Images, from_array
from ..runtime.answers import Outputs, Prediction, predictions
from ..runtime.description import MAX_SIZE
from .external import Adapted
from .inference import Extractor, network_device, weights_hash
from .opened import Opened, Said, opened, rebuild
from .published import Preprocessing, Published

__all__ = [
    "ACCEPTED",
    "HARMLESS",
    "Classifier",
    "check_plugin",
    "from_description",
    "from_squares",
    "is_classifier",
    "is_code",
    "load_classifier",
    "load_teacher",
    "open_classifier",
    "quantile_threshold",
]

ACCEPTED = 0.95
HARMLESS = ("timm", "hf", "torchvision", "onnx")  # their networks run no code from elsewhere


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network of one output for each of `names`, on images `size` pixels wide and high.

    `white` is the value of white in pictures of more than 8 bits, 0 where training had none. Images whose
    energy exceeds `threshold` are flagged. `settings` names the backbone and the loss with its options, and
    holds what else its file says.
    """

    network: nn.Module
    loss: Loss
    names: tuple[str, ...]
    size: int
    threshold: float
    settings: Json
    white: float = 0.0

    def __call__(self, images: Images, device: torch.device) -> Iterator[Prediction]:
        """A prediction for every image of a set, in order, by the energy."""
        logits_NC = self.extractor(device)(images).logits_BC
        outputs = self.outputs(logits_NC, -logits_NC.logsumexp(1))
        return predictions(self.names, outputs, np.full(len(logits_NC), self.threshold))

    def of_squares(self, images_B3SS: NDArray[np.uint8]) -> Iterator[Prediction]:
        """A prediction for each uint8 square (B, 3, S, S) of its size, in order, where the network is."""
        return self(from_squares(images_B3SS), network_device(self.network))

    def tensors(self) -> dict[str, Tensor]:
        """The network's and the loss's."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return tensors | {f"loss.{name}": tensor for name, tensor in self.loss.state_dict().items()}

    def identity(self) -> Json:
        """All that answers depend on, beside the pictures: a hash `guard` of network and loss, the
        guaranteed `alpha`, which is None, and the `threshold`.
        """
        digest = weights_hash(self.tensors(), json.dumps([self.described()]))
        return {"guard": digest, "alpha": None, "threshold": self.threshold}

    def extractor(self, device: torch.device | str = "cpu", cache: Path | None = None) -> Extractor:
        """The network with its loss, for outputs of whole sets; moves the network to the device."""
        return Extractor(self.network, loss=self.loss, device=device, cache=cache)

    def outputs(self, logits_NC: Tensor, score_N: Tensor) -> Outputs:
        """What answers are made of, from logits and scores."""
        known_N = None
        if (phi := getattr(self.loss, "phi", None)) is not None:
            with torch.no_grad():
                known_N = phi(logits_NC).sigmoid().numpy()
        return Outputs(logits_BC=logits_NC.numpy(), score_B=score_N.cpu().numpy(), known_B=known_N)

    def save(self, folder: Path) -> None:
        """Writes the folder; `load_classifier` reads it."""
        self.save_weights(folder)
        write_json(folder / "classifier.json", self.described(), sealed=True)

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
            "white": self.white,
            "accepted": ACCEPTED,
            **self.settings,
        }


def from_squares(images_B3SS: NDArray[np.uint8]) -> Images:
    """Squares (B, 3, S, S) as an image set without labels."""
    return from_array("pictures", torch.from_numpy(images_B3SS), torch.zeros(len(images_B3SS)), ())


def quantile_threshold(score_N: Tensor, accepted: float = ACCEPTED) -> float:
    """The smallest of the scores at or below which at least the share `accepted` of them lies."""
    return float(score_N.sort().values[math.ceil(accepted * len(score_N)) - 1])


def load_classifier(folder: Path, plugins: bool = True) -> Classifier:
    """The classifier in a folder, of which only JSON and safetensors are read; plug-ins as in
    `from_description`.

    Raises StoreError when there is none.
    """
    return from_description(_read_description(folder), folder, plugins)


def load_teacher(folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The network of the classifier in a folder, and its class names. Its loss is not made: a plug-in that it
    was trained with is not needed.

    Raises StoreError when there is none, and for one whose network runs code from elsewhere.
    """
    settings = _checked(_read_description(folder), folder)
    if is_code(settings["backbone"], HARMLESS):
        raise StoreError(
            f"The classifier in {shown(folder)} cannot be a teacher: loading its {settings['backbone']!r} "
            f"runs code from elsewhere. Name one whose network is built in, or of {', '.join(HARMLESS)}."
        )
    with _explained(folder):
        return _network(settings, folder).eval(), tuple(settings["names"])


def _read_description(folder: Path) -> Json:
    """What the classifier.json in a folder holds; StoreError where there is no classifier."""
    check_is_there(folder)
    if not is_classifier(folder):
        raise StoreError(
            f"{folder} holds no classifier: it has no classifier.json. A run's lie in RUN/classifier/NAME."
        )
    description: Json = read_json(folder / "classifier.json")
    return description


def is_classifier(folder: Path) -> bool:
    """Whether a folder is a classifier's, as `load_classifier` reads it."""
    return (folder / "classifier.json").is_file()


def open_classifier(folder: Path, said: Said, plugins: bool = False) -> Opened:
    """The network of the classifier in a folder, as `opened.open_network` opens other ones: for whole
    pictures of its size, with its class names, unless the user has `said` otherwise.

    Raises what `load_classifier` and `opened.opened` raise.
    """
    one = load_classifier(folder, plugins)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if isinstance(one.network, Adapted):
        mean, std = (tuple(values.flatten().tolist()) for values in (one.network.mean, one.network.std))
    own = Preprocessing(size=one.size, resized=one.size, mean=mean, std=std)
    facts = Published(preprocessing=own, names=tuple((name,) for name in one.names))
    return opened(one.settings["backbone"], one.network, facts, said)


def from_description(description: Json, folder: Path, plugins: bool) -> Classifier:
    """The classifier so described, with its tensors in `folder`.

    Raises StoreError for a description that lacks something; and, without `plugins`, for a loss named by its
    module, for that module would be imported, and for a network in a file of another format, for loading that
    may run code.
    """
    settings = _checked(description, folder)
    check_plugin(settings["loss"], folder, plugins)
    check_plugin(settings["backbone"], folder, plugins, harmless=HARMLESS)
    with _explained(folder):
        network = _network(settings, folder)
        with MAKING:
            loss = make("losses", settings["loss"], **settings["loss_options"])
        if loss.state_dict():
            loss.load_state_dict(load_tensors(folder / "loss.safetensors"))
    names, size, threshold, white = (settings.pop(key) for key in ("names", "size", "threshold", "white"))
    return Classifier(
        network=network.eval(),
        loss=loss,
        names=tuple(names),
        size=size,
        threshold=threshold,
        settings=settings,
        white=white,
    )


def _network(settings: Json, folder: Path) -> nn.Module:
    """The network that a description names, with its tensors in `folder`."""
    state = load_tensors(folder / "model.safetensors")
    with MAKING:
        return rebuild(settings, len(settings["names"]), settings["size"], state)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Within the block, whatever a network raises that is asked to be what it is not is a StoreError."""
    try:
        yield
    except (ValueError, StoreError):
        raise
    except Exception as error:
        raise StoreError(
            f"The classifier in {shown(folder)} cannot be made as its classifier.json says: "
            f"{first_line(error)}"
        ) from error


def _checked(description: Json, folder: Path) -> Json:
    """A copy of a description that is whole; StoreError for another."""
    needed = ("names", "size", "threshold", "white", "loss", "loss_options", "backbone")
    if not isinstance(description, dict) or (missing := [key for key in needed if key not in description]):
        lacks = f"it has no {missing[0]!r}" if isinstance(description, dict) else "it is no object"
        raise StoreError(
            f"The classifier.json in {folder} is damaged or of another version: {lacks}. "
            "Train again: the command of the run with --redo classifier"
        )
    if wrong := next((what for what, right in _rules(description) if not right), ""):
        raise StoreError(
            f"The classifier.json in {shown(folder)} is damaged: its {wrong!r} is "
            f"{brief(description[wrong])}."
        )
    return dict(description)


def _rules(description: Json) -> list[tuple[str, bool]]:
    """What each part of a description must be."""
    names, size, center = description["names"], description["size"], description.get("center", 0)
    sizes = [
        (key, is_whole(n) and least <= n <= MAX_SIZE)
        for key, n, least in (("size", size, 1), ("center", center, 0))
    ]
    numbers = [(key, is_number(description[key])) for key in ("threshold", "white")]
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return [
        ("names", texts and 0 < len(names) == len({*names})),
        *sizes,
        *numbers,
        ("loss", isinstance(description["loss"], str)),
        ("loss_options", isinstance(description["loss_options"], dict)),
        ("backbone", isinstance(description["backbone"], str)),
        ("configuration", isinstance(description.get("configuration", {}), dict)),
    ]


def is_code(name: str, harmless: Sequence[str] = ()) -> bool:
    """Whether making what is called so runs code from elsewhere: a module's, or that of a network's file, but
    for the `harmless` families.
    """
    return ":" in name and name.partition(":")[0] not in harmless


def check_plugin(name: str, folder: Path, plugins: bool, harmless: Sequence[str] = ()) -> None:
    """Raises StoreError for a name that would run code from elsewhere, unless that is wanted."""
    if is_code(name, harmless) and not plugins:
        raise StoreError(
            f"{folder} names the plug-in {name!r}, and loading it runs its code. If you trust the folder and "
            "that code, allow it with --plugins (in Python plugins=True)."
        )
