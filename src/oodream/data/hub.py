"""Image sets from the Hugging Face hub, or from copies of its data sets in folders.

As with folders, a data set is first opened and checked (`list_hub`), and its pictures are read after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import DataError, listed
from .classes import check_count, check_name, plain
from .hub_pictures import Column, encoded, open_splits
from .images import Images
from .listing import Encoded, Listing
from .splits import HELD_OUT, TRAIN, read_splits

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["list_hub", "load_hub"]

# What columns of class names are called, where they are plain text.
LABELS = ("label", "labels", "class", "class_name", "category", "target", "fine_label")


def load_hub(
    name: str, size: int, *, seed: int = 0, names: Sequence[str] | None = None, white: float = 0.0
) -> tuple[Images, Images]:
    """(training, test) images of a data set that `list_hub` opens.

    Without a split for testing, every class gives 20 % of its images, drawn by `seed`. `white` is as in
    `images.from_files`. Raises DataError for whatever would not make a data set.
    """
    train, test = list_hub(name, names)
    return read_splits(train, test, size, seed=seed, white=white)


def list_hub(name: str, names: Sequence[str] | None = None) -> tuple[Listing, Listing | None]:
    """(training, test) parts of a classification data set, or (all, None) without a split for testing.

    It is one of the hub, a copy of one in a folder, or what `save_to_disk` wrote.

    The first image column is used, and the first column of ClassLabels. Where there is none, it is a column
    of texts that is called as one of `LABELS` or is the only one, with its classes in alphabetical order.
    `names` gives the classes other names, by label. Raises DataError when the package `datasets` is missing,
    the data set cannot be had, or is of another kind.
    """
    splits = open_splits(name)
    lower = {split.casefold(): split for split in splits}
    train = next((lower[part] for part in TRAIN if part in lower), None)
    if train is None:
        raise DataError(f"hub:{name} has no split 'train', only {listed(splits)}.")
    held_out = next((lower[part] for part in HELD_OUT if part in lower), None)
    image, label = _columns(name, splits[train])
    rows = {split: _texts(name, splits[split], label) for split in (train, held_out) if split}
    found = _class_names(splits[train], label, rows[train])
    classes = _named(name, found, names)
    short = name.rstrip("/").rpartition("/")[2]

    def listing(title: str, split: str, least: int) -> Listing:
        if strange := sorted({*rows[split]} - {*found}):
            raise DataError(f"hub:{name}: {split} has classes that {train} has not: {listed(strange)}.")
        labels = tuple(found.index(text) for text in rows[split])
        _check_least(f"hub:{name}, {split}", labels, classes, least)
        names = [f"{title}[{row}]" for row in range(len(labels))]
        return Listing(
            name=title,
            pictures=Encoded(Column(encoded(splits[split], image), image), names),
            rows=tuple(range(len(labels))),
            labels=labels,
            classes=classes,
            least=least,
        )

    if held_out is None:
        return listing(short, train, 2), None
    return listing(f"{short}-train", train, 2), listing(f"{short}-test", held_out, 0)


def _columns(name: str, data: Dataset) -> tuple[str, str]:
    """The columns of pictures and of labels."""
    import datasets

    def of(kind: type) -> list[str]:
        return [key for key, value in data.features.items() if isinstance(value, kind)]

    texts = [key for key in of(datasets.Value) if data.features[key].dtype in ("string", "large_string")]
    called = [key for key in LABELS if key in texts]
    images, labels = of(datasets.Image), of(datasets.ClassLabel) or called or texts
    if not images or not labels or (labels is texts and len(texts) > 1):
        raise DataError(
            f"hub set {name} needs an image column and one of ClassLabels, or one of texts called "
            f"{', '.join(LABELS)}; it has {listed(map(str, data.features))}."
        )
    return images[0], labels[0]


def _texts(name: str, data: Dataset, label: str) -> list[str]:
    """Every row's class as the data set calls it."""
    values, own = list(data[label]), getattr(data.features[label], "names", None)
    if unlabelled := sum(value is None or value == "" or (own is not None and value < 0) for value in values):
        raise DataError(f"hub set {name}: {unlabelled} images have no label.")
    return values if own is None else [own[value] for value in values]


def _class_names(data: Dataset, label: str, rows: Sequence[str]) -> list[str]:
    """The classes by label, as the data set calls them."""
    return list(getattr(data.features[label], "names", None) or sorted(set(rows)))


def _named(name: str, found: Sequence[str], names: Sequence[str] | None) -> tuple[str, ...]:
    """The classes as they are called here; DataError for names that cannot be used, or are used twice."""
    if names is not None:
        check_count(f"hub:{name}", len(found), names)
        return tuple(names)
    classes = tuple(plain(text.replace("_", " ")) for text in found)
    remedy = "Give the classes names with a class list (--classes)."
    for text in classes:
        check_name(text, f"hub:{name}", remedy)
    if twins := sorted(text for text, n in Counter(text.casefold() for text in classes).items() if n > 1):
        raise DataError(f"hub:{name} has several classes called {listed(twins)}. {remedy}")
    return classes


def _check_least(where: str, labels: Sequence[int], classes: Sequence[str], least: int) -> None:
    counts = Counter(labels)
    if few := [f"{text} ({counts[i]})" for i, text in enumerate(classes) if counts[i] < least]:
        raise DataError(f"{where}: classes with fewer than {least} images: {listed(few)}.")
