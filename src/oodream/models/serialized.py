"""Networks in exchange formats: ONNX, and PyTorch's exported programs and TorchScript.

Where a file's last layer is found (`ends`), its network shows features and a head; else logits alone, all
that many detectors need. The file's content is part of the network's state, so the state is the whole
network.
"""

from __future__ import annotations

import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from ..core.errors import MissingCode, first_line
from ..core.packages import missing
from ..core.types import Head, Output
from ..runtime.onnx_bytes import check_whole
from .ends import end_of_onnx, end_of_program, onnx_content

__all__ = ["FORMATS", "Exported", "FromFile", "Onnx", "TorchScript", "cut_head", "format_of", "from_state"]

TRIED_SIZES = (224, 32)  # pixels a side of the noise that a file is tried with where it names no size
SAME = 1e-3  # absolute and relative difference of logits that are taken for equal
ONNX_PIXELS = {"tensor(uint8)": torch.uint8, "tensor(float16)": torch.float16}


class FromFile(nn.Module, ABC):
    """A classifier in a file, on uint8 images (B, 3, H, W). It is called `name` in messages.

    The file gets pixels in [0, 1] less `mean` over `std`, or uint8 where it `takes_bytes`. `rows` are the
    outputs that are classes, in the classes' order: `classes` of them, or with 0 all that there are. Without
    a `head` the features have width 0. `batch` and `size` are what the file is made for, 0 where it takes
    any.

    Raises ValueError for a file that cannot be read or run, or that has another number of outputs.
    """

    content: Tensor
    mean: Tensor
    std: Tensor
    rows: Tensor

    def __init__(self, name: str, content: bytes, classes: int = 0) -> None:
        super().__init__()
        self.name, self.batch, self.size, self.takes_bytes = name, 0, 0, False
        self.head: nn.Linear | None = None
        if not content:
            raise ValueError(f"{name} is empty.")
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))
        self.outputs = self._try(self.open(content), classes)
        self.register_buffer("rows", torch.arange(self.outputs))

    @abstractmethod
    def open(self, content: bytes) -> Head | None:
        """Makes the network ready to run; returns its last layer where that is found."""

    @abstractmethod
    def run(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, outputs); and features (B, F) where `open` has found the last layer."""

    def choose(self, rows_C: Tensor) -> None:
        """Takes those of the present classes for classes that stand at `rows_C`, in this order."""
        self.rows = self.rows[rows_C.to(self.rows.device)]
        self.head = None if self.head is None else cut_head(self.head, rows_C)

    def forward(self, images_B3HW: Tensor) -> Output:
        batches = images_B3HW.split(self.batch) if self.batch else (images_B3HW,)
        parts = [self._padded(part) for part in batches]
        logits_BO = torch.cat([part[0] for part in parts])
        self._check(logits_BO.shape[1], self.outputs)
        logits_BC = logits_BO[:, self.rows]
        if self.head is None:
            return Output(logits_BC=logits_BC, z_BF=logits_BC.new_empty(len(logits_BC), 0))
        return Output(logits_BC=logits_BC, z_BF=torch.cat([part[1] for part in parts]))

    def normalised(self, images_B3HW: Tensor) -> Tensor:
        """Pixels as the file takes them."""
        return images_B3HW if self.takes_bytes else (images_B3HW.float() / 255 - self.mean) / self.std

    def _padded(self, images_B3HW: Tensor) -> list[Tensor]:
        """The outputs of at most `batch` images, whose last one is repeated to fill the batch."""
        if not self.batch:
            return [part.flatten(1).float() for part in self.run(images_B3HW)]
        n = len(images_B3HW)
        filled = images_B3HW[torch.arange(self.batch).clamp(max=n - 1)]
        return [part[:n].flatten(1).float() for part in self.run(filled)]

    def _check(self, outputs: int, classes: int) -> None:
        if outputs != classes:
            raise ValueError(f"{self.name} knows {outputs} classes, and {classes} are asked for.")

    @torch.no_grad()
    def _try(self, end: Head | None, classes: int) -> int:
        """The number of outputs, by a pass over noise. The last layer is kept where it makes the logits."""
        reason = ""
        for side in [self.size] if self.size else TRIED_SIZES:
            g = torch.Generator().manual_seed(0)
            noise = torch.randint(0, 256, (self.batch or 2, 3, side, side), generator=g, dtype=torch.uint8)
            try:
                logits, *features = self._padded(noise)
            except Exception as error:  # every runtime has exceptions of its own
                reason = reason or f"{first_line(error).rstrip('.')} ({side} x {side} pixels)"
                continue
            self._check(logits.shape[1], classes or logits.shape[1])
            if end is not None:
                head = nn.Linear(end.weight_CF.shape[1], len(end.weight_CF))
                head.load_state_dict({"weight": end.weight_CF, "bias": end.bias_C})
                fits = features[0].shape[1] == head.in_features and head.out_features == logits.shape[1]
                self.head = head if fits and torch.allclose(head(features[0]), logits, SAME, SAME) else None
            return logits.shape[1]
        if not classes:
            raise ValueError(f"{self.name} cannot be run: {reason}.")
        return classes


class Onnx(FromFile):
    """An ONNX file, run by onnxruntime on the CPU; its first output holds the logits, or their softmax."""

    def open(self, content: bytes) -> Head | None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingCode(missing(f"onnx:{self.name}", "onnxruntime", "onnx")) from error
        try:
            check_whole(content)
            content, end = end_of_onnx(content)
            self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has exceptions of its own
            raise ValueError(
                f"{self.name} is no ONNX file that onnxruntime can run: {first_line(error)}"
            ) from error
        self.input = self.session.get_inputs()[0]
        self.wanted = [one.name for one in self.session.get_outputs()[: 1 if end is None else 2]]
        self.takes_bytes = ONNX_PIXELS.get(self.input.type) == torch.uint8
        shape = [n if isinstance(n, int) else 0 for n in self.input.shape]
        self.batch, self.size = (shape[0], shape[2]) if len(shape) == 4 else (0, 0)
        self.channels_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
        return end

    def run(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        if images_B3HW.requires_grad:
            raise ValueError(
                f"{self.name} gives no gradients, and a detector here needs them (odin, adascale)."
            )
        x = self.prepared(images_B3HW).cpu().contiguous().numpy()
        results = self.session.run(self.wanted, {self.input.name: x})
        return tuple(map(torch.from_numpy, results))

    def prepared(self, images_B3HW: Tensor) -> Tensor:
        """The images as the file's only input."""
        x = self.normalised(images_B3HW).to(ONNX_PIXELS.get(self.input.type, torch.float32))
        return x.permute(0, 2, 3, 1) if self.channels_last else x


class Exported(FromFile):
    """A program of `torch.export.save`. Load only files you trust: loading one can run code."""

    def open(self, content: bytes) -> Head | None:
        try:
            with _quiet():
                program = torch.export.load(BytesIO(content))
        except Exception as error:  # whatever the reader raises on strange bytes
            raise ValueError(f"{self.name} is no exported program: {first_line(error)}") from error
        module, shape, end = end_of_program(program)
        self.module = [module]  # in a list, for its tensors are part of the content
        self.batch, self.size = (n if isinstance(n, int) else 0 for n in (shape[0], shape[-1]))
        return end

    def run(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        result = self.module[0].to(images_B3HW.device)(self.normalised(images_B3HW))
        return result if isinstance(result, tuple) else (result,)


class TorchScript(FromFile):
    """A TorchScript file. Load only files you trust: they hold code."""

    def open(self, content: bytes) -> Head | None:
        try:
            with _quiet():
                module = torch.jit.load(BytesIO(content), map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"{self.name} is no TorchScript file: {first_line(error)}") from error
        self.module = [module]
        return None

    def run(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        return (self.module[0].to(images_B3HW.device)(self.normalised(images_B3HW)),)


FORMATS: dict[str, type[FromFile]] = {"onnx": Onnx, "exported": Exported, "torchscript": TorchScript}


def adapter(family: str) -> Any:
    """What makes a network of a file of this format, as `external.ADAPTERS` has it: of its path, the number
    of classes, and whether it is to be trained.

    It raises ValueError when there is no file, it cannot be run, or untrained weights are asked for.
    """

    def from_file(name: str, classes: int, pretrained: bool) -> nn.Module:
        if not Path(name).is_file():
            raise ValueError(f"{name} does not exist.")
        if not pretrained:
            raise ValueError(
                f"{name} holds a trained network, which can be measured and not be trained afresh."
            )
        content = onnx_content(Path(name)) if family == "onnx" else Path(name).read_bytes()
        return FORMATS[family](name, content, classes).eval()

    return from_file


def from_state(family: str, name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """The network whose state this is; KeyError where it is none's."""
    if state["content"].dtype != torch.uint8:
        raise ValueError(f"{name} is damaged: its content is no bytes.")
    network = FORMATS[family](name, state["content"].numpy().tobytes())
    if "head.weight" in state and network.head is None:
        raise ValueError(missing(f"To find its features {name}", "onnx", "onnx"))
    network.choose(state["rows"])
    network.load_state_dict(state)
    return network.eval()


def format_of(file: Path) -> str:
    """The family in `FORMATS` that a file is of, by its content; empty where it is of none.

    PyTorch's two formats are archives: only TorchScript has a folder of code in it.
    """
    try:
        with ZipFile(file) as archive:
            names = archive.namelist()
    except (
        BadZipFile,
        ValueError,
        NotImplementedError,
        struct.error,
    ):  # on damaged archives it raises all of these
        return "onnx" if file.suffix == ".onnx" else ""
    if any("/code/" in f"/{name}" for name in names):
        return "torchscript"
    return "exported" if any(name.endswith("archive_format") or name == "version" for name in names) else ""


def cut_head(head: nn.Linear, rows_C: Tensor) -> nn.Linear:
    """A last layer with these of its outputs, in this order."""
    rows_C = rows_C.to(head.weight.device)
    part = nn.Linear(head.in_features, len(rows_C), bias=head.bias is not None).to(head.weight.device)
    part.load_state_dict({name: weight[rows_C] for name, weight in head.state_dict().items()})
    return part


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's readers say of their own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
