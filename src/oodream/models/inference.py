"""One pass of a network over an image set: its outputs, and what detectors want of the images beside them.

Outputs can be kept in files, whose names are hashes of all they depend on: weights, architecture and images. So nothing old is ever
taken for new, and a second look at the same set costs a read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.files import load_tensors, save_tensors
from ..core.types import Head, Loss, Output, Seen, View
from ..data.images import Images

READ = 512  # images read at once
AT_ONCE = {"cpu": 32}  # images computed at once where not all that were read are: a processor's caches hold so many activations
WITH_GRADIENTS = 128  # images at once, at most, where a graph is kept


def outputs(
    model: nn.Module,
    images: Images,
    device: torch.device,
    batch: int = 0,
    views: Sequence[View] = (),
    cache: Path | None = None,
) -> Output:
    """The model's outputs for a whole set, in order, in evaluation mode, on the CPU, with what `views` make of the images.

    `batch` images are computed at once; 0: as many as are fastest. In the folder `cache` outputs are kept, and taken from there
    when weights, architecture and images are the same.
    """
    if cache is None:
        return _run(model, images, device, batch, views)
    stem = f"{hash_of(model)}-{images.identity()}"
    files = {view.key: cache / f"{stem}-{_short(view.key)}.safetensors" for view in views}
    base = cache / f"{stem}.safetensors"
    missing = [view for view in views if not files[view.key].exists()]
    if missing or not base.exists():
        seen = _run(model, images, device, batch, missing)
        if not base.exists():
            save_tensors(base, {"logits_BC": seen.logits_BC, "z_BF": seen.z_BF})
        for view in missing:
            save_tensors(files[view.key], {"view": seen.views[view.key]})
    kept = load_tensors(base)
    return Output(**kept, views={key: load_tensors(file)["view"] for key, file in files.items()})


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


def hash_of(model: nn.Module) -> str:
    """A hash of what a network computes: its layers as they describe themselves, and all weights and buffers."""
    digest = hashlib.blake2b(f"{type(model).__qualname__}{model}".encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _run(model: nn.Module, images: Images, device: torch.device, batch: int, views: Sequence[View]) -> Output:
    gradient = any(view.wants == "gradient" for view in views)
    batch = batch or AT_ONCE.get(device.type, READ)
    batch = min(batch, WITH_GRADIENTS) if gradient else batch
    find = _map_finder(model, images, device) if any(view.wants == "map" for view in views) else None
    model.eval()
    parts: list[Output] = []
    for pixels in (part for read, _ in images.batches(READ) for part in read.split(batch)):
        x = pixels.to(device)
        if views:
            x = x.float().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient), _caught(find) as caught:
            output = model(x)
        seen = Seen(model=model, images_B3HW=x, output=output, map_BFHW=caught[-1] if caught else None)
        made = {view.key: view(seen).detach().cpu() for view in views}
        parts.append(Output(logits_BC=output.logits_BC.detach().cpu(), z_BF=output.z_BF.detach().cpu(), views=made))
    if not parts:
        raise ValueError(f"The set {images.name!r} is empty.")
    together = {view.key: torch.cat([part.views[view.key] for part in parts]) for view in views}
    return Output(
        logits_BC=torch.cat([part.logits_BC for part in parts]), z_BF=torch.cat([part.z_BF for part in parts]), views=together
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
    raise ValueError("This network's features are no average of a feature map, which a detector here needs (rankfeat).")


@contextmanager
def _caught(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """The outputs of `module` while this lasts."""
    found: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, result: found.append(result.detach())) if module is not None else None
    try:
        yield found
    finally:
        if hook is not None:
            hook.remove()


def _short(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
