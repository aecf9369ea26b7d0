"""core.device."""

from __future__ import annotations

import torch

from .distributed import local_rank


def device_of(name: str) -> torch.device:
    """The device called `name`; "auto" is the best there is. ValueError when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cuda":
            name = f"cuda:{local_rank()}"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("CUDA is asked for, but PyTorch finds no CUDA device here. Use --device cpu.")
    return device
