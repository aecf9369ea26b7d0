"""One pass of a network over an image set: its outputs, and what detectors want of the images beside them.

Outputs can be kept in files, whose names are hashes of all they depend on: weights, architecture and images. So nothing old is ever
taken for new, and a second look at the same set costs a read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.files import load_tensors, save_tensors
from ..core.types import ForwardPass, Head, Loss, Output, Probe
from ..data.images import Images

READ = 512  # images read at once
COMPUTED_TOGETHER = {"cpu": 32}  # images computed at once: a processor's caches hold so many activations
WITH_GRADIENTS = 128  # images at once, at most, where a graph is kept


class Extractor:
    """A network on a device, with the loss it was trained with: outputs for image sets, and its head.

    In the folder `cache` outputs are kept in files, whose names are hashes of all they depend on: weights, architecture, images and
    probes. The weights are hashed once, at the first look.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Loss | None = None,
        device: torch.device | str = "cpu",
        cache: Path | None = None,
    ) -> None:
        self.network, self.loss, self.device, self.cache = network, loss, torch.device(device), cache
        network.to(self.device)

    @cached_property
    def weights_hash(self) -> str:
        """The hash of what the network computes."""
        return weights_hash(self.network)

    @property
    def head(self) -> Head | None:
        """The network's last layer, with the class weights of its loss; None where it shows no linear `head`."""
        return head_of(self.network, self.loss)

    def __call__(self, images: Images, probes: Sequence[Probe] = (), batch: int = 0) -> Output:
        """The network's outputs for a whole set, in order, in evaluation mode, on the CPU, with what `probes` make of the images.

        `batch` images are computed at once; 0: as many as are fastest. Raises ValueError for an empty set.
        """
        if self.cache is None:
            return outputs(self.network, images, self.device, batch, probes)
        stem = f"{self.weights_hash}-{images.identity()}"
        files = {probe.key: self.cache / f"{stem}-{_short(probe.key)}.safetensors" for probe in probes}
        base = self.cache / f"{stem}.safetensors"
        missing = [probe for probe in probes if not files[probe.key].exists()]
        if missing or not base.exists():
            output = outputs(self.network, images, self.device, batch, missing)
            if not base.exists():
                save_tensors(base, {"logits_BC": output.logits_BC, "z_BF": output.z_BF})
            for probe in missing:
                save_tensors(files[probe.key], {"probe": output.probes[probe.key]})
        return Output(
            **load_tensors(base), probes={key: load_tensors(file)["probe"] for key, file in files.items()}
        )


def head_of(network: nn.Module, loss: Loss | None = None) -> Head | None:
    """The network's last layer, with the class weights of its `loss`; None where it shows no linear `head`."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        return None
    weight, bias = head.weight.detach().cpu(), head.bias
    bias_C = weight.new_zeros(len(weight)) if bias is None else bias.detach().cpu()
    energy = getattr(loss, "energy_C", None)
    return Head(weight_CF=weight, bias_C=bias_C, energy_C=None if energy is None else energy.detach().cpu())


@torch.no_grad()
def cost(model: nn.Module, size: int) -> tuple[int, int]:
    """The parameters, and the floating-point operations that one image of that size takes.

    Of the latter those of convolutions, matrix products and attention count, a multiplication and an addition each as one.
    """
    was = model.training
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        model.eval()(image)
    model.train(was)
    return sum(p.numel() for p in model.parameters()), int(counter.get_total_flops())


def weights_hash(model: nn.Module) -> str:
    """A hash of what a network computes: its layers as they describe themselves, and all weights and buffers."""
    digest = hashlib.blake2b(f"{type(model).__qualname__}{model}".encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def outputs(
    model: nn.Module, images: Images, device: torch.device, batch: int = 0, probes: Sequence[Probe] = ()
) -> Output:
    """As `Extractor`, without a cache."""
    gradient = any(probe.wants == "gradient" for probe in probes)
    batch = batch or COMPUTED_TOGETHER.get(device.type, READ)
    batch = min(batch, WITH_GRADIENTS) if gradient else batch
    find = _map_finder(model, images, device) if any(probe.wants == "map" for probe in probes) else None
    model.eval()
    parts: list[Output] = []
    for pixels in (part for read, _ in images.batches(READ) for part in read.split(batch)):
        x = pixels.to(device)
        if probes:
            x = x.float().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient), _caught(find) as caught:
            output = model(x)
        forward = ForwardPass(
            model=model, images_B3HW=x, output=output, map_BFHW=caught[-1] if caught else None
        )
        made = {probe.key: probe(forward).detach().cpu() for probe in probes}
        parts.append(
            Output(logits_BC=output.logits_BC.detach().cpu(), z_BF=output.z_BF.detach().cpu(), probes=made)
        )
    if not parts:
        raise ValueError(f"The set {images.name!r} is empty.")
    together = {probe.key: torch.cat([part.probes[probe.key] for part in parts]) for probe in probes}
    return Output(
        logits_BC=torch.cat([part.logits_BC for part in parts]),
        z_BF=torch.cat([part.z_BF for part in parts]),
        probes=together,
    )


@torch.no_grad()
def _map_finder(model: nn.Module, images: Images, device: torch.device) -> nn.Module:
    """The last module whose output, averaged over its positions, is z; ValueError where there is none."""
    model.eval()
    called: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: object, result: object) -> None:
        if isinstance(result, Tensor) and result.ndim == 4:
            called.append((module, result))

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        z = model(images.batch([0]).to(device)).z_BF
    finally:
        for hook in hooks:
            hook.remove()
    for module, result in reversed(called):
        if result.shape[1] == z.shape[1] and torch.allclose(result.mean((2, 3)), z, rtol=1e-3, atol=1e-5):
            return module
    raise ValueError(
        "This network's features are no average of a feature map, which a detector here needs (rankfeat)."
    )


@contextmanager
def _caught(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """The outputs of `module` while this lasts."""
    found: list[Tensor] = []
    hook = (
        module.register_forward_hook(lambda _, __, result: found.append(result.detach()))
        if module is not None
        else None
    )
    try:
        yield found
    finally:
        if hook is not None:
            hook.remove()


def _short(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
