"""`oodream list` and `doctor`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..comparisons import COMPARISONS
from ..presets import PRESETS
from .console import parse

__all__ = ["doctor", "list_all"]


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Everything that has a name: presets, comparisons, protocols, extensions of every family, backbones."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Versions, devices and threads of this machine, and what is missing."""


def list_all(args: Sequence[str]) -> int:
    """`oodream list`."""
    parse(ListOptions, "oodream list", args)

    from ..benchmark import protocol
    from ..core import registry
    from ..data.sets import SETS
    from ..models.external import ADAPTERS
    from ..models.resnet import BACKBONES

    rows = [("preset", name, preset.about) for name, preset in PRESETS.items()]
    rows += [("comparison", name, comparison.about) for name, comparison in COMPARISONS.items()]
    rows += [("data", name, data.about) for name, data in SETS.items()]
    rows += [("protocol", name, protocol.load_protocol(name).about) for name in protocol.protocol_names()]
    for family in registry.FAMILIES:
        kind = registry.singular(family)
        rows += [(kind, name, registry.summary(family, name)) for name in registry.names(family)]
    rows += [("backbone", name, "") for name in (*BACKBONES, *(f"{family}:NAME" for family in ADAPTERS))]
    for kind, name, about in rows:
        print(f"{kind:15} {name:22} {about}".rstrip())
    return 0


def doctor(args: Sequence[str]) -> int:
    """`oodream doctor`."""
    parse(DoctorOptions, "oodream doctor", args)

    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from ..core.parallel import CORES
    from ..data.builtin import DEBIAN
    from ..synthesis.pipeline import EMBEDDED, INDEX

    for package in (
        "oodream",
        "torch",
        "diffusers",
        "transformers",
        "accelerate",
        "safetensors",
        "datasets",
        "timm",
        "ray",
        "s3fs",
    ):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        print(f"{package:14} {found}")
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    waits = (
        "sleep while they wait"
        if policy.upper() == "PASSIVE"
        else "spin while they wait: slow beside other programs"
    )
    print(f"{'python':14} {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'cores':14} {CORES} in use, whose threads {waits} (OMP_WAIT_POLICY={policy})")
    print(f"{'cuda':14} {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    embedded = (EMBEDDED / INDEX).exists()
    print(f"{'decoder':14} {'embedded' if embedded else 'MISSING: reinstall oodream'}")
    print(f"{'fashion-full':14} {DEBIAN if DEBIAN.is_dir() else 'needs the extra: oodream[hub]'}")
    return 0
