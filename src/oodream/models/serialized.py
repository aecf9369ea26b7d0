"""Networks in exchange formats, ONNX and TorchScript: they show logits alone, all that many detectors need.

Pixels go in as the file's input wants them: uint8, or floats in [0, 1], which the file normalises itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.types import Output

__all__ = ["LogitsOnly", "Onnx", "TorchScript", "from_onnx", "from_torchscript"]


class LogitsOnly(nn.Module, ABC):
    """A classifier on uint8 images (B, 3, H, W) that shows logits (B, C) alone; its features have width 0.

    Raises ValueError at the first batch for another number of classes.
    """

    def __init__(self, file: Path, classes: int) -> None:
        super().__init__()
        self.file, self.classes = file, classes
        # Part of the state, so that a cache tells one file's content from another's.
        self.register_buffer("content", torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8))

    def forward(self, images_B3HW: Tensor) -> Output:
        logits_BC = self.logits(images_B3HW)
        if logits_BC.shape[1] != self.classes:
            raise ValueError(
                f"{self.file} knows {logits_BC.shape[1]} classes, and {self.classes} are asked for."
            )
        return Output(logits_BC=logits_BC, z_BF=logits_BC.new_empty(len(logits_BC), 0))

    @abstractmethod
    def logits(self, images_B3HW: Tensor) -> Tensor:
        """The file's logits (B, C) for uint8 images (B, 3, H, W)."""


class Onnx(LogitsOnly):
    """An ONNX file, run by onnxruntime on the CPU; its first output holds the logits."""

    def __init__(self, file: Path, classes: int) -> None:
        super().__init__(file, classes)
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(
                f"onnx:{file} needs onnxruntime. Install it: pip install '.[onnx]' in a clone"
            ) from error
        try:
            self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has exceptions of its own
            raise ValueError(
                f"{file} is no ONNX file that onnxruntime can run: {str(error).splitlines()[0]}"
            ) from error
        self.input = self.session.get_inputs()[0]

    def logits(self, images_B3HW: Tensor) -> Tensor:
        if images_B3HW.requires_grad:
            raise ValueError(
                f"{self.file} gives no gradients, and a detector here needs them (odin, adascale)."
            )
        pixels = (
            images_B3HW.to(torch.uint8) if self.input.type == "tensor(uint8)" else images_B3HW.float() / 255
        )
        return torch.from_numpy(self.session.run(None, {self.input.name: pixels.cpu().numpy()})[0])


class TorchScript(LogitsOnly):
    """A TorchScript file, which takes floats in [0, 1]. Load only files you trust: they hold code."""

    def __init__(self, file: Path, classes: int) -> None:
        super().__init__(file, classes)
        try:
            self.network = torch.jit.load(file, map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"{file} is no TorchScript file: {str(error).splitlines()[0]}") from error

    def logits(self, images_B3HW: Tensor) -> Tensor:
        logits_BC: Tensor = self.network(images_B3HW.float() / 255)
        return logits_BC


def from_onnx(name: str, classes: int, pretrained: bool) -> nn.Module:
    """The ONNX file `name`.

    Raises ValueError when there is none, it cannot be run, or untrained weights are asked for.
    """
    return Onnx(_file(name, pretrained), classes)


def from_torchscript(name: str, classes: int, pretrained: bool) -> nn.Module:
    """The TorchScript file `name`. Raises ValueError as `from_onnx` does."""
    return TorchScript(_file(name, pretrained), classes)


def _file(name: str, pretrained: bool) -> Path:
    if not Path(name).is_file():
        raise ValueError(f"{name} does not exist.")
    if not pretrained:
        raise ValueError(f"{name} holds a trained network, which can be measured and not be trained afresh.")
    return Path(name)
