"""Pictures of a data set of the Hugging Face hub, or of a copy of one in a folder, as encoded files; without
PyTorch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError, listed
from ..core.packages import missing

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Column", "HubPictures", "encoded", "open_splits"]


@dataclass(frozen=True)
class Column:
    """The encoded pictures of a column, by row."""

    data: Dataset
    column: str

    def __call__(self, row: int) -> Path | BytesIO:
        value = self.data[row][self.column] or {}
        return BytesIO(value["bytes"]) if value.get("bytes") else Path(value.get("path") or "missing")


@dataclass(frozen=True, kw_only=True)
class HubPictures:
    """The pictures of all splits of a data set, one after the other, without labels: NAME/SPLIT[row]."""

    name: str
    splits: Mapping[str, Dataset]
    column: str

    @classmethod
    def open(cls, name: str) -> HubPictures:
        """The data set, which is found as by `list_hub`; its first image column is read.

        Raises DataError where the package `datasets` is missing, the data set cannot be had, or has no
        pictures.
        """
        splits = open_splits(name)
        image = _image_column(name, next(iter(splits.values())))
        return cls(
            name=name, splits={key: encoded(split, image) for key, split in splits.items()}, column=image
        )

    @property
    def total(self) -> int:
        return sum(map(len, self.splits.values()))

    @property
    def identity(self) -> str:
        facts = [(split, len(data), data._fingerprint) for split, data in self.splits.items()]
        return hashlib.blake2b(repr((self.name, facts)).encode(), digest_size=16).hexdigest()

    def read(self, start: int = 0) -> Iterator[tuple[str, Path | BytesIO]]:
        """The pictures from the place `start` on: what each is called, and where its bytes are."""
        for split, data in self.splits.items():
            column = Column(data, self.column)
            for row in range(min(start, len(data)), len(data)):
                yield f"{self.name}/{split}[{row}]", column(row)
            start = max(0, start - len(data))


def open_splits(name: str) -> Mapping[str, Dataset]:
    """The data set's splits."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(missing(f"hub:{name}", "datasets", "hub")) from error
    try:
        saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
        loaded: Any = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # its network, cache and format layers each raise their own kinds
        raise DataError(f"hub:{name} cannot be loaded: {error}") from error
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _image_column(name: str, data: Dataset) -> str:
    import datasets

    for column, kind in data.features.items():
        if isinstance(kind, datasets.Image):
            return str(column)
    raise DataError(f"hub:{name} has no column of images, only {listed(map(str, data.features))}.")


def encoded(data: Dataset, image: str) -> Dataset:
    import datasets

    return data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
