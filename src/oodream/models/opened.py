"""Somebody's trained network, opened for use and made again from what a folder says of it.

Its pre-processing is its own where it says so (`published`), else the user's. A network gets squares of
`resized` pixels and takes their middle itself, so pictures are read in one way for all networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import StoreError, first_line
from ..core.faults import blamed
from ..core.registry import imported
from ..core.types import Json, Output
from .external import ADAPTERS, Adapted, from_configuration, split
from .factory import backbone, load_weights, trained_network
from .published import Preprocessing, Published, Triple, published
from .serialized import FORMATS, FromFile, cut_head, format_of, from_state

__all__ = [
    "Center",
    "Opened",
    "Said",
    "full_name",
    "is_factory",
    "normalisation",
    "normalise",
    "normalises",
    "open_network",
    "opened",
    "rebuild",
    "tried_out",
]

SUFFIXES = (".onnx", ".pt2", ".pt", ".pth", ".ts", ".torchscript")  # of networks in files
MORE = 100_000_000  # weights that a network may have beside those in its file
UNSAID = (
    "{name} does not say how its pixels are normalised. Give --mean and --std for pixels in [0, 1]: most "
    "networks have ImageNet's, --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225; with --mean 0 --std 1 "
    "pixels stay in [0, 1], as for a file that normalises them itself."
)
FACTORY_ARGUMENTS = (
    "It takes no arguments and returns a torch.nn.Module that makes logits of normalised images."
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a user says of a network's pre-processing: 0 or empty where the network's own holds."""

    size: int = 0
    crop: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network on uint8 squares of `preprocessing.resized` pixels, and all names of each of its outputs, as
    far as they are known. `settings` are what `rebuild` needs; `normalised` says that the network itself says
    how.
    """

    name: str
    network: Center
    preprocessing: Preprocessing
    names: tuple[tuple[str, ...], ...]
    settings: Json
    normalised: bool

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.try_out().logits_BC.shape[1]

    def try_out(self) -> Output:
        """Its outputs for two images of noise; ValueError where it cannot be run on images of this size."""
        return tried_out(self.name, self.network, self.preprocessing.size, self.preprocessing.resized)


@torch.no_grad()
def tried_out(name: str, network: nn.Module, size: int, side: int = 0) -> Output:
    """The network's outputs for two images of noise, `side` pixels wide (0: `size`); ValueError where it
    cannot be run on images of `size` pixels.
    """
    g, side = torch.Generator().manual_seed(0), side or size
    noise = torch.randint(0, 256, (2, 3, side, side), generator=g, dtype=torch.uint8)
    try:
        output: Output = network.eval()(noise)
    except Exception as error:  # whatever a stranger's network raises
        raise ValueError(
            f"{name} cannot be run on images of {size} x {size} pixels: {first_line(error)} "
            "Give another --size."
        ) from error
    return output


class Center(nn.Module):
    """A network that takes the middle `side` pixels of its images; its weights lie as processors like
    them.
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def head(self) -> nn.Module | None:
        return getattr(self.network, "head", None)

    def forward(self, images_B3HW: Tensor) -> Output:
        start = (images_B3HW.shape[-1] - self.side) // 2
        stop = start + self.side
        output: Output = self.network(images_B3HW[..., start:stop, start:stop])
        return output

    def choose(self, rows_C: Tensor) -> None:
        """Makes those of the network's classes its only ones that stand at `rows_C`, in this order."""
        network: Any = self.network
        if isinstance(network, (Adapted, FromFile)):
            network.choose(rows_C)
        else:
            network.head = cut_head(network.head, rows_C)

    @property
    def normalises(self) -> bool:
        """Whether pixels are normalised as `normalise` says."""
        return normalises(self.network)

    def normalise(self, mean: Triple, std: Triple) -> None:
        """Takes pixels in [0, 1] less `mean` over `std` from now on."""
        normalise(self.network, mean, std)

    def extra_repr(self) -> str:
        return f"side={self.side}"


def normalises(network: nn.Module) -> bool:
    """Whether a network's pixels are normalised by a mean and a standard deviation that it holds."""
    return isinstance(network, Adapted) or (isinstance(network, FromFile) and not network.takes_bytes)


def normalise(network: nn.Module, mean: Triple, std: Triple) -> None:
    """Has the network take pixels in [0, 1] less `mean` over `std` from now on."""
    held: Any = network
    held.mean.copy_(torch.tensor(mean).view(-1, 1, 1))
    held.std.copy_(torch.tensor(std).view(-1, 1, 1))


def full_name(model: str) -> str:
    """A network's name with its family: that of a file is found by its content.

    Raises ValueError for a file of another kind.
    """
    family, _, rest = model.partition(":")
    file = Path(rest if family in FORMATS and rest else model)
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder. A model of transformers in one is called hf:{file}; of a run name one of "
            "its classifiers, as RUN/classifier/baseline-s0."
        )
    if not file.is_file():
        if file.suffix in SUFFIXES:
            raise ValueError(f"{file} does not exist.")
        return model
    found = format_of(file)
    if not found:
        raise ValueError(
            f"{file} is no ONNX file, exported program (torch.export.save) or TorchScript file. Weights "
            f"alone are "
            "no network: name the network with --model, and a safetensors file of its weights with --weights."
        )
    return f"{found}:{file}"


def open_network(model: str, weights: Path | None, said: Said, plugins: bool = False) -> Opened:
    """A network with its published weights, those in a file, or those that its factory gives it.

    `model` is FAMILY:NAME, a file, or with `plugins` package.module:factory. Raises ValueError for what
    cannot be opened; and where neither the network nor the user says how pictures become its input, with what
    to give.
    """
    name = full_name(model)
    network: nn.Module
    facts = Published()
    if is_factory(name):
        if not plugins:
            raise ValueError(
                f"{name} is a module of yours, whose code would be run. Allow that with --plugins."
            )
        network = _from_factory(name, lambda: _preprocessing(name, None, said, True))
        if weights is not None:
            load_weights(network, weights)
    else:
        network = trained_network(name, weights)
        facts = published(name, network)
    if isinstance(network, FromFile):
        said = replace(said, size=said.size or network.size)
    return opened(name, network, facts, said)


def opened(name: str, network: nn.Module, facts: Published, said: Said) -> Opened:
    """A network that is at hand under its full name, with what is published of it, or said in its place.

    Raises ValueError for a pre-processing that is not known, or cannot be.
    """
    settings = _settings(name)
    if name.startswith("hf:"):
        settings["configuration"] = _configuration(network)
    preprocessing = _preprocessing(name, facts.preprocessing, said, normalises(network))
    center = Center(network.eval(), preprocessing.size)
    if center.normalises:
        center.normalise(preprocessing.mean, preprocessing.std)
    return Opened(
        name=name, network=center, preprocessing=preprocessing, names=facts.names,
        settings={**settings, "center": preprocessing.size}, normalised=not (center.normalises and said.mean),
    )  # fmt: skip


def rebuild(settings: Json, classes: int, size: int, state: Mapping[str, Tensor]) -> nn.Module:
    """The network that `settings` describe, for images of `size` pixels, with its tensors.

    Raises ValueError where it cannot be made, and StoreError where the tensors are another network's.
    """
    name, center = settings["backbone"], settings.get("center", 0)
    family, _, rest = name.partition(":")
    if center:
        state = {key.removeprefix("network."): tensor for key, tensor in state.items()}
    if family in FORMATS:
        network = from_state(family, rest, state)
    elif "configuration" in settings:
        _check_size(name, lambda: from_configuration(rest, settings["configuration"], classes), state)
        network = from_configuration(rest, settings["configuration"], classes)
    elif is_factory(name):
        plain = Preprocessing(size=center, resized=size, mean=(0.0,) * 3, std=(1.0,) * 3)
        network = _from_factory(name, lambda: plain)
        network.choose(torch.arange(classes))
    else:
        if family in ADAPTERS:
            _check_size(name, lambda: backbone(name, classes), state)
        network = backbone(name, classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise StoreError(f"The tensors are not those of {name}: {first_line(error)}") from error
    return Center(network, center) if center else network


def _check_size(name: str, make: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> None:
    """Raises StoreError for a network of far more weights than there are, before it takes memory."""
    try:
        with torch.device("meta"):
            wanted = sum(weight.numel() for weight in make().parameters())
    except Exception:  # of a network that needs its values to be made; what is wrong with it is said next
        return
    if wanted > (there := sum(tensor.numel() for tensor in state.values())) + MORE:
        raise StoreError(
            f"{name} has {wanted:,} weights, and there are {there:,}: they are another network's."
        )


def normalisation(name: str, said: Said, holds: bool) -> tuple[Triple, Triple] | None:
    """The mean and standard deviation that the user says; None where none is said.

    Raises ValueError for one without the other, for values that cannot be, and where the network, called
    `name`, holds none that could be others.
    """
    if not (said.mean or said.std):
        return None
    if not holds:
        raise ValueError(f"{name} normalises its pixels itself; leave --mean and --std out.")
    if not (said.mean and said.std):
        raise ValueError(f"--mean and --std go together: give {'--std' if said.mean else '--mean'}, too.")
    mean, std = _triple("mean", said.mean), _triple("std", said.std)
    if min(std) <= 0:
        raise ValueError(f"--std is above 0, and not {min(std):g}.")
    return mean, std


def _preprocessing(name: str, own: Preprocessing | None, said: Said, holds: bool) -> Preprocessing:
    """The network's own pre-processing with what the user says in its place; it `holds` a mean and a standard
    deviation.
    """
    given = normalisation(name, said, holds)
    if own is None and holds and given is None:
        raise ValueError(UNSAID.format(name=name))
    own = own or Preprocessing(size=0, resized=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    size = said.size or own.size
    if not size:
        raise ValueError(f"{name} does not say how large its images are. Give --size, as --size 224.")
    crop = said.crop or (own.size / own.resized if own.size else 1.0)
    mean, std = given or (own.mean, own.std)
    return Preprocessing(size=size, resized=round(size / crop), mean=mean, std=std, remarks=own.remarks)


def _triple(key: str, values: Sequence[float]) -> Triple:
    if len(values) not in (1, 3):
        raise ValueError(f"--{key} has one value, or three for red, green and blue, and not {len(values)}.")
    red, green, blue = values if len(values) == 3 else (*values, *values, *values)
    return red, green, blue


def is_factory(name: str) -> bool:
    """Whether a name is package.module:factory, and none of a family."""
    family, colon, _ = name.partition(":")
    return bool(colon) and family not in ADAPTERS


def _from_factory(name: str, preprocessing: Callable[[], Preprocessing]) -> Adapted:
    factory = imported(name, "network")
    with blamed(f"The network {name!r}", factory):
        network = factory()
    if isinstance(network, Adapted):
        return network
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} returns a {type(network).__name__}. {FACTORY_ARGUMENTS}")
    own = preprocessing()
    return split(network, own.size, own.mean, own.std)


def _settings(name: str) -> Json:
    """What `rebuild` calls a network: without the folder of a file or of a model."""
    family, _, rest = name.partition(":")
    return {"backbone": f"{family}:{Path(rest).name}" if family in (*FORMATS, "hf") else name}


def _configuration(network: Any) -> Json:
    """A transformers network's configuration, without the place that it came from."""
    configuration: Json = network.body.config.to_dict()
    configuration.pop("_name_or_path", None)
    return configuration
