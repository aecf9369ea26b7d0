"""A report with everything in it, hostile names among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oodream.report.content import Answer, FilterCount, Imagined, LatentMap, Report, SetSummary
from tests.helpers.page import CLASSES, HOSTILE, rows


@pytest.fixture(scope="module")
def full() -> Report:
    generator = torch.Generator().manual_seed(0)

    def image() -> torch.Tensor:
        return torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)

    def scores(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    y_N = np.arange(60) % 3
    points = np.random.default_rng(0).normal(size=(60, 2))
    return Report(
        title=f"Title {HOSTILE}",
        preset="demo",
        created="2025-01-01",
        command=f"oodream run {HOSTILE}",
        classes=CLASSES,
        classifiers={"baseline": "cross-entropy", "regularized": HOSTILE},
        versions={"torch": "2.0"},
        config={"name": HOSTILE, "k": [1, 2]},
        seconds={"align": 3.0, "train": 125.0},
        rows=rows(),
        sets=[
            SetSummary(name="test", group="id", n=40),
            SetSummary(name="bag", group="near", n=30, description=HOSTILE),
        ],
        scores={
            c: {"id": scores(400), "bag": scores(300) + shift}
            for c, shift in (("baseline", 1), ("regularized", 4))
        },
        latent_map=LatentMap(
            features_N2=points,
            y_N=y_N,
            outliers_M2=points[:9] * 2,
            y_M=y_N[:9],
            dropped_M=y_N[:9] == 1,
            method="PCA",
            own_knn=torch.linspace(0.1, 0.5, 40),
            vector_knn=torch.linspace(0.3, 0.9, 40),
        ),
        gallery=[
            Imagined(
                name=name,
                image_3HW=image(),
                anchor_3HW=image(),
                row=i,
                seed=i,
                knn=0.4,
                cosine=0.7,
                prompt=f"a {name}",
                pipeline="abc",
                anchor_file=HOSTILE,
                dropped=HOSTILE if i == 1 else "",
            )
            for i, name in enumerate(CLASSES)
        ],
        class_samples={name: torch.stack([image(), image()]) for name in CLASSES},
        answers=[
            Answer(image_3HW=image(), truth="coat", known=True, answer="coat", score=-5, threshold=-2),
            Answer(image_3HW=image(), truth="coat", known=True, answer="unknown", score=-1, threshold=-2),
            Answer(image_3HW=image(), truth=HOSTILE, known=False, answer="unknown", score=0, threshold=-2),
            Answer(image_3HW=image(), truth="bag", known=False, answer="coat", score=-4, threshold=-2),
        ],
        reconstructed_id={"baseline": 0.52, "regularized": 0.69},
        filtered={name: FilterCount(imagined=20, kept=15) for name in CLASSES},
    )
