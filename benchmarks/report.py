"""A run's page, from its files, and an audit of image sets from memory.

The run is a small one: 8 classes of garments, 40 pictures for each, 16 imagined for each. The page is beside
Pillow alone, which encodes the page's pictures. The audit looks at the demo's sets, beside scikit-learn's
exhaustive search for the nearest of the training pictures, which is a part of what an audit must know.

python benchmarks/report.py
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from _bench import Row, Setting, alone, bandwidth, turns
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from oodream.audit.audit import audit
from oodream.config import Config, Optimisation
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import ImageSet
from oodream.data.inputs import DataInputs
from oodream.presets import PRESETS
from oodream.report.page import report
from oodream.run.present import present
from oodream.run.runner import execute

__all__ = ["LINES"]

CPU = torch.device("cpu")


def pictures(folder: Path, per_class: int) -> Path:
    """A folder of class folders."""
    images = fashion("train", FASHION_ID, size=32)
    for y, name in enumerate(images.classes):
        (folder / name).mkdir(parents=True)
        for i, pixels in enumerate(images.batch((images.labels == y).nonzero()[:per_class, 0])):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name / f"{i}.png")
    return folder


def small_run(setting: Setting) -> Config:
    base, brief = PRESETS["folder"].config, Optimisation(epochs=1, batch=32, min_steps=0)
    return replace(
        base,
        data=str(pictures(setting.room / "pictures", 40)),
        align=replace(base.align, optimisation=brief),
        train=replace(base.train, optimisation=brief),
        sample=replace(base.sample, per_class=16),
        decode=replace(base.decode, steps=2),
        evaluate=replace(base.evaluate, n_far=50, resamples=20),
    )


def reporting(setting: Setting) -> Iterator[Row]:
    config = small_run(setting)
    run = execute(config, setting.room / "run", command="benchmark", say=lambda line: None)
    inputs = DataInputs(config)
    page = report(present(run, inputs, CPU))
    encoded = re.findall(r"data:image/(?:png|webp|jpeg);base64,([A-Za-z0-9+/=]+)", page)
    images = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in encoded]

    def encode() -> None:
        for image in images:
            image.save(file := io.BytesIO(), "png")
            base64.b64encode(file.getvalue())

    works = {"ours": lambda: report(present(run, inputs, CPU)), "pillow": encode}
    times = turns(works, setting.pick(5, 5, 1), CPU)
    yield Row(
        what="a run's page",
        value=times["ours"],
        unit="s",
        reference=f"Pillow, the page's {len(images)} pictures as PNG",
        ratio=times["pillow"] / times["ours"],
        floor=f"{len(page) / 1e6:.1f} MB of page, written once",
        share=len(page) / bandwidth(CPU) / times["ours"],
    )


def auditing(setting: Setting) -> Iterator[Row]:
    inputs, n = DataInputs(PRESETS["demo"].config), setting.pick(1000, 1000, 100)

    def first(images: ImageSet) -> ImageSet:
        return replace(images, images=images.images.subset(torch.arange(min(n, len(images.images)))))

    sets = [
        ImageSet(name="train", group="train", images=inputs.train),
        ImageSet(name="test", group="test", images=inputs.test),
        *inputs.ood,
    ]
    sets = [first(one) for one in sets]
    total = sum(len(one.images) for one in sets)
    train, *others = (one.images.batch(range(len(one.images))).flatten(1).numpy() for one in sets)

    def search() -> None:
        index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train)
        for other in others:
            index.kneighbors(other)

    works = {"ours": lambda: audit(sets, inputs.train.classes), "search": search}
    times = turns(works, setting.pick(3, 3, 1), CPU)
    read = sum(part.nbytes for part in (train, *others))
    yield Row(
        what=f"audit of {total:,} pictures in {len(sets)} sets",
        value=total / times["ours"],
        unit="pictures a second",
        reference="scikit-learn's search for nearest training pictures",
        ratio=times["search"] / times["ours"],
        floor=f"{read / 1e6:.0f} MB of pixels, read once",
        share=read / bandwidth(CPU) / times["ours"],
    )


LINES = {"report": reporting, "audit": auditing}

if __name__ == "__main__":
    alone(LINES)
