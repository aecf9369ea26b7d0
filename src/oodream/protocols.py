"""Evaluation protocols as data: which image sets a benchmark has, where they may lie, how to know them, where to get them.

A protocol is a TOML file (`Benchmark`), shipped or a user's own. A set is an image list in OpenOOD's format, a folder, a data set
of the hub or a built-in one. `locate` looks for all sets before any picture is opened; `find` reads them.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from . import builtin, classes
from .config import ConfigError, overlay
from .data import load_hub
from .images import DataError, Images, from_array, from_files, image_files, listed
from .seeding import generator
from .types import OOD
from .validation import DISTURBED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent / "assets" / "protocols"
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


@dataclass(frozen=True, kw_only=True)
class Found:
    """A set that is there: its `place` in words, the files with their labels, its list's hash, and how it is not the protocol's."""

    set: ImageSet
    place: str
    files: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()
    sha256: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A set that is not there, and what was found wrong in every place."""

    set: ImageSet
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Located:
    """What `locate` found; `benchmark` has the class names even where the protocol leaves them to the folders."""

    benchmark: Benchmark
    found: tuple[Found, ...]
    missing: tuple[Missing, ...]


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
        raise DataError(f"There is no protocol {source!r}.{hint} There are: {', '.join(names())}; or name a TOML file.")
    try:
        data = path.read_bytes()
        table = tomllib.loads(data.decode())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    names_of, labels = _classes(table.pop("classes", []), path)
    blank = Benchmark(name=path.stem, classes=names_of, labels=labels, digest=hashlib.sha256(data).hexdigest())
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
        return tuple(by_folder.values()), {folder: position[name] for folder, name in (by_folder | aliases).items()}
    if isinstance(given, int) and not isinstance(given, bool) and given > 1:
        return tuple(map(str, range(given))), {}
    if isinstance(given, list) and len(given) != 1 and all(isinstance(name, str) for name in given) and len({*given}) == len(given):
        return tuple(given), {_plain(name): label for label, name in enumerate(given)}
    raise DataError(f"{path}: classes cannot be {given!r}. It is a class list, several different names, or a number above one.")


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
            refuse(f"Set {s.name!r}: there is no built-in set {s.builtin!r}. There are: {', '.join(BUILT_IN)}.")
        if s.source and s.source not in benchmark.sources:
            refuse(f"Set {s.name!r} comes from {s.source!r}, which is no source here.")
        if s.sha256 and (len(s.sha256) != 64 or not {*s.sha256} <= {*"0123456789abcdef"}):
            refuse(f"Set {s.name!r}: sha256 is 64 hexadecimal digits.")
        if s.count < 0:
            refuse(f"Set {s.name!r} cannot have {s.count} images.")
        for place in (s.list, s.images, *s.folders):
            if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
                refuse(f"Set {s.name!r}: {place} leads out of the root.")


# Where the sets lie ----------------------------------------------------------------------------------------------------------


def locate(benchmark: Benchmark, roots: Sequence[Path], groups: Collection[str] = KNOWN + UNKNOWN, *, hub: bool = False) -> Located:
    """Looks for the sets of `groups` below the roots, one after the other, without opening a picture or a connection.

    Paths of lists and folders must stay inside the roots, whatever links they go through. With `hub`, sets that are not below a
    root but on the hub count as found; reading fetches them.
    """
    inside = _Inside(roots)
    if not benchmark.classes:
        benchmark = _classes_of_folders(benchmark, roots)
    told = [_search(s, benchmark, inside, hub) for s in benchmark.sets if s.group in groups]
    return Located(
        benchmark=benchmark,
        found=tuple(f for f in told if isinstance(f, Found)),
        missing=tuple(m for m in told if isinstance(m, Missing)),
    )


class _Inside:
    """Files inside the roots, whatever links lead to them; every folder is followed once."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._real = [root.resolve() for root in roots]
        self._folders: dict[Path, bool] = {}

    def __call__(self, file: Path) -> Path:
        """The file itself; DataError when it leads out of the roots."""
        folder = file.parent
        if folder not in self._folders:
            self._folders[folder] = self._holds(folder)
        if not self._folders[folder] or (file.is_symlink() and not self._holds(file)):
            raise DataError(
                f"{file} leads to {file.resolve()}, outside the root. If that may be read, name its folder as a --root, too."
            )
        return file

    def _holds(self, path: Path) -> bool:
        real = path.resolve()
        return any(real.is_relative_to(root) for root in self._real)


def _classes_of_folders(benchmark: Benchmark, roots: Sequence[Path]) -> Benchmark:
    """The protocol with the class folders of the first folder of known images that is there as its classes."""
    places = [root / folder for s in benchmark.sets if s.group in KNOWN for root in roots for folder in s.folders]
    found = next((sorted(_subfolders(place)) for place in places if place.is_dir()), [])
    return replace(benchmark, classes=tuple(found), labels={name: label for label, name in enumerate(found)})


def _search(item: ImageSet, benchmark: Benchmark, inside: _Inside, hub: bool) -> Found | Missing:
    if item.builtin:
        return Found(set=item, place="built in")
    reasons: list[str] = []
    for found in _attempts(item, benchmark, inside):
        if isinstance(found, Found):
            return found
        reasons.append(found)
    if item.hub and hub:
        return Found(set=item, place=f"hub:{item.hub}")
    if item.hub:
        reasons.append(f"it is on the hub as {item.hub}, which --hub would read")
    return Missing(set=item, reasons=tuple(reasons))


def _attempts(item: ImageSet, benchmark: Benchmark, inside: _Inside) -> Iterator[Found | str]:
    """The set at each place where it may lie, or why it is not there."""
    searches: list[Callable[[], Found]] = []
    if item.list:
        lists = [root / item.list for root in inside.roots if (root / item.list).is_file()]
        searches += [partial(_by_list, item, benchmark, inside, file) for file in lists]
        if not lists:
            yield f"no list {item.list}" + (f" (sha256 {item.sha256})" if item.sha256 else "")
    if item.folders:
        folders = [root / folder for root in inside.roots for folder in item.folders if (root / folder).is_dir()]
        searches += [partial(_by_folder, item, benchmark, inside, folder) for folder in folders]
        if not folders:
            yield f"no folder {' or '.join(item.folders)}"
    for search in searches:
        try:
            yield search()
        except DataError as error:
            yield str(error).rstrip(".")


def _by_list(item: ImageSet, benchmark: Benchmark, inside: _Inside, file: Path) -> Found:
    """The set as its list has it; DataError for lines that are no `path label`, paths outside the roots, and missing files."""
    data = inside(file).read_bytes().replace(b"\r\n", b"\n")
    told = hashlib.sha256(data).hexdigest()
    lines = list(_lines(data, file, len(benchmark.classes) if item.group in KNOWN else 0))
    remarks = []
    if item.sha256 and told != item.sha256:
        remarks.append(
            f"{file} is another list than the protocol's (sha256 {told}, the protocol's {item.sha256}; {len(lines)} lines, the "
            f"protocol's {item.count}): its numbers do not compare with the protocol's"
        )
    elif item.count and len(lines) != item.count:
        remarks.append(
            f"{file} lists {len(lines)} images, the protocol {item.count}: its numbers do not compare with the protocol's"
        )
    bases = [root / item.images for root in inside.roots]
    base = next((base for base in bases if (base / lines[0][0]).is_file()), bases[0])
    files = []
    for number, (path, _) in enumerate(lines, 1):
        try:
            files.append(inside(base / path))
        except DataError as error:
            raise DataError(f"{file}, line {number}: {error}") from None
    if gone := [path for path in files if not path.is_file()]:
        raise DataError(f"{len(gone)} of the {len(files)} images in the list {file} are not there; the first is {gone[0]}.")
    labels = tuple(label for _, label in lines)
    return Found(set=item, place=str(file), files=tuple(files), labels=labels, sha256=told, remarks=tuple(remarks))


def _lines(data: bytes, file: Path, count: int) -> Iterator[tuple[str, int]]:
    """(path, label) of every line; labels are those of `count` classes, or anything where that is 0."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no list: {error}.") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{file} is empty.")
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip().rpartition(" ")
        parts = PurePosixPath(path).parts
        if not path or not path.isprintable() or not label.removeprefix("-").isdecimal():
            raise DataError(f"{file}, line {number}: {line[:80]!r} is no path and label, such as photos/a.png 3.")
        if PurePosixPath(path).is_absolute() or ".." in parts:
            raise DataError(f"{file}, line {number}: {path} leads out of the folder of the images.")
        if count and not 0 <= int(label) < count:
            raise DataError(f"{file}, line {number}: there is no class {label}; the labels are 0 to {count - 1}.")
        yield path, int(label)


def _by_folder(item: ImageSet, benchmark: Benchmark, inside: _Inside, place: Path) -> Found:
    """The images below a folder; for known classes those in the folders called as the classes are."""
    files: list[Path] = []
    labels: list[int] = []
    if item.group in KNOWN:
        folders = _subfolders(place)
        by_name = benchmark.labels
        if not by_name and len(folders) == len(benchmark.classes):
            by_name = {name: label for label, name in enumerate(sorted(folders))}
        known = {by_name[name]: folder for name, folder in sorted(folders.items()) if name in by_name}
        if absent := [name for label, name in enumerate(benchmark.classes) if label not in known]:
            raise DataError(f"{place} has no class folders for {listed(absent)}.")
        for label, folder in sorted(known.items()):
            found = image_files(inside(folder / "*").parent)
            files += found
            labels += [label] * len(found)
    else:
        files = image_files(inside(place / "*").parent)
        labels = [OOD] * len(files)
    if not files:
        raise DataError(f"{place} has no images.")
    for file in files:
        inside(file)
    remarks = [f"{place} stands for the list of {item.name}, and not the protocol's choice of images"] if item.list else []
    if item.count and len(files) != item.count:
        remarks.append(
            f"{place} has {len(files)} images, the protocol {item.count}: its numbers do not compare with the protocol's"
        )
    return Found(set=item, place=str(place), files=tuple(files), labels=tuple(labels), remarks=tuple(remarks))


def _subfolders(place: Path) -> dict[str, Path]:
    return {_plain(path.name): path for path in sorted(place.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def explain(located: Located, roots: Sequence[Path]) -> str:
    """What is missing, set by set, then where to get it, source by source, with checksums; empty when all is there."""
    if not located.missing:
        return ""
    benchmark = located.benchmark
    below = f" below {' and '.join(map(str, roots))}" if roots else ", and no --root was given"
    total = len(located.found) + len(located.missing)
    lines = [f"{benchmark.name}: {len(located.missing)} of {total} image sets are not there{below}."]
    wanted: dict[str, None] = {}
    for missing in located.missing:
        item = missing.set
        size = f", {item.count:,} images" if item.count else ""
        lines.append(f"  {item.name} ({item.group}{size}): {'; '.join(missing.reasons)}.")
        unlisted = bool(item.list) and not any((root / item.list).is_file() for root in roots)
        into = benchmark.sources[item.source].into if item.source else "."
        if unlisted:
            wanted[LISTS] = None
        if not (unlisted and into != "." and any((root / into).is_dir() for root in roots)):
            wanted[item.source] = None
    if sources := [(name, benchmark.sources[name]) for name in wanted if name in benchmark.sources]:
        lines.append("Where to get it (ROOT is the folder that --root names):")
    for name, source in sources:
        told = (f", {source.file}" if source.file else "") + (f" (md5 {source.md5})" if source.md5 else "")
        into = "ROOT" if source.into == "." else f"ROOT/{source.into}"
        lines.append(f"  {name}: {source.url}{told}, into {into}" + (f"; {source.note}" if source.note else ""))
    return "\n".join(lines)


# Reading ---------------------------------------------------------------------------------------------------------------------


def find(
    benchmark: Benchmark,
    roots: Sequence[Path],
    size: int = 0,
    groups: Collection[str] = MEASURED,
    *,
    crop: float = 0.0,
    most: Mapping[str, int] | None = None,
    seed: int = 0,
    hub: bool = False,
) -> dict[str, tuple[str, Images]]:
    """All sets of `groups` by name, with their group, as squares of `size` pixels (0, and crop 0: the protocol's).

    `most` cuts every set of a group to so many images, drawn by `seed`. Warns of each set that is not the protocol's own. DataError
    lists all that is missing, where it was looked for, and where to get it, before any picture is read.
    """
    located = locate(benchmark, roots, groups, hub=hub)
    if located.missing:
        raise DataError(explain(located, roots))
    return read_all(located, size, crop=crop, most=most, seed=seed)


def read_all(
    located: Located, size: int = 0, *, crop: float = 0.0, most: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, tuple[str, Images]]:
    """The sets that were found, as `find` has them."""
    for remark in [remark for found in located.found for remark in found.remarks]:
        warnings.warn(f"{located.benchmark.name}: {remark}.", stacklevel=3)
    cut = most or {}
    return {
        found.set.name: (
            found.set.group,
            read(found, located.benchmark, size, crop=crop, most=cut.get(found.set.group, 0), seed=seed),
        )
        for found in located.found
    }


def read(found: Found, benchmark: Benchmark, size: int = 0, *, crop: float = 0.0, most: int = 0, seed: int = 0) -> Images:
    """The images of a set that was found, as `find` has them."""
    size, crop = size or benchmark.size, crop or benchmark.crop
    if size < 1 or not 0 < crop <= 1:
        raise DataError(f"The size is in pixels, and crop a share above 0 and not above 1; they are {size} and {crop}.")
    item, resized = found.set, round(size / crop)
    if item.builtin:
        images = BUILT_IN[item.builtin](resized, item.count)
    elif found.files:
        files, labels = found.files, found.labels
        if 0 < most < len(files):
            rows = torch.randperm(len(files), generator=generator(seed, "most", item.name))[:most].sort().values.tolist()
            files, labels = tuple(files[row] for row in rows), tuple(labels[row] for row in rows)
        images = from_files(item.name, files, labels, benchmark.classes if item.group in KNOWN else (), resized)
    else:
        train, test = load_hub(item.hub, resized)
        images = train if item.group == "train" else test
        if item.group in KNOWN:
            images = classes.renamed(images, benchmark.classes)
        if item.count and len(images) != item.count:
            warnings.warn(f"hub:{item.hub} has {len(images)} images, the protocol {item.count}.", stacklevel=2)
    if 0 < most < len(images):
        images = images.subset(torch.randperm(len(images), generator=generator(seed, "most", item.name))[:most].sort().values)
    images = replace(images, name=item.name) if item.group in KNOWN else images.as_ood(item.name)
    return _middle(images, size) if size < resized else images


def _middle(images: Images, size: int) -> Images:
    """The middle of every image, `size` pixels wide."""
    start = (images.size - size) // 2
    part = slice(start, start + size)
    return replace(images, size=size, read=lambda index: images.read(index)[..., part, part])


def _fashion(split: str, chosen: Sequence[str], last: bool = False) -> Callable[[int, int], Images]:
    """The first (or last) `count` images in a fixed random order."""

    def make(size: int, count: int) -> Images:
        images = builtin.fashion(split, chosen, size=size)
        rows = torch.randperm(len(images), generator=generator(0, "fashion", split))
        part = rows[-count:] if last else rows[: count or len(images)]
        return images.subset(part.sort().values)

    return make


def _disturbed(name: str) -> Callable[[int, int], Images]:
    """The validation images, disturbed."""

    def make(size: int, count: int) -> Images:
        images = BUILT_IN["fashion-val"](size, count)
        return from_array(
            name, DISTURBED[name][0](images.batch(range(count)), images.labels, generator(0, name)), images.labels, ()
        )

    return make


def _far(name: str) -> Callable[[int, int], Images]:
    return lambda size, count: builtin.FAR_SETS[name][0](size, count or 1000, 0)


BUILT_IN: dict[str, Callable[[int, int], Images]] = {
    "fashion-train": _fashion("train", builtin.FASHION_ID),
    "fashion-test": _fashion("test", builtin.FASHION_ID),
    "fashion-val": _fashion("test", builtin.FASHION_ID, last=True),
    "fashion-bag": _fashion("test", ("bag",)),
    "fashion-boot": _fashion("test", ("boot",)),
    **{name: _far(name) for name in builtin.FAR_SETS},
    **{name: _disturbed(name) for name in DISTURBED},
}
