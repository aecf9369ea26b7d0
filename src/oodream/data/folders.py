"""Image sets from folders of class folders, folders of anything, the hub, and captioned folders."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..core.errors import DataError, listed
from ..core.seeding import generator
from ..core.types import OOD
from .classes import plain, prompts_for, read
from .images import Images, from_files
from .preprocess import image_files

HELD_OUT = ("test", "val", "valid", "validation")


def load_folder(
    folder: Path, size: int, *, seed: int = 0, test_share: float = 0.2, classes: Path | None = None
) -> tuple[Images, Images]:
    """(training, test) images of a folder of class folders; images nested inside a class folder count, hidden ones do not.

    With nothing but `train` and `test` (or `val`) inside, these hold the class folders and are the split; else every class gives
    `test_share` of its images, at least one, drawn by `seed`. A class is called as its folder (underscores are spaces) or as the
    table `[classes]` of `classes.toml` says (folder = "name"; the file is described in `classes`). With a list in `classes` only
    its folders are read: a hundred classes of ImageNet, say. Raises DataError for whatever would not make a data set.
    """
    folder, name = Path(folder), Path(folder).resolve().name
    parts = {path.name.casefold(): path for path in _subfolders(folder)}
    held_out = next((parts[part] for part in HELD_OUT if part in parts), None)
    if held_out is None or "train" not in parts or not parts.keys() <= {"train", *HELD_OUT}:
        return split(
            _enough(_load_classes(name, folder, size, _class_files(folder, folder, 2, classes)), 2),
            seed,
            test_share,
        )
    found = _class_files(parts["train"], folder, 2, classes)
    test = _class_files(held_out, folder, 1, classes)
    if differing := sorted(found.keys() ^ test.keys()):
        raise DataError(
            f"{folder}: train and {held_out.name} differ in these classes: {listed(differing)}. Both need the same."
        )
    return (
        _enough(_load_classes(f"{name}-train", parts["train"], size, found), 2),
        _enough(_load_classes(f"{name}-test", held_out, size, {c: test[c] for c in found}), 1),
    )


def load_ood(folder: Path, size: int) -> Images:
    """All images below `folder`, whatever its subfolders, as an OOD set named like the folder: every label -1."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.")
    files = image_files(folder)
    return from_files(folder.resolve().name, files, [OOD] * len(files), (), size)


def load_shifted(folder: Path, size: int, names: Sequence[str], classes: Path | None) -> Images:
    """Images of known classes as another source shows them: those subfolders of `folder` that are called as one of `names`.

    A folder is called as such, or as the list in `classes` (or else the folder's own `classes.toml`) says, aliases included; all
    other subfolders are left out, and not every class needs one. DataError when none is left.
    """
    list_file = classes or folder / "classes.toml"
    by_folder, _, aliases = read(list_file) if list_file.exists() else ({}, {}, {})
    position = {name.casefold(): label for label, name in enumerate(names)}
    files: list[Path] = []
    labels: list[int] = []
    for path in _subfolders(folder):
        key = unicodedata.normalize("NFC", path.name)
        name = plain(by_folder.get(key) or aliases.get(key) or path.name.replace("_", " ")).casefold()
        if name in position:
            found = image_files(path)
            files += found
            labels += [position[name]] * len(found)
    if not files:
        raise DataError(
            f"{folder} has no images in folders called as the known classes are: {listed(names)}."
        )
    return from_files(folder.resolve().name, files, labels, names, size)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name a folder that holds one folder of images per class.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_files(folder: Path, top: Path, least: int, only: Path | None) -> dict[str, list[Path]]:
    """Image files by class name, in the order of the folders, of the list `only` or else of those that `classes.toml` names."""
    list_file = only or top / "classes.toml"
    named, words, _ = read(list_file) if list_file.exists() else ({}, {}, {})
    found: dict[str, list[Path]] = {}
    folders: dict[str, Path] = {}
    for path in _subfolders(folder):
        if only and unicodedata.normalize("NFC", path.name) not in named:
            continue
        name = plain(named.pop(unicodedata.normalize("NFC", path.name), path.name.replace("_", " ")))
        if not name:
            raise DataError(f"{path}: nothing is left of this folder's name to call the class by. Rename it.")
        if twin := folders.get(name.casefold()):
            raise DataError(f"{path} and {twin} are both the class {name!r}. Merge them or rename one.")
        folders[name.casefold()], found[name] = path, image_files(path)
    if not found:
        what = "has images but no class folders" if image_files(folder) else "is empty"
        raise DataError(
            f"{folder} {what}. Put the images of each class into a folder of its own, named after the class."
        )
    if named:
        raise DataError(f"{list_file} names folders that do not exist in {folder}: {listed(named)}.")
    if len(found) == 1:
        raise DataError(
            f"{folder} has only one class ({next(iter(found))}). A classifier needs at least two class folders."
        )
    if few := [f"{name} ({len(files)})" for name, files in found.items() if len(files) < least]:
        raise DataError(
            f"{folder}: classes with fewer than {least} images: {listed(few)}. Add images or remove the folder."
        )
    prompts_for(tuple(found), words)
    return found


def _load_classes(name: str, folder: Path, size: int, found: Mapping[str, list[Path]]) -> Images:
    labels = [label for label, files in enumerate(found.values()) for _ in files]
    return from_files(name, [file for files in found.values() for file in files], labels, tuple(found), size)


def _enough(images: Images, least: int) -> Images:
    """The images as they are; DataError when broken files left a class with fewer than `least`."""
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    if few := [
        f"{name} ({count})" for name, count in zip(images.classes, counts, strict=True) if count < least
    ]:
        raise DataError(
            f"{images.name}: classes with fewer than {least} readable images: {listed(few)}. Add or mend some."
        )
    return images


def split(images: Images, seed: int, test_share: float) -> tuple[Images, Images]:
    """(training, test), stratified: every class has at least one image on either side."""
    test = torch.zeros(len(images), dtype=torch.bool)
    for label, name in enumerate(images.classes):
        rows = (images.labels == label).nonzero().flatten()
        count = min(max(1, round(test_share * len(rows))), len(rows) - 1)
        test[rows[torch.randperm(len(rows), generator=generator(seed, "split", name))[:count]]] = True
    return images.subset(~test, f"{images.name}-train"), images.subset(test, f"{images.name}-test")
