"""Tensors in files, whole or absent, with a hash: safetensors, and the states of trainings."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from .errors import StoreError, shown
from .files import atomic_file, read_framed, write_framed
from .sealed import KEY, UNSEALED, is_whole, seal, seal_file

__all__ = ["kept_tensors", "load_state", "load_tensors", "save_state", "save_tensors", "tensors_file"]


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors as one safetensors file with a seal, whole or not at all. They are not copied for it."""
    with atomic_file(path) as file:
        save_file(_on_cpu(tensors), file, {KEY: UNSEALED})
        seal_file(file)


def tensors_file(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """What `save_tensors` writes."""
    return seal(save(_on_cpu(tensors), {KEY: UNSEALED}))


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file; StoreError names the file when it is missing or damaged."""
    again = "Remove its folder and run the same command again."
    try:
        if reason := _damage(path):
            raise StoreError(f"{shown(path)} is damaged ({reason}). {again}")
        return load_file(path)
    except FileNotFoundError as error:
        raise StoreError(f"{shown(path)} is missing. {again}") from error
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:  # a header may lie
        raise StoreError(f"{shown(path)} is damaged ({error}). {again}") from error


def kept_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that can be computed again; none where there is no file, or, with a warning,
    where it is damaged.
    """
    try:
        if not path.exists():
            return {}
        if not (reason := _damage(path)):
            return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = str(error)
    warnings.warn(f"{shown(path)} is damaged ({reason}) and made again.", stacklevel=2)
    return {}


def _damage(path: Path) -> str:
    """What is wrong with a file that has a seal; empty where nothing is."""
    return "" if is_whole(path, head=True) else "its content is not what was written"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes what a training goes on from, nested dictionaries and lists of tensors and numbers, whole or not
    at all.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_framed(path, buffer.getvalue())


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What `save_state` wrote, on the device; None where there is nothing, or, with a warning, where it is
    damaged.
    """
    if not path.exists():
        return None
    try:
        content = read_framed(path)
        state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location=device)
    except Exception as error:  # whatever a damaged archive makes torch raise
        warnings.warn(f"{shown(path)} is damaged, and the training begins anew ({error}).", stacklevel=2)
        return None
    return state
