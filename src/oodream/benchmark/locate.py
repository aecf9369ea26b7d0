"""Where the image sets of a protocol lie: below some root folders, on the hub, or in the package. No image is
opened here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ..core.errors import DataError, listed, shown
from ..core.files import read_text
from ..core.types import OOD
from ..data.classes import folder_key, plain, read
from ..data.folders import class_folders
from ..data.images import Images
from ..data.scan import image_files
from ..data.sets import SETS
from .protocol import KNOWN, SHIFTED, UNKNOWN, Protocol, ProtocolSet

__all__ = ["FoundSet", "Located", "MissingSet", "Rooted", "locate"]


@dataclass(frozen=True, kw_only=True)
class FoundSet:
    """A set that is there: its `place` in words, its files with their labels, and the hash of its list.

    `remarks` say how it differs from the protocol's own. Parts of a named data set, and a user's images, are
    read by `read`, which takes their size, in place of files; sets of the hub and built-in ones have neither.
    """

    set: ProtocolSet
    place: str
    files: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()
    read: Callable[[int], Images] | None = None
    sha256: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MissingSet:
    """A set that is not there, and for every place why it is not."""

    set: ProtocolSet
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Located:
    """The sets that are there and those that are not, below the `roots`. `protocol` has its classes even
    where folders name them.
    """

    protocol: Protocol
    found: tuple[FoundSet, ...]
    missing: tuple[MissingSet, ...] = ()
    roots: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rooted:
    """A protocol whose sets lie below roots, or with `hub` on the hub."""

    protocol: Protocol
    roots: tuple[Path, ...] = ()
    hub: bool = False

    def locate(self, groups: Collection[str]) -> Located:
        """Where the sets of these groups are."""
        return locate(self.protocol, self.roots, groups, hub=self.hub)


def locate(
    protocol: Protocol,
    roots: Sequence[Path],
    groups: Collection[str] = KNOWN + UNKNOWN,
    *,
    hub: bool = False,
) -> Located:
    """Looks for the sets of `groups` below the roots, without opening an image or a connection.

    The paths of lists and folders must stay inside the roots, whatever links they go through. With `hub`, a
    set that is not below a root but on the hub counts as found; reading it fetches it.
    """
    inside = _Inside(roots)
    if not protocol.classes:
        protocol = _with_classes_of_folders(protocol, inside)
    results = [_locate_set(item, protocol, inside, hub) for item in protocol.sets if item.group in groups]
    return Located(
        protocol=protocol,
        found=tuple(result for result in results if isinstance(result, FoundSet)),
        missing=tuple(result for result in results if isinstance(result, MissingSet)),
        roots=inside.roots,
    )


class _Inside:
    """Tells whether files lie inside the roots, whatever links lead to them. Folders are resolved once."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._resolved_roots = [root.resolve() for root in roots]
        self._folders: dict[Path, bool] = {}

    def __call__(self, file: Path) -> Path:
        """The file as it is; DataError when it leads out of the roots."""
        folder = file.parent
        if folder not in self._folders:
            self._folders[folder] = self.holds(folder)
        if not self._folders[folder] or (file.is_symlink() and not self.holds(file)):
            raise DataError(
                f"{shown(file)} leads to {shown(file.resolve())}, outside the root. "
                "To allow it, name its folder as another --root."
            )
        return file

    def holds(self, path: Path) -> bool:
        """Whether a file or folder lies inside, wherever it is linked to."""
        resolved = path.resolve()
        return any(resolved.is_relative_to(root) for root in self._resolved_roots)


def _with_classes_of_folders(protocol: Protocol, inside: _Inside) -> Protocol:
    """The protocol with class names taken from the first folder of known images that exists: as `oodream run`
    would call them.
    """
    places = [
        root / folder
        for item in protocol.sets
        if item.group in KNOWN and item.group != SHIFTED  # which may show some classes alone
        for root in inside.roots
        for folder in item.folders
    ]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        return protocol
    folders, names = sorted(_by_key(place)), _names(place, inside)
    called = [plain(names.get(folder) or folder.replace("_", " ")) for folder in folders]
    if twice := [name for name in called if called.count(name) > 1]:
        raise DataError(f"Two folders in {shown(place)} are the class {twice[0]!r}. Rename one.")
    return replace(protocol, classes=tuple(called), labels={key: i for i, key in enumerate(folders)})


def _names(place: Path, inside: _Inside) -> dict[str, str]:
    """The classes' names by folder, as `oodream run` takes them from the list in the folder of class folders,
    or in the one above it, which holds the splits.
    """
    files = (folder / "classes.toml" for folder in (place, place.parent))
    file = next((file for file in files if file.is_file() and inside.holds(file)), None)
    return read(file)[0] if file else {}


def _locate_set(item: ProtocolSet, protocol: Protocol, inside: _Inside, hub: bool) -> FoundSet | MissingSet:
    if item.builtin:
        return FoundSet(set=item, place="built in")
    reasons: list[str] = []
    for result in _attempts(item, protocol, inside):
        if isinstance(result, FoundSet):
            return result
        reasons.append(result)
    if item.hub and hub:
        return FoundSet(set=item, place=f"hub:{item.hub}")
    if item.hub:
        reasons.append(f"it is on the hub as {item.hub}, which --hub would read")
    return MissingSet(set=item, reasons=tuple(reasons))


def _attempts(item: ProtocolSet, protocol: Protocol, inside: _Inside) -> Iterator[FoundSet | str]:
    """For each place where the set may lie: the set, or the reason why it is not there."""
    attempts: list[Callable[[], FoundSet]] = []
    if item.list:
        lists = [root / item.list for root in inside.roots if (root / item.list).is_file()]
        attempts += [partial(_by_list, item, protocol, inside, file) for file in lists]
        if not lists:
            yield f"no list {item.list}" + (f" (sha256 {item.sha256})" if item.sha256 else "")
    if item.folders:
        folders = [
            root / folder for root in inside.roots for folder in item.folders if (root / folder).is_dir()
        ]
        attempts += [partial(_by_folder, item, protocol, inside, folder) for folder in folders]
        if not folders:
            yield f"no folder {' or '.join(item.folders)}"
    if item.data:
        attempts += [partial(_by_data, item, protocol, inside, root) for root in inside.roots]
        if not inside.roots:
            yield f"no root that holds {SETS[item.data].holds}"
    for attempt in attempts:
        try:
            yield attempt()
        except DataError as error:
            yield str(error).rstrip(".")


def _by_list(item: ProtocolSet, protocol: Protocol, inside: _Inside, file: Path) -> FoundSet:
    """The set that a list names.

    Raises DataError for a line that is no `path label`, a path outside the roots, and an image that is not
    there.
    """
    try:
        # An editor may have added a byte order mark or Windows' line ends: the list is still the same one.
        text = read_text(inside(file)).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(file)} is no text: {error}.") from error
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    lines = list(_lines(text, file, len(protocol.classes) if item.group in KNOWN else 0))
    remarks = []
    if item.sha256 and sha256 != item.sha256:
        remarks.append(
            f"{shown(file)} is another list than the protocol's (sha256 {sha256}, the protocol's "
            f"{item.sha256}; {len(lines)} lines, the protocol's {item.count}): "
            "its numbers do not compare with the protocol's"
        )
    elif item.count and len(lines) != item.count:
        remarks.append(
            f"{shown(file)} lists {len(lines)} images, the protocol {item.count}: "
            "its numbers do not compare with the protocol's"
        )
    bases = [root / item.images for root in inside.roots]
    base = next((base for base in bases if (base / lines[0][0]).is_file()), bases[0])
    files = []
    for number, (path, _) in enumerate(lines, 1):
        try:
            files.append(inside(base / path))
        except DataError as error:
            raise DataError(f"{shown(file)}, line {number}: {error}") from None
    if gone := [path for path in files if not path.is_file()]:
        raise DataError(
            f"{len(gone)} of the {len(files)} images in the list {shown(file)} are not there; "
            f"the first is {shown(gone[0])}."
        )
    labels = tuple(label for _, label in lines)
    return FoundSet(
        set=item, place=shown(file), files=tuple(files), labels=labels, sha256=sha256, remarks=tuple(remarks)
    )


def _lines(text: str, file: Path, count: int) -> Iterator[tuple[str, int]]:
    """(path, label) of every line. With `count` classes the labels must be below it; 0 allows any label.

    A line ends at "\\n" alone: file names may hold Unicode's other line separators.
    """
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{shown(file)} is empty.")
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip(" \t\r").rpartition(" ")
        if not path or "\0" in path or not label.removeprefix("-").isdecimal():
            raise DataError(
                f"{shown(file)}, line {number}: {line[:80]!r} is no path and label, such as photos/a.png 3."
            )
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{shown(file)}, line {number}: {path!r} leads out of the folder of the images.")
        if count and not 0 <= int(label) < count:
            raise DataError(
                f"{shown(file)}, line {number}: there is no class {label}; the labels are 0 to {count - 1}."
            )
        yield path, int(label)


def _by_folder(item: ProtocolSet, protocol: Protocol, inside: _Inside, place: Path) -> FoundSet:
    """The images below a folder; for known classes, those in the class folders. DataError when there are
    none.
    """
    files: list[Path] = []
    labels: list[int] = []
    if item.group in KNOWN:
        for label, folder in _class_folders(place, protocol, some=item.group == SHIFTED):
            images = image_files(inside(folder / "*").parent)
            files += images
            labels += [label] * len(images)
    else:
        files = image_files(inside(place / "*").parent)
        labels = [OOD] * len(files)
    if not files:
        raise DataError(f"{shown(place)} has no images.")
    for file in files:
        inside(file)
    remarks = tuple(_differing(shown(place), item, len(files)))
    return FoundSet(set=item, place=shown(place), files=tuple(files), labels=tuple(labels), remarks=remarks)


def _by_data(item: ProtocolSet, protocol: Protocol, inside: _Inside, root: Path) -> FoundSet:
    """The set's part of a named data set.

    Raises DataError where a root does not hold the data set, or where that has no such classes.
    """
    data = SETS[item.data]
    for file in data.files(root):
        inside(file)
    train, test = data.listings(root)
    listing = train if item.group == "train" else test
    names = item.of or (protocol.classes if item.group in KNOWN else listing.classes)
    if absent := [name for name in names if name not in listing.classes]:
        raise DataError(f"{item.data} has no classes called {listed(absent)}.")
    listing = listing.of(names)
    return FoundSet(
        set=item,
        place=f"{item.data} below {shown(root)}",
        read=listing.read,
        remarks=tuple(_differing(f"{item.data} below {shown(root)}", item, len(listing.rows))),
    )


def _differing(place: str, item: ProtocolSet, count: int) -> Iterator[str]:
    """How a place without the protocol's list differs from what the protocol has."""
    if item.list:
        yield f"{place} stands for the list of {item.name}, and not the protocol's choice of images"
    if item.count and count != item.count:
        yield (
            f"{place} has {count} images, the protocol {item.count}: "
            "its numbers do not compare with the protocol's"
        )


def _class_folders(place: Path, protocol: Protocol, some: bool = False) -> list[tuple[int, Path]]:
    """(label, folder) of every class, by label; DataError names the classes without a folder, unless `some`
    may lack one.
    """
    folders, labels = _by_key(place), protocol.labels
    if not labels and len(folders) == len(protocol.classes):
        labels = {name: label for label, name in enumerate(sorted(folders))}
    known = {labels[name]: folder for name, folder in sorted(folders.items()) if name in labels}
    absent = [name for label, name in enumerate(protocol.classes) if label not in known]
    if absent and not (some and known):
        raise DataError(
            f"{shown(place)} has no class folders for {listed(absent)}; it has "
            f"{listed(sorted(folders)) or 'none'}. A protocol without `classes` takes the folders for them."
        )
    return sorted(known.items())


def _by_key(place: Path) -> dict[str, Path]:
    """The folders in a folder that may be classes, by their keys."""
    return {folder_key(path.name): path for path in class_folders(place)}
