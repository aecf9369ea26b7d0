"""data.hub."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError, listed
from .classes import plain
from .folders import HELD_OUT, _enough, split
from .images import Images, from_sources

if TYPE_CHECKING:
    from datasets import Dataset


def load_hub(name: str, size: int, *, seed: int = 0) -> tuple[Images, Images]:
    """(training, test) images of a classification data set of the hub, of a copy of it in a folder, or of `save_to_disk`.

    The first image column and the first ClassLabel column are used; without a test or validation split every class gives 20 %
    of its images, drawn by `seed`. Raises DataError when `datasets` is missing, the set cannot be had, or is of another kind.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"hub:{name} needs the package datasets: pip install 'oodream[hub]'.") from error
    try:
        saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
        loaded = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # its network, cache and format layers each raise their own kinds
        raise DataError(f"hub:{name} cannot be loaded: {error}") from error
    parts = loaded if isinstance(loaded, dict) else {"train": loaded}
    if "train" not in parts:
        raise DataError(f"hub:{name} has no split 'train', only {listed(parts)}.")
    held_out = next((part for part in HELD_OUT if part in parts), None)
    short = name.rstrip("/").rpartition("/")[2]
    if held_out is None:
        return split(_enough(_hub_images(short, parts["train"], size), 2), seed, 0.2)
    return tuple(
        _hub_images(f"{short}-{part}", parts[key], size)
        for part, key in (("train", "train"), ("test", held_out))
    )  # type: ignore[return-value]


def _hub_images(name: str, data: Dataset, size: int) -> Images:
    import datasets

    kinds = (datasets.Image, datasets.ClassLabel)
    image, label = (
        next((key for key, value in data.features.items() if isinstance(value, kind)), None) for kind in kinds
    )
    if image is None or label is None:
        raise DataError(
            f"hub set {name} needs an image and a ClassLabel column; it has {listed(map(str, data.features))}."
        )
    labels = list(data[label])
    if unlabelled := sum(value is None or value < 0 for value in labels):
        raise DataError(f"hub set {name}: {unlabelled} images have no label.")
    encoded = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))

    def source(row: int) -> Path | BytesIO:
        value = encoded[row][image] or {}
        if value.get("bytes"):
            return BytesIO(value["bytes"])
        return Path(value.get("path") or "missing")

    classes = [plain(text.replace("_", " ")) for text in data.features[label].names]
    return from_sources(name, source, [f"{name}[{row}]" for row in range(len(labels))], labels, classes, size)
