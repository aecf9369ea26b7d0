"""Image sets from folders: class folders with or without splits, and folders of anything.

A folder is first listed and checked (`list_folder`, `list_ood`), which opens no picture; its `Listing` then
reads them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..core.errors import DataError, brief, listed, shown
from ..core.types import OOD
from .classes import check_name, check_names, find, folder_key, lists, plain, prompts_for, read, read_list
from .holdout import check_left_out
from .images import Files, Images
from .listing import Encoded, Listing
from .preprocess import check_size
from .scan import SUFFIXES, Scan, is_run_folder, is_skipped, report_unread, scan
from .splits import HELD_OUT, TEST_SHARE, TRAIN, read_splits

__all__ = [
    "class_folders",
    "has_class_folders",
    "list_folder",
    "list_ood",
    "listing_of",
    "load_folder",
    "load_ood",
]


# Class folders


def load_folder(
    folder: Path,
    size: int,
    *,
    seed: int = 0,
    test_share: float = TEST_SHARE,
    classes: Path | str | None = None,
    unknown: Collection[str] = (),
    max_per_class: int = 0,
    white: float = 0.0,
) -> tuple[Images, Images]:
    """(training, test) images of a folder of class folders, as `list_folder` finds them.

    `classes` is a TOML file with a class list, or a built-in list's name: only its folders are read. The
    classes called `unknown` are left out, as the option `--unknown` of a run does, and of every other one at
    most `max_per_class` training images are kept (0 keeps all). Where the folder has no splits, every class
    gives `test_share` of its images, at least one, drawn by `seed`. With a run's options these are its
    images. `white` is as in `images.from_files`; the test images have that of the training images.

    Raises DataError for whatever would not make a data set.
    """
    check_size(size)
    names = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    train, test = list_folder(folder, None if classes is None else _list_file(classes))
    check_left_out(train.classes, names)
    known = tuple(name for name in train.classes if name not in names)
    return read_splits(
        train.of(known),
        test and test.of(known),
        size,
        seed=seed,
        test_share=test_share,
        white=white,
        max_per_class=max_per_class,
    )


def _list_file(classes: object) -> Path:
    """The file of a class list; DataError for anything else."""
    if isinstance(classes, (str, Path)):
        return find(str(classes))
    raise DataError(
        f"`classes` is a TOML file with a class list, or the name of a built-in one ({listed(lists())}), not "
        f"{brief(classes)}. To read some classes of a folder alone, name the others: unknown=(NAME, …)."
    )


def list_folder(
    folder: Path, classes: Path | None = None, exclude: Collection[Path] = ()
) -> tuple[Listing, Listing | None]:
    """The pictures of a folder of class folders: (training, test), or (all, None) where it has no splits.

    Pictures at any depth below a class folder count, as `scan` finds them, without the folders in `exclude`
    (resolved paths). The splits are folders of the usual names, `train` or `training` and one of `HELD_OUT`,
    in any case, with nothing beside them; or a pair of folders with such a word in its name that hold the
    same class folders.

    A class is called as its folder (underscores are spaces), or as the table `[classes]` of `classes.toml`
    says (the module `classes` describes the file). With a list in `classes` only its folders are read: a
    hundred classes of ImageNet, say. Raises DataError for whatever would not make a data set.
    """
    folder, name = Path(folder), shown(Path(folder).resolve().name)
    parts = _splits(class_folders(folder, exclude), exclude)
    if parts is None:
        _check_splits_free(folder, exclude)
        return _listing(name, _class_scans(folder, folder, 2, classes, exclude), 2), None
    fit, held_out = parts
    train = _class_scans(fit, folder, 2, classes, exclude)
    test = _class_scans(held_out, folder, 1, classes, exclude)
    if differing := sorted(train.keys() ^ test.keys()):
        raise DataError(
            f"{shown(folder)}: {fit.name} and {held_out.name} differ in these classes: {listed(differing)}. "
            "Both need the same."
        )
    return (
        _listing(f"{name}-train", train, 2),
        _listing(f"{name}-test", {c: test[c] for c in train}, 1),
    )


def has_class_folders(folder: Path) -> bool:
    """Whether a folder holds folders, as labelled images do, and not pictures alone."""
    return bool(class_folders(folder)) or not scan(folder).files


def class_folders(folder: Path, exclude: Collection[Path] = ()) -> list[Path]:
    """The folders that may be classes: none of the system's, none of this program's runs."""
    if not folder.is_dir():
        raise DataError(
            f"{shown(folder)} is not a folder. Name a folder that holds one folder of images per class."
        )
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_dir() and not is_skipped(path.name))
    except OSError as error:
        raise DataError(f"{shown(folder)} cannot be opened: {error.strerror or error}.") from error
    closed = {*exclude, *(top := folder.resolve()).parents, top}  # a link to what is above shows nothing new
    return [path for path in paths if path.resolve() not in closed and not is_run_folder(path)]


def _splits(folders: Sequence[Path], exclude: Collection[Path]) -> tuple[Path, Path] | None:
    """The folders of training and test images, if any; warns of what is left out or not used."""
    fits, held_outs = _like_splits(folders)
    if pair := _pair(folders, exclude):
        if others := [path.name for path in folders if path not in (*fits, *held_outs)]:
            warnings.warn(
                f"{shown(pair[0])} and {shown(pair[1])} are the splits. Not read beside them: "
                f"{listed(map(shown, others))}.",
                stacklevel=4,
            )
    elif fits and held_outs:
        names = listed(shown(path.name) for path in folders if path in fits or path in held_outs)
        warnings.warn(
            f"{shown(folders[0].parent)}: folders look like splits and are taken as classes: {names}. "
            "If they are splits, call them train and test and put the same class folders into both.",
            stacklevel=4,
        )
    return pair


def _pair(folders: Sequence[Path], exclude: Collection[Path]) -> tuple[Path, Path] | None:
    """The folders of training and test images, if any."""
    fits, held_outs = _like_splits(folders)
    alone = [path for path in fits if path.name.casefold() in TRAIN]
    usual = all(path.name.casefold() in {*TRAIN, *HELD_OUT} for path in folders)
    if len(alone) == 1 and held_outs and usual:
        return alone[0], held_outs[0]
    pairs = ((fit, held_out) for held_out in held_outs for fit in fits if fit != held_out)
    return next((pair for pair in pairs if _same_classes(*pair, exclude)), None)


def _like_splits(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The folders with a word for training images in their names, and those with one for test images, in the
    order in which they are taken.
    """
    fits, held_outs = ([path for path in folders if _words(path) & {*part}] for part in (TRAIN, HELD_OUT))
    return fits, sorted(held_outs, key=_rank)


def _check_splits_free(folder: Path, exclude: Collection[Path]) -> None:
    """DataError where a folder has no splits because one of them is excluded: the other one would be a
    class.
    """
    whose = zip(_pair(class_folders(folder), ()) or (), ("training", "test"), strict=False)
    if taken := [(path, images) for path, images in whose if path.resolve() in exclude]:
        path, images = taken[0]
        raise DataError(
            f"{shown(path)} holds the {images} images of {shown(folder)}, and --ood or --shifted makes a "
            "set of its own of it. Name a folder of other pictures there."
        )


def _words(path: Path) -> set[str]:
    return set(re.split(r"[\W_]+", path.name.casefold()))


def _rank(path: Path) -> int:
    return min(HELD_OUT.index(word) for word in _words(path) & {*HELD_OUT})


def _same_classes(fit: Path, held_out: Path, exclude: Collection[Path]) -> bool:
    """Whether two folders hold the same folders, at least two."""
    names, others = ({path.name for path in class_folders(part, exclude)} for part in (fit, held_out))
    return names == others and len(names) > 1


def _class_scans(
    folder: Path, top: Path, least: int, only: Path | None, exclude: Collection[Path]
) -> dict[str, Scan]:
    """What lies below the class folders, by class name in the order of the folders: those of the list `only`,
    where there is one, else all.
    """
    list_file = only or top / "classes.toml"
    read_names = read_list if only else read
    names, words, aliases = read_names(list_file) if only or list_file.is_file() else ({}, {}, {})
    scans: dict[str, Scan] = {}
    folders: dict[str, Path] = {}
    for path in class_folders(folder, exclude):
        key = folder_key(path.name)
        if only and key not in names:
            continue
        name = plain(names.pop(key, path.name.replace("_", " ")))
        if not name:
            raise DataError(
                f"{shown(path)}: nothing is left of this folder's name to call the class by. Rename it."
            )
        remedy = (
            f"Rename the folder, or write in {shown(list_file)} under [classes]: '{key}' = \"another name\"."
        )
        check_name(name, shown(path), remedy)
        if twin := folders.get(name.casefold()):
            raise DataError(
                f"{shown(path)} and {shown(twin)} are both the class {name!r}. Merge them or rename one."
            )
        folders[name.casefold()], scans[name] = path, scan(path, exclude)
    if scans and names:
        raise DataError(
            f"{shown(list_file)} names folders that do not exist in {shown(folder)}: {listed(names)}."
        )
    _check_classes(folder, scans, least, exclude)
    _warn_of_sets(folder, exclude)
    prompts_for(tuple(scans), words)
    check_names(list_file, "aliases", aliases, tuple(scans))
    return scans


def _check_classes(folder: Path, scans: Mapping[str, Scan], least: int, exclude: Collection[Path]) -> None:
    """DataError where these are no classes to learn from; warns of pictures in no class folder."""
    where = shown(folder)
    if not scans:
        what = "has images but no class folders" if scan(folder, exclude).files else "is empty"
        raise DataError(
            f"{where} {what}. Put the images of each class into a folder of its own, named after the class."
        )
    if len(scans) == 1:
        (name,) = scans
        raise DataError(
            f"{where} has only one class ({name}). A classifier needs at least two class folders."
            f"{_one_level_down(folder, exclude)}"
        )
    report_unread(where, sum(scans.values(), Scan()))
    if few := [f"{name} ({len(found.files)})" for name, found in scans.items() if len(found.files) < least]:
        raise DataError(
            f"{where}: classes with fewer than {least} images: {listed(few)}. "
            "Add images or remove the folder."
        )
    if beside := [path for path in sorted(folder.iterdir()) if _is_lost(path)]:
        warnings.warn(
            f"{where}: {len(beside)} pictures, or links to nothing, lie in no class folder and are not read, "
            f"such as {shown(beside[0].name)}.",
            stacklevel=5,
        )


def _one_level_down(folder: Path, exclude: Collection[Path]) -> str:
    """A sentence, after a space, on the folder within that holds class folders; empty where none does."""
    inner = next((path for path in class_folders(folder, exclude) if len(class_folders(path)) > 1), None)
    return f" {shown(inner)} holds folders of its own: if these are the classes, name it." if inner else ""


def _warn_of_sets(folder: Path, exclude: Collection[Path]) -> None:
    """Warns of classes, and folders in them, that are left out because they are image sets of their own."""
    top = folder.resolve()
    sets = {place: place.relative_to(top).as_posix() for place in exclude if top in place.parents}
    folders = (path for path in folder.iterdir() if path.is_dir())
    sets |= {place: path.name for path in folders if (place := path.resolve()) in exclude}
    if sets:
        warnings.warn(
            f"{shown(folder)}: not known, and not trained on, for --ood or --shifted makes an image set of "
            f"it: {listed(sorted(map(shown, sets.values())))}.",
            stacklevel=5,
        )


def _is_lost(path: Path) -> bool:
    """Whether this is a picture, or a link to nothing, where class folders are expected."""
    picture = path.suffix.lower() in SUFFIXES and path.is_file()
    return not is_skipped(path.name) and (picture or (path.is_symlink() and not path.exists()))


def _listing(name: str, scans: Mapping[str, Scan], least: int) -> Listing:
    files = [file for found in scans.values() for file in found.files]
    labels = [label for label, found in enumerate(scans.values()) for _ in found.files]
    return listing_of(name, files, labels, tuple(scans), least)


def listing_of(
    name: str, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], least: int = 0
) -> Listing:
    """A listing of picture files with their labels."""
    names = tuple(map(str, files))
    return Listing(
        name=name,
        pictures=Encoded(Files(names), names),
        rows=tuple(range(len(files))),
        labels=tuple(labels),
        classes=tuple(classes),
        least=least,
    )


# Folders of anything


def load_ood(folder: Path, size: int, *, white: float = 0.0) -> Images:
    """All images below a folder, whatever its subfolders, as an OOD set named like it: every label is -1."""
    check_size(size)
    return list_ood(folder).read(size, white)


def list_ood(folder: Path, name: str = "", exclude: Collection[Path] = ()) -> Listing:
    """The pictures of an OOD set; DataError where there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{shown(folder)} is not a folder.")
    name = name or shown(folder.resolve().name)
    found = scan(folder, exclude)
    report_unread(shown(folder), found)
    if not found.files:
        raise DataError(f"{name}: no image found below {shown(folder)}. Expected files such as .png or .jpg.")
    return listing_of(name, found.files, (OOD,) * len(found.files), ())
