"""Shifted sets: folders whose class folders show known classes otherwise, such as in other light."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.errors import LISTED, DataError, did_you_mean, listed, shown
from ..core.folders import is_within
from .classes import check_names, folder_key, plain, read
from .folders import class_folders, listing_of
from .listing import Listing
from .scan import Scan, report_unread, scan
from .splits import HELD_OUT, TRAIN

__all__ = ["check_shifted", "list_shifted"]


def list_shifted(
    folder: Path,
    names: Sequence[str],
    class_list: Path | None = None,
    name: str = "",
    unknown: Sequence[str] = (),
) -> Listing:
    """The pictures in those subfolders of a folder that show one of the known classes `names`.

    A subfolder shows the class that the folder's own `classes.toml` says, or else the `class_list` of the
    known images, aliases included, or else the one that it is called as, in any case, with underscores for
    spaces. Warns of subfolders that show none, those of `unknown` classes of the known images' data among
    them, and of classes without pictures. Raises DataError when none is left, and for a name in the folder's
    own list that is no class.
    """
    folder = Path(folder)
    listed_as = _folders_of(folder, class_list, (*names, *unknown))
    position = {known.casefold(): label for label, known in enumerate(names)}
    folders = class_folders(folder)
    found, labels, others = Scan(), [], {}
    for path in folders:
        called = listed_as.get(folder_key(path.name)) or plain(path.name.replace("_", " "))
        if (label := position.get(called.casefold())) is None:
            others[shown(path.name)] = called
            continue
        part = scan(path)
        found += part
        labels += [label] * len(part.files)
    report_unread(shown(folder), found)
    described = _described(others, names, unknown)
    if not found.files:
        raise DataError(
            f"{shown(folder)} has no images in folders called as the known classes are: {listed(names)}. "
            f"{_remedy(folder, others, described)}"
        )
    if described:
        warnings.warn(
            f"{shown(folder)}: {len(others)} of {len(folders)} class folders not measured, for "
            f"no known class is called so: {listed(described)}. A classes.toml there may say which class a "
            "folder shows.",
            stacklevel=2,
        )
    pictured = {*labels}
    if missing := [known for label, known in enumerate(names) if label not in pictured]:
        warnings.warn(
            f"{shown(folder)} has no pictures of these known classes: {listed(missing)}.", stacklevel=2
        )
    return listing_of(name or shown(folder.resolve().name), found.files, labels, names)


def check_shifted(folder: Path, known: Path | None, ood: Sequence[Path]) -> None:
    """Raises DataError for a folder of shifted images that holds the `known` images, if these lie in a
    folder, or that overlaps one of the folders of OOD images.

    A folder among the known images may be shifted: nothing in it is trained on.
    """
    if known and is_within(known, folder):
        raise DataError(
            f"The shifted folder {shown(folder)} holds the known images of {shown(known)}, which are trained "
            "on. Put the shifted images into a folder of their own."
        )
    for other in ood:
        if is_within(folder, other) or is_within(other, folder):
            raise DataError(
                f"The shifted images of known classes in {shown(folder)} and the OOD images in "
                f"{shown(other)} lie in one folder. Put either into a folder of its own."
            )


def _folders_of(folder: Path, class_list: Path | None, names: Sequence[str]) -> dict[str, str]:
    """Which class each folder shows that a list names; the folder's own list goes before the other one."""
    by_folder, _, by_alias = read(class_list) if class_list else ({}, {}, {})
    shows = by_alias | by_folder
    if (own := folder / "classes.toml").is_file():
        by_folder, _, by_alias = read(own)
        for table, part in (("aliases", by_alias), ("classes", by_folder)):
            check_names(own, table, part, names)
            shows |= part
    return shows


def _described(others: Mapping[str, str], names: Sequence[str], unknown: Sequence[str]) -> list[str]:
    """The folders that show no known class, and of the first ones which class may be meant."""
    kept_out = {name.casefold() for name in unknown}
    described = []
    for i, (folder, called) in enumerate(others.items()):
        why = ""
        if called.casefold() in kept_out:
            why = " (an unknown class)"
        elif i < LISTED and (hint := did_you_mean(called.casefold(), names).strip()):
            why = f" (d{hint[1:]})"
        described.append(f"{folder}{why}")
    return described


def _remedy(folder: Path, others: Mapping[str, str], described: Sequence[str]) -> str:
    """What is there where nothing is called as a known class, and what to do."""
    if not others:
        return "Put the images of each class into a folder that is called as the class."
    splits = [path for path in others if path.casefold() in {*TRAIN, *HELD_OUT}]
    if splits:
        best = min(splits, key=lambda name: name.casefold() in TRAIN)
        return f"Splits are not looked into: name one of them, such as {shown(folder / best)}."
    return (
        f"There are {listed(described)}. Rename them, or say in {shown(folder / 'classes.toml')}, or in a "
        f"list that --classes names, which class they show: a table [classes] with lines such as "
        f"'{next(iter(others))}' = \"name\"."
    )
