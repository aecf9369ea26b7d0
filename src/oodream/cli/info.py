"""cli.info."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..presets import COMPARISONS, PRESETS


def list_all(args: Sequence[str]) -> int:
    """`oodream list`."""
    from ..benchmark.protocol import load_protocol, protocol_names
    from ..core import registry
    from ..models.external import ADAPTERS
    from ..models.resnet import BACKBONES

    for name, preset in PRESETS.items():
        print(f"preset    {name:20} {preset.about}")
    for name, comparison in COMPARISONS.items():
        print(f"arms      {name:20} {comparison.about}")
    for name in protocol_names():
        print(f"protocol  {name:20} {load_protocol(name).about}")
    for family in registry.FAMILIES:
        for name in registry.names(family):
            first = (registry.get(family, name).__doc__ or "").strip().splitlines()[0]
            print(f"{registry.singular(family):9} {name:20} {first}")
    for name in (*BACKBONES, *(f"{family}:NAME" for family in ADAPTERS)):
        print(f"backbone  {name}")
    return 0


def doctor(args: Sequence[str]) -> int:
    """`oodream doctor`."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from ..data.builtin import DEBIAN
    from ..synthesis.decoders.stable import EMBEDDED

    for package in (
        "oodream",
        "torch",
        "diffusers",
        "transformers",
        "accelerate",
        "safetensors",
        "datasets",
        "timm",
    ):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        print(f"{package:14} {found}")
    print(f"{'python':14} {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'cuda':14} {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    print(
        f"{'decoder':14} {'embedded' if (EMBEDDED / 'model_index.json').exists() else 'MISSING: reinstall oodream'}"
    )
    print(f"{'fashion-full':14} {DEBIAN if DEBIAN.is_dir() else 'only with: pip install oodream[hub]'}")
    return 0
