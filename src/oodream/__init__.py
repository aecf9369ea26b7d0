"""oodream: out-of-distribution detection for image classifiers, with outliers imagined by a diffusion model.

The names below are the library's front door. Each is imported when it is first asked for: `import oodream`
loads no PyTorch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config
    from .core.registry import register
    from .data.folders import load_folder, load_ood
    from .data.images import Images, ImageSet
    from .deploy.batch import GuardMap
    from .deploy.guard import Guard
    from .detection.evaluate import evaluate
    from .models.classifier import Classifier
    from .models.inference import Extractor
    from .run.artifacts import Run
    from .run.runner import execute
    from .synthesis.align import align
    from .synthesis.decode import make_decoder
    from .synthesis.sample import sample

__all__ = [
    "Classifier",
    "Config",
    "Extractor",
    "Guard",
    "GuardMap",
    "ImageSet",
    "Images",
    "Run",
    "__version__",
    "align",
    "evaluate",
    "execute",
    "load_folder",
    "load_ood",
    "make_decoder",
    "register",
    "sample",
]

_HOMES = {
    "Classifier": "models.classifier",
    "Config": "config",
    "Extractor": "models.inference",
    "Guard": "deploy.guard",
    "GuardMap": "deploy.batch",
    "ImageSet": "data.images",
    "Images": "data.images",
    "Run": "run.artifacts",
    "align": "synthesis.align",
    "evaluate": "detection.evaluate",
    "execute": "run.runner",
    "load_folder": "data.folders",
    "load_ood": "data.folders",
    "make_decoder": "synthesis.decode",
    "register": "core.registry",
    "sample": "synthesis.sample",
}

try:
    __version__ = version("oodream")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
