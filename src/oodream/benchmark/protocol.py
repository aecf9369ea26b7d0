"""Evaluation protocols as data: which image sets a benchmark has, where they may lie, how to know them, where to get them.

A protocol is a TOML file (`Benchmark`), shipped or a user's own. A set is an image list in OpenOOD's format, a folder, a data set
of the hub or a built-in one. `locate` looks for all sets before any picture is opened; `find` reads them.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import DataError
from ..core.files import ASSETS
from ..core.options import ConfigError, overlay
from ..data import classes
from .builtin import BUILT_IN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = ASSETS / "protocols"
KNOWN = ("train", "test", "val")
UNKNOWN = ("near", "far", "val-ood")
MEASURED = ("train", "test", "near", "far")
LISTS = "lists"  # the source of the image lists themselves


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where something can be had: a page or an archive `file` with its `md5`, which belongs `into` a folder below the root."""

    url: str = ""
    file: str = ""
    md5: str = ""
    into: str = "."
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One image set and the places it may lie in, all below the root, the first that is there counts.

    `list` has a line `path label` for every image, with paths below `images`, and the hash `sha256` (of Unix line ends).
    `folders` hold the images themselves; those of known classes hold class folders. `hub` and `builtin` name sets from elsewhere.
    """

    name: str = ""
    group: str = ""
    list: str = ""
    sha256: str = ""
    images: str = "."
    folders: tuple[str, ...] = ()
    hub: str = ""
    builtin: str = ""
    count: int = 0
    source: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A protocol: its sets, its classes by label, the size of its images and what is to be known about its numbers.

    `crop` is the share of a picture's shorter side that is kept, `labels` a class folder's label. Below `least_accuracy` the
    images are read in another way than the network was trained on. `nearest` is as in `metrics.measure`, `digest` the file's hash.
    """

    name: str
    classes: tuple[str, ...]
    labels: Mapping[str, int]
    digest: str
    sets: tuple[ImageSet, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    about: str = ""
    size: int = 32
    crop: float = 1.0
    least_accuracy: float = 0.0
    fpr95: str = ""
    nearest: bool = False
    paper: str = ""
    notes: tuple[str, ...] = ()


# Protocol files --------------------------------------------------------------------------------------------------------------


def names() -> tuple[str, ...]:
    """The shipped protocols."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load(source: str) -> Benchmark:
    """A shipped protocol by name, or a TOML file of the same format; DataError says what is wrong with it, and where."""
    path = SHIPPED / f"{source}.toml" if source in names() else Path(source)
    if path.suffix != ".toml":
        near = difflib.get_close_matches(source, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"There is no protocol {source!r}.{hint} There are: {', '.join(names())}; or name a TOML file."
        )
    try:
        data = path.read_bytes()
        table = tomllib.loads(data.decode())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    names_of, labels = _classes(table.pop("classes", []), path)
    blank = Benchmark(
        name=path.stem, classes=names_of, labels=labels, digest=hashlib.sha256(data).hexdigest()
    )
    try:
        entries, sources = _tables(table.pop("sets", []), list), _tables(table.pop("sources", {}), dict)
        if own := sorted({"name", "labels", "digest"} & table.keys()):
            raise ConfigError(f"There is no option {own[0]!r}.")
        benchmark = replace(
            overlay(blank, table),
            sets=tuple(overlay(ImageSet(), entry, f"set {i}") for i, entry in enumerate(entries, 1)),
            sources={name: overlay(Source(), entry, f"source {name}") for name, entry in sources.items()},
        )
        _check(benchmark)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    return benchmark


def _tables(value: Any, kind: type) -> Any:
    """The value; ConfigError when it is no list, or table, of tables."""
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, kind) or not all(isinstance(entry, dict) for entry in inner):
        raise ConfigError("Sets are written as [[sets]], and sources as [sources.NAME].")
    return value


def _classes(given: object, path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names by label and each folder's label: of a class list, of names, of a number, or none yet."""
    if isinstance(given, str):
        file = path.parent / given if given.endswith(".toml") else classes.find(given)
        by_folder, _, aliases = classes.read(file)
        position = {name: label for label, name in enumerate(by_folder.values())}
        return tuple(by_folder.values()), {
            folder: position[name] for folder, name in (by_folder | aliases).items()
        }
    if isinstance(given, int) and not isinstance(given, bool) and given > 1:
        return tuple(map(str, range(given))), {}
    if (
        isinstance(given, list)
        and len(given) != 1
        and all(isinstance(name, str) for name in given)
        and len({*given}) == len(given)
    ):
        return tuple(given), {_plain(name): label for label, name in enumerate(given)}
    raise DataError(
        f"{path}: classes cannot be {given!r}. It is a class list, several different names, or a number above one."
    )


def _check(benchmark: Benchmark) -> None:
    """ConfigError for what no protocol can mean."""

    def refuse(what: str) -> None:
        raise ConfigError(what)

    sets = benchmark.sets
    groups = [s.group for s in sets]
    if twice := sorted({s.name for s in sets if [t.name for t in sets].count(s.name) > 1}):
        refuse(f"Two sets are called {twice[0]!r}.")
    for group in ("train", "test"):
        if groups.count(group) != 1:
            refuse(f"There must be one set of the group {group!r}, and there are {groups.count(group)}.")
    if not {"near", "far"} & {*groups}:
        refuse("There is no set of the groups near and far.")
    if not 0 < benchmark.crop <= 1 or benchmark.size < 1:
        refuse("The size is in pixels, and crop a share above 0 and not above 1.")
    if benchmark.fpr95 not in ("", "fpr95_id", "fpr95_ood"):
        refuse(f"The name in fpr95 is fpr95_id or fpr95_ood, not {benchmark.fpr95!r}.")
    for s in sets:
        if s.group not in KNOWN + UNKNOWN:
            refuse(f"Set {s.name!r} has group {s.group!r}; there are {', '.join(KNOWN + UNKNOWN)}.")
        if s.name in ("id", "mean", "") or not s.name.isprintable() or "/" in s.name:
            refuse(f"A set cannot be called {s.name!r}.")
        if not (s.list or s.folders or s.hub or s.builtin):
            refuse(f"Set {s.name!r} has no list, folders, hub or builtin to come from.")
        if s.builtin and s.builtin not in BUILT_IN:
            refuse(
                f"Set {s.name!r}: there is no built-in set {s.builtin!r}. There are: {', '.join(BUILT_IN)}."
            )
        if s.source and s.source not in benchmark.sources:
            refuse(f"Set {s.name!r} comes from {s.source!r}, which is no source here.")
        if s.sha256 and (len(s.sha256) != 64 or not {*s.sha256} <= {*"0123456789abcdef"}):
            refuse(f"Set {s.name!r}: sha256 is 64 hexadecimal digits.")
        if s.count < 0:
            refuse(f"Set {s.name!r} cannot have {s.count} images.")
        for place in (s.list, s.images, *s.folders):
            if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
                refuse(f"Set {s.name!r}: {place} is_main out of the root.")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
