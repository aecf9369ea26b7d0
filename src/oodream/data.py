"""Image sets: folders, hub data sets and arrays, all as uint8 RGB squares with labels.

Every image enters through :func:`to_rgb` and :func:`square`, so two sets can never differ by how they were read.
Label -1 marks an out-of-distribution image. Nothing here knows about models or run folders.
"""

from __future__ import annotations

import hashlib
import json
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps

from .seeding import generator
from .store import progress
from .types import OOD

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from datasets import Dataset

MAX_UNREADABLE = 0.05
IN_MEMORY = 2 << 30  # bytes of pixels; a larger set is read from its files batch by batch
HELD_OUT = ("test", "val", "valid", "validation")
NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow names these, but cannot read them by itself
SUFFIXES = frozenset(ext for ext, name in Image.registered_extensions().items() if name in Image.OPEN and name not in NOT_PICTURES)


class DataError(ValueError):
    """An image set cannot be used; the message says which, why and what to do."""


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """The picture as people see it in 8-bit RGB: EXIF rotation applied, alpha over `background`, deep greyscale scaled.

    Integers of 16 and 32 bits and floats are taken as fractions of the smallest full scale their maximum fits: 1 (floats only),
    255, 65535, else the maximum itself. So 8-bit values stored in 16 bits keep their brightness (a true 16-bit picture below
    256 would be black anyway), while 12-bit values are dark: stretch them to 16 bits first.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        values = np.where(np.isfinite(values), values, 0).clip(0)
        peak = values.max()
        scale = next((s for s in ((1, 255, 65535) if image.mode == "F" else (255, 65535)) if peak <= s), peak)
        return Image.fromarray(np.rint(values * (255 / scale)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, background)
        canvas.alpha_composite(rgba)
        return canvas.convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, `size` pixels wide: the shorter side is resized (bicubic, antialiased), the rest is cut away."""
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def read_image(source: Path | BytesIO, size: int) -> torch.Tensor:
    """One image (of an animation the first frame) as uint8 (3, size, size). Raises OSError when it is not a whole image."""
    try:
        with Image.open(source) as image:
            rgb = square(to_rgb(image), size)
    except Exception as error:  # on damaged bytes Pillow's readers raise nearly anything
        raise OSError(str(error) or type(error).__name__) from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Images:
    """A set of N square RGB images that can be read by index: `batch(index) -> uint8 (B, 3, S, S)`.

    `labels` is int64 (N,), -1 for OOD; `classes` names the labels; `files` says where each image came from.
    """

    name: str
    size: int
    labels: torch.Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[int]], torch.Tensor] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Images at `index` as uint8 (B, 3, S, S)."""
        return self.read(index.tolist() if isinstance(index, torch.Tensor) else index)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(images, labels) in order, `size` at a time."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.batch(range(start, stop)), self.labels[start:stop]

    def subset(self, index: torch.Tensor, name: str | None = None) -> Images:
        """The images at `index` (rows, or a mask), in that order, read from the same place."""
        rows = torch.arange(len(self))[index].tolist()
        return replace(
            self, name=name or self.name, labels=self.labels[index],
            files=tuple(self.files[i] for i in rows), read=lambda part: self.read([rows[i] for i in part]),
        )  # fmt: skip

    def as_ood(self, name: str | None = None) -> Images:
        """The same images as an OOD set: every label -1, no classes."""
        return replace(self, name=name or self.name, labels=torch.full_like(self.labels, OOD), classes=())

    def fingerprint(self) -> str:
        """A hash of pixels, labels and class names; equal sets have equal fingerprints wherever they are stored."""
        digest = hashlib.blake2b(f"{self.size}{self.classes}".encode(), digest_size=16)
        for images, labels in self.batches(1024):
            digest.update(images.numpy().tobytes())
            digest.update(labels.numpy().tobytes())
        return digest.hexdigest()


def from_array(name: str, images: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> Images:
    """An `Images` over a uint8 tensor (N, 3, S, S) held in memory."""
    return Images(
        name=name, size=images.shape[-1], labels=labels.long(), classes=tuple(classes),
        files=tuple(f"{name}[{i}]" for i in range(len(images))), read=lambda index: images[list(index)],
    )  # fmt: skip


def image_files(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted by path, hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def from_files(name: str, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], size: int) -> Images:
    """The images in `files`, without the broken ones (warned by name); DataError when more than 5 % are broken.

    Every file is read once to know that it is whole. The pixels are kept when all fit in 2 GiB; else a batch reads its files again.
    """
    return _from_sources(name, lambda row: files[row], [str(f) for f in files], labels, classes, size)


def _from_sources(
    name: str, source: Callable[[int], Path | BytesIO], files: Sequence[str],
    labels: Sequence[int], classes: Sequence[str], size: int,
) -> Images:  # fmt: skip
    if not files:
        raise DataError(f"{name}: no image found. Expected files such as .png or .jpg.")
    shape = (3, size, size)
    pixels = torch.empty((len(files), *shape), dtype=torch.uint8) if len(files) * 3 * size**2 <= IN_MEMORY else None

    def problem(row: int) -> str | None:
        try:
            image = read_image(source(row), size)
        except OSError as error:
            return f"{files[row]}: {error}"
        if pixels is not None:
            pixels[row] = image
        return None

    parts = (range(start, min(start + 4096, len(files))) for start in range(0, len(files), 4096))
    with ThreadPoolExecutor() as pool:
        # In parts, because a pool holds an object for everything it was handed.
        problems: Iterable[str | None] = chain.from_iterable(pool.map(problem, part) for part in parts)
        if len(files) > 10_000:
            problems = progress(problems, total=len(files), what=f"reading {name}", unit="image")
        found = list(problems)
    if broken := [text for text in found if text is not None]:
        listed = _listed(broken, "\n  ")
        message = f"{name}: {len(broken)} of {len(files)} images cannot be read:\n  {listed}"
        if len(broken) > MAX_UNREADABLE * len(files):
            raise DataError(f"{message}\nThat is more than {MAX_UNREADABLE:.0%}; mend or remove these files.")
        warnings.warn(f"{message}\nThey are left out.", stacklevel=3)
    kept = [row for row, text in enumerate(found) if text is None]

    def read(index: Sequence[int]) -> torch.Tensor:
        rows = [kept[i] for i in index]
        if pixels is not None:
            return pixels[rows]
        batch = torch.empty((len(rows), *shape), dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            for slot, image in enumerate(pool.map(lambda row: read_image(source(row), size), rows)):
                batch[slot] = image
        return batch

    return Images(
        name=name, size=size, labels=torch.tensor([labels[row] for row in kept]), classes=tuple(classes),
        files=tuple(files[row] for row in kept), read=read,
    )  # fmt: skip


def load_folder(folder: Path, size: int, *, seed: int = 0, test_share: float = 0.2) -> tuple[Images, Images]:
    """(training, test) images of a folder of class folders; images nested inside a class folder count, hidden ones do not.

    With nothing but `train` and `test` (or `val`) inside, these hold the class folders and are the split; else every class gives
    `test_share` of its images, at least one, drawn by `seed`. A class is called as its folder (underscores are spaces) or as the
    table `[classes]` of `classes.toml` says (folder = "name"). Raises DataError for whatever would not make a data set.
    """
    folder, name = Path(folder), Path(folder).resolve().name
    parts = {path.name.casefold(): path for path in _subfolders(folder)}
    held_out = next((parts[part] for part in HELD_OUT if part in parts), None)
    if held_out is None or "train" not in parts or not parts.keys() <= {"train", *HELD_OUT}:
        return _split(_enough(_load_classes(name, folder, size, _class_files(folder, folder, least=2)), 2), seed, test_share)
    found = _class_files(parts["train"], folder, least=2)
    test = _class_files(held_out, folder, least=1)
    if differing := sorted(found.keys() ^ test.keys()):
        raise DataError(f"{folder}: train and {held_out.name} differ in these classes: {_listed(differing)}. Both need the same.")
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


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name a folder that holds one folder of images per class.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_files(folder: Path, top: Path, least: int) -> dict[str, list[Path]]:
    """Image files by class name, in the order of the folders; `classes.toml` is looked for in `top`."""
    named = _class_names(top)
    found: dict[str, list[Path]] = {}
    folders: dict[str, Path] = {}
    for path in _subfolders(folder):
        name = _plain(named.pop(unicodedata.normalize("NFC", path.name), path.name.replace("_", " ")))
        if not name:
            raise DataError(f"{path}: nothing is left of this folder's name to call the class by. Rename it.")
        if twin := folders.get(name.casefold()):
            raise DataError(f"{path} and {twin} are both the class {name!r}. Merge them or rename one.")
        folders[name.casefold()], found[name] = path, image_files(path)
    if not found:
        what = "has images but no class folders" if image_files(folder) else "is empty"
        raise DataError(f"{folder} {what}. Put the images of each class into a folder of its own, named after the class.")
    if named:
        raise DataError(f"{top / 'classes.toml'} names folders that do not exist in {folder}: {_listed(named)}.")
    if len(found) == 1:
        raise DataError(f"{folder} has only one class ({next(iter(found))}). A classifier needs at least two class folders.")
    if few := [f"{name} ({len(files)})" for name, files in found.items() if len(files) < least]:
        raise DataError(f"{folder}: classes with fewer than {least} images: {_listed(few)}. Add images or remove the folder.")
    return found


def _class_names(folder: Path) -> dict[str, str]:
    """Class names by folder name (NFC) from `classes.toml`; empty when there is none."""
    path = folder / "classes.toml"
    if not path.exists():
        return {}
    try:
        names = tomllib.loads(path.read_text(encoding="utf-8")).get("classes")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(names, Mapping) or not all(isinstance(name, str) and name.strip() for name in names.values()):
        raise DataError(f'{path}: expected a table [classes] with lines such as folder = "name".')
    return {unicodedata.normalize("NFC", key): name for key, name in names.items()}


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _load_classes(name: str, folder: Path, size: int, found: Mapping[str, list[Path]]) -> Images:
    labels = [label for label, files in enumerate(found.values()) for _ in files]
    return from_files(name, [file for files in found.values() for file in files], labels, tuple(found), size)


def _enough(images: Images, least: int) -> Images:
    """The images as they are; DataError when broken files left a class with fewer than `least`."""
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    if few := [f"{name} ({count})" for name, count in zip(images.classes, counts, strict=True) if count < least]:
        raise DataError(f"{images.name}: classes with fewer than {least} readable images: {_listed(few)}. Add or mend some.")
    return images


def _split(images: Images, seed: int, test_share: float) -> tuple[Images, Images]:
    """(training, test), stratified: every class has at least one image on either side."""
    test = torch.zeros(len(images), dtype=torch.bool)
    for label, name in enumerate(images.classes):
        rows = (images.labels == label).nonzero().flatten()
        count = min(max(1, round(test_share * len(rows))), len(rows) - 1)
        test[rows[torch.randperm(len(rows), generator=generator(seed, "split", name))[:count]]] = True
    return images.subset(~test, f"{images.name}-train"), images.subset(test, f"{images.name}-test")


def _listed(items: Iterable[str], separator: str = ", ") -> str:
    shown = list(items)
    return separator.join(shown[:10]) + (f"{separator}… and {len(shown) - 10} more" if len(shown) > 10 else "")


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
        raise DataError(f"hub:{name} has no split 'train', only {_listed(parts)}.")
    held_out = next((part for part in HELD_OUT if part in parts), None)
    short = name.rstrip("/").rpartition("/")[2]
    if held_out is None:
        return _split(_enough(_hub_images(short, parts["train"], size), 2), seed, 0.2)
    return tuple(_hub_images(f"{short}-{part}", parts[key], size) for part, key in (("train", "train"), ("test", held_out)))  # type: ignore[return-value]


def _hub_images(name: str, data: Dataset, size: int) -> Images:
    import datasets

    kinds = (datasets.Image, datasets.ClassLabel)
    image, label = (next((key for key, value in data.features.items() if isinstance(value, kind)), None) for kind in kinds)
    if image is None or label is None:
        raise DataError(f"hub set {name} needs an image and a ClassLabel column; it has {_listed(map(str, data.features))}.")
    labels = list(data[label])
    if unlabelled := sum(value is None or value < 0 for value in labels):
        raise DataError(f"hub set {name}: {unlabelled} images have no label.")
    encoded = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))

    def source(row: int) -> Path | BytesIO:
        value = encoded[row][image] or {}
        if value.get("bytes"):
            return BytesIO(value["bytes"])
        return Path(value.get("path") or "missing")

    classes = [_plain(text.replace("_", " ")) for text in data.features[label].names]
    return _from_sources(name, source, [f"{name}[{row}]" for row in range(len(labels))], labels, classes, size)


def captioned_folder(folder: Path, size: int) -> tuple[Images, list[str], torch.Tensor]:
    """Images with captions and sampling weights, for `fit-decoder`.

    With a `metadata.jsonl` (`file_name`, `text`, optional `weight`; the layout `datasets` calls imagefolder) its lines are
    the captions; without one the name of the folder an image lies in is.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.")
    index = folder / "metadata.jsonl"
    if index.is_file():
        lines = _captions(index)
    else:
        lines = [(file, file.parent.name.replace("_", " "), 1.0) for file in image_files(folder)]
    images = from_files(folder.resolve().name, [file for file, _, _ in lines], range(len(lines)), (), size)
    kept = [lines[row] for row in images.labels.tolist()]
    names = sorted({caption for _, caption, _ in lines})
    ids = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([ids[caption] for _, caption, _ in kept])
    weights = torch.tensor([weight for _, _, weight in kept])
    return replace(images, labels=labels, classes=tuple(names)), [caption for _, caption, _ in kept], weights


def _captions(index: Path) -> list[tuple[Path, str, float]]:
    """(file, caption, weight) of every line. A shared data set must not reach other files: paths stay inside the folder."""
    folder, lines = index.parent, []
    for number, text in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            lines.append((folder / line["file_name"], str(line["text"]), float(line.get("weight", 1.0))))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{index}, line {number}: {error!r}. A line has file_name, text and maybe a numeric weight.") from error
        if not lines[-1][0].resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{index}, line {number}: {lines[-1][0]} lies outside {folder}.")
    return lines
