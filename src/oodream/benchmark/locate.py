"""benchmark.locate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ..core.errors import DataError, listed
from ..core.types import OOD
from ..data.scan import image_files
from .protocol import KNOWN, LISTS, UNKNOWN, Benchmark, ImageSet, _plain


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


# Where the sets lie ----------------------------------------------------------------------------------------------------------


def locate(
    benchmark: Benchmark,
    roots: Sequence[Path],
    groups: Collection[str] = KNOWN + UNKNOWN,
    *,
    hub: bool = False,
) -> Located:
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
                f"{file} is_main to {file.resolve()}, outside the root. If that may be read, name its folder as a --root, too."
            )
        return file

    def _holds(self, path: Path) -> bool:
        real = path.resolve()
        return any(real.is_relative_to(root) for root in self._real)


def _classes_of_folders(benchmark: Benchmark, roots: Sequence[Path]) -> Benchmark:
    """The protocol with the class folders of the first folder of known images that is there as its classes."""
    places = [
        root / folder for s in benchmark.sets if s.group in KNOWN for root in roots for folder in s.folders
    ]
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
        folders = [
            root / folder for root in inside.roots for folder in item.folders if (root / folder).is_dir()
        ]
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
        raise DataError(
            f"{len(gone)} of the {len(files)} images in the list {file} are not there; the first is {gone[0]}."
        )
    labels = tuple(label for _, label in lines)
    return Found(
        set=item, place=str(file), files=tuple(files), labels=labels, sha256=told, remarks=tuple(remarks)
    )


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
            raise DataError(
                f"{file}, line {number}: {line[:80]!r} is no path and label, such as photos/a.png 3."
            )
        if PurePosixPath(path).is_absolute() or ".." in parts:
            raise DataError(f"{file}, line {number}: {path} is_main out of the folder of the images.")
        if count and not 0 <= int(label) < count:
            raise DataError(
                f"{file}, line {number}: there is no class {label}; the labels are 0 to {count - 1}."
            )
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
    remarks = (
        [f"{place} stands for the list of {item.name}, and not the protocol's choice of images"]
        if item.list
        else []
    )
    if item.count and len(files) != item.count:
        remarks.append(
            f"{place} has {len(files)} images, the protocol {item.count}: its numbers do not compare with the protocol's"
        )
    return Found(set=item, place=str(place), files=tuple(files), labels=tuple(labels), remarks=tuple(remarks))


def _subfolders(place: Path) -> dict[str, Path]:
    return {
        _plain(path.name): path
        for path in sorted(place.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


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
        lines.append(
            f"  {name}: {source.url}{told}, into {into}" + (f"; {source.note}" if source.note else "")
        )
    return "\n".join(lines)
