"""What all commands share: how options are parsed, and how lines are printed."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..core.errors import StoreError
from ..core.options import OF, ConfigError, Option, default_of
from ..core.storage import Storage, check_lasts, is_url

__all__ = [
    "Command",
    "Engine",
    "Interrupts",
    "absolute",
    "all_flags",
    "bare",
    "fields_of",
    "flag_of",
    "looked_at",
    "option_text",
    "parse",
    "say",
    "value_of",
    "working_in",
    "writing_to",
]

Engine = typing.Literal["here", "ray"]
"""where work is done that can be shared"""

DASH = "\x1f"
"""stands before a value that begins with a dash, which would be an option to the parser"""
T = typing.TypeVar("T")
_options = ConstructorRegistry()


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the program: `run` takes the arguments behind its name and returns the exit code."""

    about: str
    run: typing.Callable[[Sequence[str]], int]


class Interrupts:
    """Ctrl-C, remembered: Python drops a KeyboardInterrupt that falls into a destructor or a callback of C
    code.
    """

    seen = False

    @classmethod
    def handle(cls, *_: object) -> None:
        cls.seen = True
        raise KeyboardInterrupt


def say(line: str) -> None:
    """Prints a finished stage's line; the place where a dropped Ctrl-C takes effect."""
    print(line, flush=True)
    if Interrupts.seen:
        raise KeyboardInterrupt


def parse(options: type[T], prog: str, args: Sequence[str], default: T | None = None) -> T:
    """The command line as an instance of a dataclass.

    A field that is a tuple may be given several times, and its values add up. A field that is a dictionary is
    written as `--sample.options k=3 cosine=0.8`, and is laid over its default.
    """
    several = {
        flag
        for flags, hint in all_flags(options)
        if typing.get_origin(hint) in (tuple, dict)
        for flag in flags
        if flag.startswith("--")  # a positional argument has none
    }
    joined = _joined(args, several)
    chosen = tyro.cli(options, prog=prog, args=joined, default=default, registry=_options)
    return typing.cast(T, chosen if default is None else _merged(default, chosen))


def looked_at(place: str, *needed: str) -> Path:
    """A run, a guard or a classifier at a place, to be read alone: of one in a bucket a copy here of the
    files at its top and of those whose names begin with what is `needed`, or of all.

    Raises StoreError where nothing is there.
    """
    if not is_url(place):
        return Path(place)
    if not Storage(place).listed(""):
        raise StoreError(f"There is nothing at {place}.")

    from ..run.sync import fetched

    return fetched(place, lambda name: not needed or "/" not in name or name.startswith(needed))


@contextmanager
def working_in(place: str) -> Iterator[Path]:
    """The folder at a place, here or in a bucket, to be worked in: then it is a copy here, and what is new in
    it goes to the bucket.

    Raises ConfigError for a place that does not last, and where several processes would share a bucket.
    """
    from ..core.distributed import current_shard

    if not is_url(place):
        yield Path(place)
        return
    check_lasts(place)
    if current_shard().count > 1:
        raise ConfigError("Several processes share a folder on a disk: give --run a folder, not a URL.")

    from ..run.sync import synchronised

    with synchronised(place, say) as folder:
        yield folder


@contextmanager
def writing_to(place: str, last: str | None = None, again: bool = False, beside: str = "") -> Iterator[Path]:
    """Where to write the file, or with `last` the folder, of a place here or in a bucket: then it is made
    here, and sent when the block ends well (see `run.delivery`).

    Raises ConfigError for a place that does not last.
    """
    if not is_url(place):
        yield Path(place)
        return
    check_lasts(place)

    from ..run.delivery import delivered

    with delivered(place, last, again, beside) as path:
        yield path


def absolute(place: str) -> str:
    """A place for people: a path from the root on, or a URL."""
    return place if is_url(place) else str(Path(place).resolve())


def value_of(args: Sequence[str], flag: str) -> str:
    """The value of an option that decides what the others start from; empty where it is not given."""
    for i, arg in enumerate(args):
        key, equals, value = arg.partition("=")
        if key == flag:
            return value if equals else next(iter(args[i + 1 : i + 2]), "")
    return ""


@_options.primitive_rule
def _word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str | Path] | None:
    """A text or a path, which may begin with a dash."""
    kind = typing.cast("type[str | Path]", info.type)
    if kind not in (str, Path):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar={str: "STR", Path: "PATH"}[kind],
        instance_from_str=lambda words: kind(words[0].removeprefix(DASH)),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


@_options.primitive_rule
def _dictionary(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, Option]] | None:
    if typing.get_origin(info.type) is not dict:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME=VALUE ...]",
        instance_from_str=lambda words: dict(map(_pair, words)),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [f"{key}={option_text(option)}" for key, option in value.items()],
    )


def _pair(word: str) -> tuple[str, Option]:
    key, equals, text = word.removeprefix(DASH).partition("=")
    if not key or not equals:
        raise ValueError(f"Options are written NAME=VALUE, as k=3, not {word!r}.")
    return key, _value(text)


def _value(text: str) -> Option:
    if text.casefold() in ("true", "false"):
        return text.casefold() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def option_text(option: Any) -> str:
    """An option's value as it is written on the command line."""
    return str(option).lower() if isinstance(option, bool) else str(option)


def _merged(default: Any, chosen: Any) -> Any:
    """`chosen`, with its dictionaries laid over those of `default`, but for what another field takes away
    (see `OF`).
    """
    changed = {}
    for field in dataclasses.fields(chosen):
        old, new = getattr(default, field.name), getattr(chosen, field.name)
        part = field.metadata.get(OF)
        if part and getattr(default, part) != getattr(chosen, part):
            changed[field.name] = default_of(field) if new == old else new
        elif isinstance(new, dict) and isinstance(old, dict):
            changed[field.name] = {**old, **new}
        elif dataclasses.is_dataclass(new) and type(new) is type(old):
            changed[field.name] = _merged(old, new)
    return dataclasses.replace(chosen, **changed)


def all_flags(kind: type, prefix: str = "") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each field of a dataclass, and of those within it, as it is written (see `flag_of`), with its type."""
    own, nested = fields_of(kind)
    for field, hint in own:
        yield flag_of(field, hint, prefix), bare(hint)[0]
    for name, flat, inner in nested:
        yield from all_flags(inner, prefix if flat else f"{prefix}{name}.")


def fields_of(kind: type) -> tuple[list[tuple[Any, Any]], list[tuple[str, bool, type]]]:
    """A dataclass's fields with their types; and apart from them those that are dataclasses themselves.

    Of the latter there are the name, whether it is left out of the flags, and the class.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    own, nested = [], []
    for field in dataclasses.fields(kind):
        hint, notes = bare(hints[field.name])
        if dataclasses.is_dataclass(hint):
            flat = any(getattr(note, "name", None) == "" for note in notes)
            nested.append((field.name, flat, typing.cast(type, hint)))
        else:
            own.append((field, hints[field.name]))
    return own, nested


def flag_of(field: Any, hint: Any, prefix: str) -> tuple[str, ...]:
    """How a field is written on the command line; a switch in both its forms."""
    hint, notes = bare(hint)
    if tyro.conf.Positional in notes:
        return (field.name.upper(),)
    name = next((note.name for note in notes if getattr(note, "name", None)), field.name).replace("_", "-")
    return (f"--{prefix}{name}", f"--{prefix}no-{name}") if hint is bool else (f"--{prefix}{name}",)


def bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its annotations; and the annotations."""
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        return hint, tuple(notes)
    return hint, ()


def _joined(args: Sequence[str], several: set[str]) -> list[str]:
    """The arguments with the values of an option given several times behind its first place: `--ood A --ood
    B` is `--ood A B`.

    Raises ConfigError for a value that begins with a dash and is written otherwise than `--ood=-A`.
    """
    single: list[str] = []
    last = ""
    values: dict[str, list[str]] = {}
    into = single
    for arg in args:
        key, equals, value = arg.partition("=")
        if key in several:
            if key not in values:
                single.append(key)
            into, last = values.setdefault(key, []), key
            into += [DASH + value if _is_dashed(value) else value] if equals else []
        elif arg.startswith("--"):
            into = single
            single.append(arg)
        elif into is not single and _is_dashed(arg) and arg != "-h":
            raise ConfigError(f"A value that begins with a dash is written with an equals sign: {last}={arg}")
        else:
            into.append(arg)
    return [part for arg in single for part in (arg, *values.get(arg, ()))]


def _is_dashed(value: str) -> bool:
    """Whether a value begins with a dash and is no number."""
    return value.startswith("-") and isinstance(_value(value), str)
