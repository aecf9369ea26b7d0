"""What a pipeline's folder says of its parts, checked before any of it is loaded; and its networks, which are
loaded whole or not at all.

A folder may name classes, files and numbers of its own. Only classes of diffusers and transformers are made,
weights come from safetensors inside a part's folder, and sizes must be those of a pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from ..core.errors import brief, shown
from ..core.files import read_json
from ..core.threads import MAKING
from .errors import DecoderError

__all__ = ["check_classes", "check_configs", "check_indexes", "load_network"]

LIBRARIES = ("diffusers", "transformers")
MOST: Mapping[str, int] = {"num_train_timesteps": 100_000, "sample_size": 4096}
LARGEST = 1 << 24  # of any other whole number in a part's configuration: widths, words of a vocabulary
CONFIGS = ("config.json", "scheduler_config.json")


def check_classes(index: Mapping[str, Any], parts: Sequence[str], source: str) -> None:
    """Raises DecoderError where one of the parts is of no class of `LIBRARIES`: making it would run code from
    elsewhere.
    """
    for part in parts:
        entry = index.get(part)
        if not isinstance(entry, (list, tuple)) or not _is_class(*entry):
            raise DecoderError(
                f"{source}: its part {part!r} is {brief(entry)}, and parts are classes of "
                f'{" or ".join(LIBRARIES)}, such as ["diffusers", "AutoencoderKL"].'
            )


def _is_class(library: Any = None, name: Any = None, *more: Any) -> bool:
    return (
        library in LIBRARIES
        and isinstance(name, str)
        and name.isidentifier()
        and "Pipeline" not in name
        and not more
    )


def check_indexes(part: Path) -> None:
    """Raises DecoderError where an index of a part's shards names anything but safetensors beside it."""
    for file in part.glob("*.safetensors.index*.json"):
        index = read_json(file)
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict):
            raise DecoderError(f"{shown(file)} has no 'weight_map', or one that is no object.")
        for name in {*map(str, names.values())}:
            if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
                raise DecoderError(
                    f"{shown(file)} names {brief(name)}, which is no safetensors file beside it."
                )


def check_configs(part: Path) -> None:
    """Raises DecoderError for a part's configuration whose numbers are those of no pipeline: they would take
    all memory before anything is drawn.
    """
    for file in (part / name for name in CONFIGS if (part / name).is_file()):
        config = read_json(file)
        if not isinstance(config, dict):
            raise DecoderError(f"{shown(file)} is no JSON object.")
        for key, number in _whole_numbers(config):
            if not -LARGEST <= number <= MOST.get(key, LARGEST):
                raise DecoderError(f"{shown(file)}: {key} is {brief(number)}, and that of no pipeline.")


def load_network(kind: Any, part: Path, dtype: torch.dtype, variant: str | None = None) -> nn.Module:
    """The network of a class of `LIBRARIES` in a part's folder, from safetensors alone.

    Raises DecoderError where it has weights that are not in the part's files. The library would keep what it
    has drawn at random in their place, and say so in a log alone.
    """
    with MAKING, quiet():
        network, report = kind.from_pretrained(
            part, dtype=dtype, variant=variant, use_safetensors=True, output_loading_info=True
        )
    if lost := sorted(report["missing_keys"]):
        raise DecoderError(
            f"{shown(part)} lacks {len(lost)} of the weights that a {kind.__name__} has, such as {lost[0]}. "
            "Either its files are incomplete, or the installed diffusers and transformers are older than "
            "those that wrote them, and call weights otherwise: pip install -U diffusers transformers."
        )
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """What diffusers and transformers say of a network while they load it is left unsaid, but for errors."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    levels = [(one, one.get_verbosity()) for one in (of_diffusers, of_transformers)]
    try:
        for one, _ in levels:
            one.set_verbosity_error()
        yield
    finally:
        for one, level in levels:
            one.set_verbosity(level)


def _whole_numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration and of what lies in it, with their keys."""
    pending: list[tuple[str, Any]] = list(config.items())
    while pending:
        key, value = pending.pop()
        if isinstance(value, Mapping):
            pending += value.items()
        elif isinstance(value, (list, tuple)):
            pending += [(key, one) for one in value]
        elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            yield key, int(value)
