"""oodream: image classifiers that learn to say "I don't know", from outliers imagined by a diffusion model."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .deploy.guard import Guard

__all__ = ["Guard", "__version__"]

try:
    __version__ = version("oodream")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    """`Guard`, imported when it is first asked for: `import oodream` alone loads no PyTorch."""
    if name == "Guard":
        from .deploy.guard import Guard

        return Guard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
