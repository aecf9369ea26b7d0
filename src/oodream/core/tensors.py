"""Tensors in files: safetensors, whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .errors import StoreError, shown
from .files import write_bytes

__all__ = ["load_tensors", "save_tensors", "tensors_file"]


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as one safetensors file, whole or not at all."""
    write_bytes(path, tensors_file(tensors, metadata))


def tensors_file(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """What `save_tensors` writes."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(on_cpu, dict(metadata or {}))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file; StoreError names the file when it is missing or damaged."""
    again = "Remove its folder and run the same command again."
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise StoreError(f"{shown(path)} is missing. {again}") from error
    except SafetensorError as error:
        raise StoreError(f"{shown(path)} is damaged ({error}). {again}") from error
