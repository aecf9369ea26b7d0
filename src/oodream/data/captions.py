"""data.captions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ..core.errors import DataError
from .images import Images, from_files
from .preprocess import image_files


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
            raise DataError(
                f"{index}, line {number}: {error!r}. A line has file_name, text and maybe a numeric weight."
            ) from error
        if not lines[-1][0].resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{index}, line {number}: {lines[-1][0]} lies outside {folder}.")
    return lines
