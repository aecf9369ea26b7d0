"""Where tensors live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .distributed import local_rank

__all__ = ["device_of", "multiplies_bf16", "on_device"]


def device_of(name: str) -> torch.device:
    """The device called `name`; "auto" is the best there is.

    Raises ValueError for a name that PyTorch does not know, and for CUDA where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cuda":
            name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"There is no device {name!r}. Use cpu, cuda, mps or auto.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("CUDA is asked for, but PyTorch finds no CUDA device here. Use --device cpu.")
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has matrix units for bfloat16: CUDA devices, and processors with AMX."""
    if device.type == "cpu":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("amx_bf16", False))
    return device.type == "cuda"


def on_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to CUDA it goes through pinned memory, and the caller does not wait for it."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
