"""What configurations are made of: sections with ranges, overlays of nested values, JSON. Nothing heavy is
imported here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from .errors import brief, did_you_mean

__all__ = [
    "OF",
    "ConfigError",
    "Option",
    "Range",
    "Section",
    "check_interval",
    "check_range",
    "converted",
    "default_of",
    "is_number",
    "is_whole",
    "overlay",
    "to_json",
]

LARGEST, LARGEST_WHOLE = 1e300, 1 << 64  # of numbers
OF = "of"
"""In a field's metadata: another field's name; where that gets another value, this one's is taken away."""
Option = int | float | str | bool
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "nothing",
}
T = typing.TypeVar("T")


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key."""


@dataclass(frozen=True)
class Range:
    """Where a number must lie: from `low` to `high`, without an end that is `open`."""

    low: float = -math.inf
    high: float = math.inf
    open: Literal["", "low", "high", "both"] = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open in ("low", "both") else value >= self.low
        below = value < self.high if self.open in ("high", "both") else value <= self.high
        finite = abs(value) < (LARGEST if isinstance(value, float) else LARGEST_WHOLE)
        return finite and above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.open in ("low", "both") else f"at least {self.low:g}"
        ends = {
            "low": f", and above {self.low:g}",
            "high": f", and below {self.high:g}",
            "both": ", without the ends",
        }
        return f"between {self.low:g} and {self.high:g}{ends.get(self.open, '')}"


class Section:
    """A frozen dataclass of options. Its numbers are checked when it is made; ConfigError names the first
    that is out of range.
    """

    def __post_init__(self) -> None:
        for key, hint in typing.get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, key)
            check_range(key, value, hint)
            if typing.get_origin(hint) is tuple and not isinstance(value, (tuple, list)):
                raise ConfigError(f"{key} is a list, not {brief(value)}.")
            if isinstance(hint, type) and issubclass(hint, Section) and not isinstance(value, hint):
                raise ConfigError(f"{key} is a {hint.__name__}, not {brief(value)}.")
            if typing.get_origin(hint) is Annotated:
                hint = typing.get_args(hint)[0]
            if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
                raise ConfigError(
                    f"{key} must be one of {', '.join(map(str, typing.get_args(hint)))}, not {brief(value)}."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{key} must be a finite number, not {value!r}.")


def is_whole(value: Any) -> bool:
    """Whether a value, as from JSON, is a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_WHOLE


def is_number(value: Any) -> bool:
    """Whether a value, as from JSON, is a number, and a finite one as a float."""
    return is_whole(value) or (isinstance(value, float) and abs(value) < LARGEST)


def check_range(key: str, value: Any, hint: Any) -> None:
    """ConfigError, which names `key`, where the type `hint` holds a `Range` that the value is outside of."""
    for note in typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ():
        if isinstance(note, Range) and value not in note:
            raise ConfigError(f"{key} must be {note}, not {brief(value)}.")


def check_interval(low: float, high: float) -> None:
    """Raises ConfigError where `low` is above `high`."""
    if low > high:
        raise ConfigError(f"low must be at most high ({high:g}), not {low!r}.")


def overlay(config: T, values: Mapping[str, Any], at: str = "") -> T:
    """`config` with nested `values` (as from JSON) laid over it; dictionaries of options are merged, but for
    what another field takes away (see `OF`).

    Raises ConfigError for an unknown key or a value of the wrong kind or out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{at or 'The configuration'} holds options of its own; give it an object, not {brief(values)}."
        )
    hints = typing.get_type_hints(type(config), include_extras=True)
    changed = {
        item.name: default_of(item)
        for item in dataclasses.fields(config)  # type: ignore[arg-type]
        if (part := str(item.metadata.get(OF, ""))) in values
        and converted(values[part], hints[part], f"{at}.{part}" if at else part) != getattr(config, part)
    }
    for key, value in values.items():
        where = f"{at}.{key}" if at else key
        if key not in hints:
            hint = did_you_mean(key, hints) or f" There are: {', '.join(hints)}."
            raise ConfigError(f"There is no option {brief(where)}.{hint}")
        old = changed.get(key, getattr(config, key))
        if dataclasses.is_dataclass(old):
            changed[key] = overlay(old, value, where)
        elif isinstance(old, Mapping):
            changed[key] = {**old, **_options(value, where)}
        else:
            changed[key] = converted(value, hints[key], where)
    try:
        return dataclasses.replace(config, **changed)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{at}.{error}" if at else str(error)) from None


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's value where none is given."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as nested JSON values."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


def _options(value: Any, where: str) -> dict[str, Option]:
    if not isinstance(value, Mapping) or not all(
        isinstance(v, (int, float, str, bool)) for v in value.values()
    ):
        raise ConfigError(f"{where} takes an object of numbers, texts and booleans, not {brief(value)}.")
    return dict(value)


def converted(value: Any, hint: Any, where: str) -> Any:
    """The value as the type `hint` wants it; ConfigError, which names `where`, for one of another type."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value  # the section checks it
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} takes a list, not {brief(value)}.")
        return tuple(converted(v, typing.get_args(hint)[0], where) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= LARGEST:
            raise ConfigError(f"{where} is a number beyond all range.")
        return float(value)
    kinds = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (origin or hint,)
    if Any in kinds or not all(isinstance(kind, type) for kind in kinds):
        return value
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        takes = " or ".join(KINDS.get(kind, kind.__name__) for kind in kinds)
        raise ConfigError(f"{where} cannot be {brief(value)}; it takes {takes}.")
    return value
