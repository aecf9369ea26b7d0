"""Evaluation protocols as data: the image sets of a benchmark, where they may lie, how to recognize them,
where to get them.

A protocol is a TOML file (`Protocol`), shipped with the package or written by a user. A set is an image list
in OpenOOD's format, a folder, a data set of the hub or a built-in one. `locate` looks for the sets before any
image is opened; `read` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import DataError, brief, did_you_mean, shown
from ..core.files import ASSETS, MAX_TOML, decode_text, parse_toml, read_bytes
from ..core.options import ConfigError, overlay
from ..data import classes
from ..data.sets import SETS
from .builtin import BUILT_IN

__all__ = [
    "KNOWN",
    "LISTS",
    "MEASURED",
    "SHIFTED",
    "UNKNOWN",
    "Protocol",
    "ProtocolSet",
    "Source",
    "least_accuracy",
    "load_protocol",
    "protocol_names",
]

SHIPPED = ASSETS / "protocols"
SHIFTED = "shift"  # known images that look otherwise; they count as known on the full spectrum alone
KNOWN = ("train", "test", "val", SHIFTED)
UNKNOWN = ("near", "far", "val-ood")
MEASURED = ("train", "test", "near", "far")
LISTS = "lists"  # the name of the source that the image lists themselves come from
MOST_CLASSES = 1_000_000
LONGEST = 3_000  # letters of a place below a root


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a set can be had: a page `url`, or an archive `file` with its `md5` to unpack `into` a folder
    below the root.
    """

    url: str = ""
    file: str = ""
    md5: str = ""
    into: str = "."
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ProtocolSet:
    """One image set of a protocol and the places it may lie in. All places are below the root; the first that
    exists counts.

    `list` is a file with a line `path label` for every image; the paths start at `images`. `sha256` is the
    list's hash (with Unix line ends). `folders` hold the images themselves; those of known classes hold class
    folders. `data` names a data set that a root may hold in any of its forms (`data.sets`): its training
    images for the group "train", else its test images. They are of its classes `of`: by default the
    protocol's for known groups, and all for others. `hub` and `builtin` are names of sets from elsewhere.
    `count` is the number of images, 0 where it is not stated.
    """

    name: str = ""
    group: str = ""
    list: str = ""
    sha256: str = ""
    images: str = "."
    folders: tuple[str, ...] = ()
    data: str = ""
    of: tuple[str, ...] = ()
    hub: str = ""
    builtin: str = ""
    count: int = 0
    source: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A benchmark: its sets, its classes by label, the size of its images and what a reader of its numbers
    must know.

    `crop` is the share of an image's shorter side that is kept. `labels` maps a class folder to its label. An
    accuracy below `least_accuracy` means that the images are read in another way than the network was trained
    on (see `least_accuracy`). `fpr95` names the FPR95 that the protocol's publications report; `nearest`
    takes it at the share nearest to 95 % (see `functional.metrics.measure`). `digest` is the SHA-256 of the
    protocol's file.
    """

    name: str
    classes: tuple[str, ...]
    labels: Mapping[str, int]
    digest: str
    sets: tuple[ProtocolSet, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    about: str = ""
    size: int = 32
    crop: float = 1.0
    least_accuracy: float = 0.0
    fpr95: str = ""
    nearest: bool = False
    paper: str = ""
    notes: tuple[str, ...] = ()


def protocol_names() -> tuple[str, ...]:
    """The names of the shipped protocols, sorted."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_protocol(source: str) -> Protocol:
    """A shipped protocol by name, or a TOML file of the same format.

    Raises DataError, which says what is wrong and where, for an unknown name and for a file that cannot be
    read or understood.
    """
    path = SHIPPED / f"{source}.toml" if source in protocol_names() else Path(source)
    if path.suffix != ".toml":
        raise DataError(
            f"There is no protocol {source!r}.{did_you_mean(source, protocol_names())} "
            f"There are: {', '.join(protocol_names())}; or name a TOML file."
        )
    try:
        data = read_bytes(path, 4 * MAX_TOML)
        table = parse_toml(decode_text(data))
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read: {error}") from error
    class_names, labels = _classes(table.pop("classes", []), path)
    blank = Protocol(
        name=path.stem, classes=class_names, labels=labels, digest=hashlib.sha256(data).hexdigest()
    )
    try:
        entries, sources = _tables(table.pop("sets", []), list), _tables(table.pop("sources", {}), dict)
        if derived := sorted({"name", "labels", "digest"} & table.keys()):
            raise ConfigError(f"There is no option {derived[0]!r}.")
        protocol = replace(
            overlay(blank, table),
            sets=tuple(overlay(ProtocolSet(), entry, f"set {i}") for i, entry in enumerate(entries, 1)),
            sources={name: overlay(Source(), entry, f"source {name}") for name, entry in sources.items()},
        )
        _check(protocol)
    except ConfigError as error:
        raise DataError(f"{shown(path)}: {error}") from error
    return protocol


def least_accuracy(protocol: Protocol) -> float:
    """The accuracy, in [0, 1], below which the other numbers mean nothing.

    It is the protocol's own where it states one, else three times chance, but no more than half-way from
    chance to 1.
    """
    chance = 1 / len(protocol.classes)
    return protocol.least_accuracy or min(3 * chance, (1 + chance) / 2)


def _tables(value: Any, kind: type) -> Any:
    """The value; ConfigError when it is not a list, or a table, of tables."""
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, kind) or not all(isinstance(entry, dict) for entry in inner):
        raise ConfigError("Sets are written as [[sets]], and sources as [sources.NAME].")
    return value


def _classes(value: object, path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names by label, and the label of each class folder, from the value of the key `classes`.

    The value is a class list, a list of names, or a number of classes. Left out, it gives no classes: the
    folders name them.
    """
    if isinstance(value, str):
        file = path.parent / value if value.endswith(".toml") else classes.find(value)
        by_folder, _, aliases = classes.read(file)
        position = {name: label for label, name in enumerate(by_folder.values())}
        return tuple(by_folder.values()), {
            folder: position[name] for folder, name in (by_folder | aliases).items()
        }
    if isinstance(value, int) and not isinstance(value, bool) and 1 < value <= MOST_CLASSES:
        return tuple(map(str, range(value))), {}
    if (
        isinstance(value, list)
        and len(value) != 1
        and all(isinstance(name, str) for name in value)
        and len({*value}) == len(value)
    ):
        return tuple(value), {classes.folder_key(name): label for label, name in enumerate(value)}
    raise DataError(
        f"{shown(path)}: classes cannot be {brief(value)}. Give the name of a class list, a list of "
        f"different names, or a number above one and not above {MOST_CLASSES:,}."
    )


def _check(protocol: Protocol) -> None:
    """Raises ConfigError for what makes no protocol."""
    for item in protocol.sets:
        _check_set(item, protocol.sources)
    groups, names = [s.group for s in protocol.sets], [s.name for s in protocol.sets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"Two sets are called {repeated[0]!r}.")
    for group in ("train", "test"):
        if groups.count(group) != 1:
            raise ConfigError(
                f"There must be one set of the group {group!r}, and there are {groups.count(group)}."
            )
    if not {"near", "far"} & {*groups}:
        raise ConfigError("There is no set of the groups near and far.")
    if not 0 < protocol.crop <= 1 or protocol.size < 1:
        raise ConfigError("The size is in pixels, and crop a share above 0 and not above 1.")
    if protocol.fpr95 not in ("", "fpr95_id", "fpr95_ood"):
        raise ConfigError(f"The name in fpr95 is fpr95_id or fpr95_ood, not {protocol.fpr95!r}.")


def _check_set(item: ProtocolSet, sources: Mapping[str, Source]) -> None:
    """Raises ConfigError for what makes no set."""
    if item.name in ("id", "mean", "") or not item.name.isprintable() or "/" in item.name:
        raise ConfigError(f"A set cannot be called {item.name!r}.")
    if item.group not in KNOWN + UNKNOWN:
        raise ConfigError(
            f"Set {item.name!r} has group {item.group!r}.{did_you_mean(item.group, KNOWN + UNKNOWN)} "
            f"There are: {', '.join(KNOWN + UNKNOWN)}."
        )
    if not (item.list or item.folders or item.data or item.hub or item.builtin):
        raise ConfigError(f"Set {item.name!r} has no list, folders, data, hub or builtin to come from.")
    if item.data and (item.data not in SETS or SETS[item.data].root == "none"):
        names = [name for name, data in SETS.items() if data.root != "none"]
        raise ConfigError(
            f"Set {item.name!r}: there is no data set {item.data!r} that a root holds. "
            f"There are: {', '.join(names)}."
        )
    if item.builtin and item.builtin not in BUILT_IN:
        raise ConfigError(
            f"Set {item.name!r}: there is no built-in set {item.builtin!r}. There are: {', '.join(BUILT_IN)}."
        )
    if item.source and item.source not in sources:
        raise ConfigError(f"Set {item.name!r} comes from {item.source!r}, which is no source here.")
    if item.sha256 and (len(item.sha256) != 64 or not {*item.sha256} <= {*"0123456789abcdef"}):
        raise ConfigError(f"Set {item.name!r}: sha256 is 64 hexadecimal digits.")
    if item.count < 0:
        raise ConfigError(f"Set {item.name!r} cannot have {item.count} images.")
    for place in (item.list, item.images, *item.folders):
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise ConfigError(f"Set {item.name!r}: {place} leads out of the root.")
        if len(place) > LONGEST or any(len(part.encode()) > 255 for part in PurePosixPath(place).parts):
            raise ConfigError(f"Set {item.name!r}: {brief(place)} is too long for the name of a file.")
