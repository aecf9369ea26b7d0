"""Run folders as they are after some of their stages, without the stages' work."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from oodream.config import Config
from oodream.core.files import write_json
from oodream.core.options import to_json
from oodream.core.sealed import file_hash
from oodream.core.seeding import generator
from oodream.core.tensors import save_tensors
from oodream.run.artifacts import Run
from oodream.run.layout import FORMAT


def begin_run(folder: Path, config: Config) -> Run:
    write_json(folder / "run.json", {"format": FORMAT, "config": to_json(config)})
    return Run.open(folder)


def imagine(run: Run, pictures: list[Image.Image]) -> None:
    """Writes what a run of the classes coat and shoe holds after it has decoded these pictures."""
    n = len(pictures)
    z_MD = torch.nn.functional.normalize(torch.randn(n, 8, generator=generator(0, "test")), dim=1)
    classes = {"names": ["coat", "shoe"], "prompts": ["a coat", "a shoe"], "space": "test", "tile": 4}
    write_json(run.layout.classes, classes)
    save_tensors(run.layout.class_vectors, {"tokens_CD": z_MD[:2]})
    integers = {name: torch.zeros(n, dtype=torch.long) for name in ("y_M", "anchor_M", "seed_M")}
    save_tensors(run.layout.vectors, {"z_MD": z_MD, "knn_M": torch.zeros(n), **integers})
    for file, picture in zip(run.files.paths, pictures, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    lines = [
        {
            "row": m, "file_name": str(file.relative_to(run.files.folder)), "hash": file_hash(file),
            "class": "coat", "anchor_index": m % 2, "anchor": f"/data/{m}.png", "seed": m,
            "knn_distance": 0.5, "cosine_to_class": 0.4, "prompt": "a coat", "pipeline": "0" * 16,
            "words": ["hat"],
        }
        for m, file in enumerate(run.files.paths)
    ]  # fmt: skip
    run.layout.provenance("images").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
