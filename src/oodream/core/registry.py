"""Finds extensions by name: one file in a family's folder is one extension, and a dotted path is a plug-in."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

FAMILIES = {
    "samplers": "oodream.synthesis.samplers",
    "decoders": "oodream.synthesis.decoders",
    "filters": "oodream.synthesis.filters",
    "losses": "oodream.training.losses",
    "latent_adapters": "oodream.training.latent_adapters",
    "detectors": "oodream.detection.detectors",
}
_known: dict[str, dict[str, Any]] = {family: {} for family in FAMILIES}


def register(family: str, name: str) -> Any:
    """Decorator: makes a class or function known as `name` in `family`."""

    def keep(extension: Any) -> Any:
        if _known[family].setdefault(name, extension) is not extension:
            raise ValueError(f"{family} already has a {name!r}.")
        return extension

    return keep


def names(family: str) -> list[str]:
    """All names registered in a family, sorted; imports the family's folder."""
    package = importlib.import_module(FAMILIES[family])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(_known[family])


def get(family: str, name: str) -> Any:
    """The extension called `name`, or the object at a dotted path `package.module:attribute`."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name not in (known := names(family)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"No {singular(family)} is called {name!r}.{hint} There are: {', '.join(known)}.")
    return _known[family][name]


def make(family: str, name: str, **options: Any) -> Any:
    """An instance of the extension called `name`; ValueError names an option it does not have."""
    try:
        return get(family, name)(**options)
    except TypeError as error:
        raise ValueError(f"{singular(family)} {name!r}: {error}") from error


def own_options(family: str, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each of several extensions: `NAME.option` is NAME's, `option` the first one's; ValueError for any other's."""
    if not names:
        raise ValueError(f"At least one {singular(family)} is needed.")
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        name, _, option = key.rpartition(".")
        if (name or names[0]) not in found:
            raise ValueError(
                f"The option {key} is of a {singular(family)} that is not used; the {family} are {', '.join(names)}."
            )
        found[name or names[0]][option] = value
    return found


def make_all(family: str, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Several extensions by name, each with its own options. One used twice is told apart as NAME@LABEL."""
    return {
        name: make(family, name.partition("@")[0], **own)
        for name, own in own_options(family, names, options).items()
    }


def singular(family: str) -> str:
    """What one of a family is called."""
    return {"losses": "loss"}.get(family, family[:-1])
