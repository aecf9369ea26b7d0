"""What a run's report is made from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oodream.config import Config, ReportConfig
from oodream.core.seeding import generator
from oodream.core.tensors import save_tensors
from oodream.report.content import FilterCount
from oodream.run.artifacts import Run
from oodream.run.present import GALLERY_PER_CLASS, class_distances, filtered, gallery
from tests.helpers.begun import begin_run, imagine
from tests.helpers.clouds import clouds, images

RUN = Config(data="/nowhere", size=8, report=ReportConfig(max_classes=1))


class Inputs:
    """Two training images."""

    train = images(clouds(2, 3, size=8))


@pytest.fixture
def imagined(tmp_path) -> Run:
    """Twenty images of the first of two classes, the second of which a filter dropped."""
    run = begin_run(tmp_path, RUN)
    imagine(run, clouds(20, 0, size=8))
    dropped_by = torch.full((20,), -1)
    dropped_by[1] = 0
    save_tensors(run.layout.keep_mask, {"keep": dropped_by < 0, "dropped_by": dropped_by})
    run.folder.finish("filter", {}, 0.1, {"reasons": ["it looks like its class"]})
    return Run.open(tmp_path)


def test_the_gallery_joins_images_with_their_provenance(imagined: Run):
    shown = gallery(imagined, Inputs(), None)
    assert [item.row for item in shown] == [*range(GALLERY_PER_CLASS)]
    assert [item.dropped for item in shown[:3]] == ["", "it looks like its class", ""]
    assert torch.equal(shown[5].image_3HW, imagined.images.batch([5])[0])
    assert torch.equal(shown[5].anchor_3HW, Inputs.train.batch([1])[0])
    assert (shown[5].anchor_file, shown[5].seed) == ("/data/5.png", 5)


def test_counts_of_the_filter_are_those_of_its_mask(imagined: Run):
    assert filtered(imagined) == {
        "coat": FilterCount(imagined=20, kept=19),
        "shoe": FilterCount(imagined=0, kept=0),
    }


def test_distances_go_to_the_k_th_other_feature_of_the_class():
    g = generator(0, "distances")
    z_ND, y_N = torch.randn(23, 4, generator=g), torch.arange(23) % 2
    features = SimpleNamespace(z_ND=z_ND, y_N=y_N)
    run = SimpleNamespace(features=features, book=SimpleNamespace(names=("a", "b", "none")))
    z_MD, y_M = torch.randn(6, 4, generator=g), torch.tensor([1, 1, 0, 0, 1, 0])
    own, vectors = class_distances(run, z_ND, y_N, own=True), class_distances(run, z_MD, y_M)
    expected = []
    for query, label, first in ((z_ND, y_N, 1), (z_MD, y_M, 0)):  # the first neighbour is the feature itself
        for y in (0, 1):
            distances = np.linalg.norm(query[label == y][:, None] - z_ND[y_N == y][None], axis=2)
            expected.append(np.sort(distances, axis=1)[:, first + 1])  # k = 2: a fifth of 12 or 11
    np.testing.assert_allclose(torch.cat([own, vectors]), np.concatenate(expected), atol=1e-5)


def test_stamps_come_in_the_order_of_the_work(tmp_path: Path):
    folder = begin_run(tmp_path, RUN).folder
    for i, stage in enumerate(("classes", "images/imagined", "align")):
        folder.finish(stage, {}, float(i), {})
    assert [(name, stamp["seconds"]) for name, stamp in folder.stamps().items()] == [
        ("classes", 0.0),
        ("images/imagined", 1.0),
        ("align", 2.0),
    ]
