"""One pass of a network over an image set: its outputs, and what detectors want of the images beside them.

An `Extractor` is a network with all that a pass needs. It can keep outputs in files, whose names are hashes
of all that they depend on: weights, architecture, images and probes. So nothing old is ever taken for new,
and a second look at the same set costs a read.
"""

from __future__ import annotations

import hashlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core import parallel
from ..core.ahead import ahead
from ..core.device import on_device
from ..core.faults import blamed, require
from ..core.memory import MemoryShort, out_of_memory
from ..core.parallel import side_by_side
from ..core.progress import counter
from ..core.tensors import kept_tensors, save_tensors
from ..core.types import ForwardPass, Head, Loss, Output, Probe
from ..data.images import Images
from .feature_maps import outputs_of, pooled_module

__all__ = [
    "IMAGES_READ_AT_ONCE",
    "Compute",
    "Extractor",
    "PatientExtractor",
    "cost",
    "head_of",
    "joined",
    "linear_head",
    "network_device",
    "outputs",
    "weights_hash",
]

IMAGES_READ_AT_ONCE = 512
"""a pass over a whole set is one over parts of so many, bit by bit"""
IMAGES_KEPT_TOGETHER = 128  # in one file of a cache, where a pass is long
IMAGES_ON_A_PROCESSOR = 32  # its caches hold the activations of so many small ones
PIXELS_ON_A_PROCESSOR = 4 * 224**2  # of more, memory for activations is fetched and given back at every layer
IMAGES_WITH_GRADIENTS = 128  # at most, for a graph is kept

Compute = Callable[[nn.Module, Images, torch.device, int, Sequence[Probe]], Output]
"""What `outputs` is: a network that is on the device, image set, images at once, probes."""


class Extractor:
    """A network on a device, with the loss it was trained with: outputs for image sets, and its head.

    In the folder `cache` outputs are kept in files. The weights are hashed once, and so are a set's images,
    when they are first needed: neither may change while the extractor is in use. `compute` takes the place of
    `outputs`, to have the work done elsewhere.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Loss | None = None,
        device: torch.device | str = "cpu",
        cache: Path | None = None,
        compute: Compute | None = None,
    ) -> None:
        self.compute = compute or outputs
        self.network, self.loss, self.device, self.cache = network, loss, torch.device(device), cache
        self._identities: dict[int, tuple[weakref.ref[Images], str]] = {}
        network.to(self.device)

    @cached_property
    def weights_hash(self) -> str:
        """The hash of what the network computes: its layers as they describe themselves, weights and
        buffers.
        """
        return weights_hash(self.network.state_dict(), f"{type(self.network).__qualname__}{self.network}")

    @property
    def head(self) -> Head | None:
        """The network's last layer, with the class weights of its loss; None where it shows no linear
        `head`.
        """
        return head_of(self.network, self.loss)

    def __call__(self, images: Images, probes: Sequence[Probe] = (), batch: int = 0) -> Output:
        """The network's outputs for a whole set, with what `probes` make of the images.

        They come in order, on the CPU, and are computed in evaluation mode, `batch` images at once (0: as
        many as are fastest). Raises ValueError for an empty set, or a probe that the network cannot serve.
        """
        if self.cache is None:
            return self.compute(self.network, images, self.device, batch, probes)
        stem = f"{self.weights_hash}-{self._identity(images)}"
        files = {probe.key: self.cache / f"{stem}-{_short(probe.key)}.safetensors" for probe in probes}
        base = self.cache / f"{stem}.safetensors"
        kept, probed = kept_tensors(base), {key: kept_tensors(file) for key, file in files.items()}
        missing = [probe for probe in probes if not probed[probe.key]]
        if missing or not kept:
            output = self.compute(self.network, images, self.device, batch, missing)
            if not kept:
                kept = {"logits_BC": output.logits_BC, "z_BF": output.z_BF}
                save_tensors(base, kept)
            for probe in missing:
                probed[probe.key] = {"probe": output.probes[probe.key]}
                save_tensors(files[probe.key], probed[probe.key])
        return Output(**kept, probes={key: tensors["probe"] for key, tensors in probed.items()})

    def _identity(self, images: Images) -> str:
        known = self._identities.get(id(images))
        if known is None or known[0]() is not images:  # an id is used again once its object is gone
            known = self._identities[id(images)] = weakref.ref(images), images.identity()
        return known[1]


class PatientExtractor(Extractor):
    """An extractor for long passes: it shows how far one is, and with a cache keeps it part by part, so that
    one that was stopped goes on from there. The outputs of every set stay in memory.
    """

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__(network, **options)
        self._results: dict[tuple[int, tuple[str, ...]], tuple[Images, Output]] = {}

    def __call__(self, images: Images, probes: Sequence[Probe] = (), batch: int = 0) -> Output:
        key = id(images), tuple(sorted(probe.key for probe in probes))
        if key not in self._results:
            self._results[key] = images, self._in_parts(images, probes, batch)
        return self._results[key][1]

    def _in_parts(self, images: Images, probes: Sequence[Probe], batch: int) -> Output:
        parts: list[Output] = []
        with counter(total=len(images), what=images.name, unit="image") as line:
            for rows in torch.arange(len(images)).split(IMAGES_KEPT_TOGETHER):
                parts.append(super().__call__(images.subset(rows), probes, batch))
                line.update(len(rows))
        return joined(parts)


def joined(outputs: Sequence[Output]) -> Output:
    """The rows of all outputs, which have the same probes."""
    return Output(
        logits_BC=torch.cat([part.logits_BC for part in outputs]),
        z_BF=torch.cat([part.z_BF for part in outputs]),
        probes={key: torch.cat([part.probes[key] for part in outputs]) for key in outputs[0].probes},
    )


def network_device(network: nn.Module) -> torch.device:
    """Where a network's tensors are."""
    return next(chain(network.parameters(), network.buffers())).device


def linear_head(network: nn.Module) -> Head | None:
    """The parameters of the network's last layer themselves; None where it shows no linear `head`."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        return None
    bias: Tensor | None = head.bias
    return Head(
        weight_CF=head.weight, bias_C=head.weight.new_zeros(len(head.weight)) if bias is None else bias
    )


def head_of(network: nn.Module, loss: Loss | None = None) -> Head | None:
    """A copy on the CPU of the network's last layer, with the class weights of its `loss`; None where it
    shows no linear `head`.
    """
    if (head := linear_head(network)) is None:
        return None
    energy = getattr(loss, "energy_C", None)
    return Head(
        weight_CF=head.weight_CF.detach().cpu(),
        bias_C=head.bias_C.detach().cpu(),
        energy_C=None if energy is None else energy.detach().cpu(),
    )


@torch.no_grad()
def cost(network: nn.Module, size: int) -> tuple[int, int]:
    """A network's parameters, and the floating-point operations that one image of `size` pixels a side takes.

    Operations are those of convolutions, matrix products and attention; a multiplication and an addition
    count as one each.
    """
    training = network.training
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=network_device(network))
    with FlopCounterMode(display=False) as counter:
        network.eval()(image)
    network.train(training)
    return sum(p.numel() for p in network.parameters()), int(counter.get_total_flops())


def weights_hash(state: Mapping[str, Tensor], description: str = "") -> str:
    """A hash of named tensors and of a text that says what is computed with them: 32 hexadecimal digits."""
    digest = hashlib.blake2b(description.encode(), digest_size=16)
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def outputs(
    network: nn.Module, images: Images, device: torch.device, batch: int = 0, probes: Sequence[Probe] = ()
) -> Output:
    """As an `Extractor` without a cache, of a network that is on the device.

    On a CPU several batches are computed side by side, each on one thread; not so for probes, which may
    change the network while they look. Where memory does not hold a batch, it is halved with a warning.
    Raises MemoryShort where it holds no single image, and ValueError for a probe that fails (see
    `faults.blamed`).
    """
    if not len(images):
        raise ValueError(f"The set {images.name!r} is empty.")
    gradient = any(probe.wants == "gradient" for probe in probes)
    batch = batch or _fastest_batch(device, images.size)
    batch = min(batch, IMAGES_WITH_GRADIENTS) if gradient else batch
    pooled = pooled_module(network, images, device) if any(p.wants == "map" for p in probes) else None
    at_once = parallel.CORES if device.type == "cpu" and not probes and len(images) > batch else 1
    network.eval()
    parts: list[Output] = []

    def forward(x: Tensor) -> Output:
        return _forward(network, x, probes, gradient, pooled)

    for read in _read(images, device):
        start = 0
        while start < len(read):
            try:
                for part in side_by_side(forward, read[start:].split(batch), at_once):
                    parts.append(part)
                    start += len(part.logits_BC)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if at_once == 1:
                    batch = _halved(min(batch, len(read) - start), images, device, error)
                at_once = 1
    return joined(parts)


def _read(images: Images, device: torch.device) -> Iterator[Tensor]:
    """All images on the device, many at a time; beside a GPU the next ones are read meanwhile."""
    parts = (on_device(pixels, device) for pixels, _ in images.batches(IMAGES_READ_AT_ONCE))
    return parts if device.type == "cpu" else ahead(parts)


def _forward(
    network: nn.Module, x: Tensor, probes: Sequence[Probe], gradient: bool, pooled: nn.Module | None
) -> Output:
    """One batch's outputs, on the CPU."""
    if probes:
        x = x.float().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient), outputs_of(pooled) as maps:
        output = _output(network, x)
    forward = ForwardPass(model=network, images_B3HW=x, output=output, map_BFHW=maps[-1] if maps else None)
    return Output(
        logits_BC=output.logits_BC.detach().cpu(),
        z_BF=output.z_BF.detach().cpu(),
        probes={probe.key: _probed(probe, forward) for probe in probes},
    )


def _probed(probe: Probe, forward: ForwardPass) -> Tensor:
    """What a probe makes of a batch, on the CPU; ValueError, which names it, for what it does wrong."""
    with blamed(f"The probe {probe.key!r}", probe):
        values = probe(forward)
        whole = isinstance(values, Tensor) and values.shape[:1] == forward.images_B3HW.shape[:1]
        require(whole, "It returns a tensor with a row for each image")
        return values.detach().cpu()


def _output(network: nn.Module, x: Tensor) -> Output:
    """What a network makes of images; ValueError for one that does not take them as they are."""
    advice = (
        f"A {type(network).__name__} is no network on uint8 images that returns an Output. Make one of it: "
        "split(network, size, mean, std) (docs/detectors.md)."
    )
    try:
        if isinstance(output := network(x), Output):
            return output
    except RuntimeError as error:
        if "unsigned char" not in str(error):  # what a layer of floats says of bytes
            raise
    raise ValueError(advice)


def _halved(batch: int, images: Images, device: torch.device, error: BaseException) -> int:
    """Half of a batch that memory did not hold, with a warning."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if batch == 1:
        raise MemoryShort(
            f"Memory does not hold the network's work on one image of {images.name}, {images.size} pixels a "
            "side. Use a smaller network or a device with more memory. What is finished is kept."
        ) from error
    warnings.warn(
        f"Memory does not hold {batch} images of {images.name}: from here on {batch // 2} are computed "
        "together, and outputs may differ in their last bits.",
        stacklevel=3,
    )
    return batch // 2


def _fastest_batch(device: torch.device, size: int) -> int:
    """How many images of `size` pixels a side are computed at once."""
    if device.type != "cpu":
        return IMAGES_READ_AT_ONCE
    return max(1, min(IMAGES_ON_A_PROCESSOR, PIXELS_ON_A_PROCESSOR // size**2))


def _short(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
