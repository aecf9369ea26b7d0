"""core.overlay."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key."""


T = typing.TypeVar("T")


def overlay(config: T, values: Mapping[str, Any], at: str = "") -> T:
    """`config` with nested `values` (as from JSON) put over it; ConfigError names an unknown key or a bad value."""
    hints = typing.get_type_hints(type(config))
    changed = {}
    for key, value in values.items():
        where = f"{at}.{key}" if at else key
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            raise ConfigError(
                f"There is no option {where!r}." + (f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(hints)}.")
            )
        old = getattr(config, key)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where} holds options of its own; give it an object, not {value!r}.")
            changed[key] = overlay(old, value, where)
        else:
            changed[key] = _checked(value, hints[key], where)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def _checked(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_checked(v, typing.get_args(hint)[0], where) for v in value)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kinds = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (origin or hint,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ConfigError(f"{where} cannot be {value!r}; it takes {getattr(hint, '__name__', hint)}.")
    return value


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as nested JSON values."""
    import json

    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))
