"""Finds extensions by name: one file in a family's folder is one extension, and a dotted path is a plug-in.

Modules whose names begin with an underscore stand beside extensions and hold none.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from torch import nn

from .errors import MissingCode, brief, did_you_mean
from .faults import blamed
from .options import ConfigError, check_range, converted

__all__ = [
    "FAMILIES",
    "get",
    "imported",
    "make",
    "make_all",
    "name_of",
    "names",
    "options_by_name",
    "register",
    "singular",
    "summary",
]

FAMILIES = {
    "samplers": "oodream.synthesis.samplers",
    "decoders": "oodream.synthesis.decoders",
    "filters": "oodream.synthesis.filters",
    "losses": "oodream.training.losses",
    "latent_adapters": "oodream.training.latent_adapters",
    "detectors": "oodream.detection.detectors",
}
_registered: dict[str, dict[str, Any]] = {family: {} for family in FAMILIES}


def register(family: str, name: str) -> Any:
    """Decorator: makes a class or function known as `name` in `family`.

    Raises ValueError where the name is taken.
    """

    def decorator(extension: Any) -> Any:
        if _registered[family].setdefault(name, extension) is not extension:
            raise ValueError(f"{family} already has a {name!r}.")
        return extension

    return decorator


def names(family: str) -> list[str]:
    """All names registered in a family, sorted; imports the modules of the family's folder."""
    package = importlib.import_module(FAMILIES[family])
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(_registered[family])


def get(family: str, name: str) -> Any:
    """The extension called `name`, or the object at a dotted path `package.module:attribute`.

    The file that bears the name is imported alone, for others import libraries that this one does not need.
    Raises ValueError, with the nearest name, where there is none.
    """
    if ":" in name:
        return imported(name, singular(family))
    own = f"{FAMILIES[family]}.{name}"
    if name.isidentifier() and name[0] != "_" and importlib.util.find_spec(own):
        importlib.import_module(own)
        if name in _registered[family]:
            return _registered[family][name]
    if name not in (known := names(family)):
        hint = did_you_mean(name, known)
        raise ValueError(f"No {singular(family)} is called {name!r}.{hint} There are: {', '.join(known)}.")
    return _registered[family][name]


def name_of(family: str, made: object) -> str:
    """The name by which `make` makes such an extension: the registered one, or the dotted path."""
    kind = type(made)
    registered = (name for name, extension in _registered[family].items() if extension is kind)
    return next(registered, f"{kind.__module__}:{kind.__qualname__}")


def imported(name: str, kind: str) -> Any:
    """The object at a dotted path `package.module:attribute`; MissingCode, which calls it a `kind`, without
    one.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a stranger's module raises
        said = f"{type(error).__name__}: {error}" if isinstance(error, SyntaxError) else error
        lost = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        remedy = (
            " The folder that it lies in is to be on PYTHONPATH: PYTHONPATH=FOLDER oodream …" if lost else ""
        )
        raise MissingCode(f"The {kind} {name!r} cannot be imported: {said}.{remedy}") from error


def make(family: str, name: str, **options: Any) -> Any:
    """An instance of the extension called `name`.

    Raises ValueError that names an option which the extension does not have, or needs and is not given, or
    whose value is of another type or out of the annotated range; and for whatever a plug-in raises when it is
    made, with the options that it was made with and those that it has.
    """
    extension, called = get(family, name), f"The {singular(family)} {name!r}"
    if not callable(extension):
        raise ValueError(f"{called} is of type {type(extension).__name__}, and no class or function.")
    parameters = _parameters(extension)
    if parameters is not None:
        known = ", ".join(parameters) or "none"
        for key in options.keys() - parameters.keys():
            hint = did_you_mean(key, parameters)
            raise ValueError(f"{called} has no option {key!r}.{hint} There are: {known}.")
        if lacking := [key for key, optional in parameters.items() if not optional and key not in options]:
            raise ValueError(f"{called} needs the option {lacking[0]!r}: {lacking[0]}=VALUE.")
    try:
        checked = _checked(extension, options)
        if ":" not in name:
            return extension(**checked)
        with blamed(f"{singular(family)} {name!r}{_made_with(checked, parameters)}", extension):
            return extension(**checked)
    except (TypeError, ConfigError) as error:
        raise ValueError(f"{singular(family)} {name!r}: {error}") from error


def _made_with(options: Mapping[str, Any], parameters: Mapping[str, bool] | None) -> str:
    """In words the options that an extension is made with, and which it has."""
    written = ", ".join(
        f"{key}={brief(value)}" for key, value in options.items() if isinstance(value, (int, float, str))
    )
    known = f" (its options: {', '.join(parameters)})" if parameters else ""
    return f", made with {written or 'no option'}{known}"


def _parameters(extension: Callable[..., Any]) -> dict[str, bool] | None:
    """What an extension takes by name, its bases' where it passes keywords on, and whether it does without;
    None where it takes any.
    """
    names: dict[str, bool] = {}
    layers: list[Callable[..., Any]] = [extension]
    if isinstance(extension, type):  # a bare nn.Module takes no option, although its signature says any
        classes = [c for c in extension.__mro__[:-1] if c is not nn.Module]
        layers = [vars(c)["__init__"] for c in classes if "__init__" in vars(c)]
    for layer in layers:
        parameters = inspect.signature(layer).parameters.values()
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                # What a base asks for may be given by the extension itself.
                names.setdefault(p.name, layer is not layers[0] or p.default is not p.empty)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    else:
        if layers:
            return None
    names.pop("self", None)
    return names


def options_by_name(
    family: str, names: Sequence[str], options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The options of each of several extensions: `NAME.option` belongs to NAME, and `option` to the first
    one.

    Raises ValueError for no name, a name that occurs twice, or an option of an extension that is not used.
    """
    if not names:
        raise ValueError(f"At least one {singular(family)} is needed.")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(
            f"The {singular(family)} {twice[0]!r} is named twice. Tell them apart as {twice[0]}@LABEL."
        )
    result: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        name, _, option = key.rpartition(".")
        if (name or names[0]) not in result:
            used = f"the {family} are {', '.join(names)}"
            raise ValueError(f"The option {key} is of a {singular(family)} that is not used; {used}.")
        result[name or names[0]][option] = value
    return result


def make_all(family: str, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Several extensions by name, each with its own options. One that is used twice is told apart as
    NAME@LABEL.

    Raises ValueError where `options_by_name` and `make` do. For an option of the first one that only another
    one has it says how to write that.
    """
    by_name = options_by_name(family, names, options)
    first, *others = by_name
    for key in by_name[first]:
        have = [name for name in others if _has(family, name, key)]
        if have and not _has(family, first, key):
            raise ValueError(
                f"The {singular(family)} {first!r} has no option {key!r}, and {have[0]!r} has: write it "
                f"{have[0]}.{key}=."
            )
    return {name: make(family, name.partition("@")[0], **own) for name, own in by_name.items()}


def _has(family: str, name: str, option: str) -> bool:
    """Whether an extension, which may be told apart as NAME@LABEL, has an option of that name."""
    parameters = _parameters(get(family, name.partition("@")[0]))
    return parameters is None or option in parameters


def singular(family: str) -> str:
    """What one of a family is called."""
    return {"losses": "loss", "latent_adapters": "latent adapter"}.get(family, family[:-1])


def summary(family: str, name: str) -> str:
    """The first paragraph of an extension's docstring, on one line."""
    return " ".join((get(family, name).__doc__ or "").strip().partition("\n\n")[0].split())


def _checked(extension: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their numbers converted to the annotated types; ConfigError for a value of another
    type or out of the annotated range.
    """
    described = extension if is_dataclass(extension) else getattr(extension, "__init__", extension)
    try:
        hints = typing.get_type_hints(described, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can read
        hints = {}
    plain = (int, float, str)
    checked = {
        key: converted(value, hints[key], key) if key in hints and isinstance(value, plain) else value
        for key, value in options.items()
    }
    for key in checked.keys() & hints.keys():
        check_range(key, checked[key], hints[key])
    return checked
