"""Where tensors live."""

from __future__ import annotations

import torch

from .distributed import local_rank

__all__ = ["device_of"]


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
