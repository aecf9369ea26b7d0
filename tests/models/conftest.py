"""A transformers image classifier on disk."""

from __future__ import annotations

import json

import pytest
from transformers import ResNetForImageClassification, ViTForImageClassification

from oodream.core.seeding import seeded
from tests.helpers.networks import RESNET, VIT


@pytest.fixture(params=["vit", "resnet"])
def folder(request, tmp_path):
    """A transformers image classifier of five classes with weights and its own normalisation."""
    path = tmp_path / request.param
    with seeded(1, "test"):
        model = (
            ViTForImageClassification(VIT) if request.param == "vit" else ResNetForImageClassification(RESNET)
        )
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]})
    )
    return path


@pytest.fixture
def timm():
    try:
        import timm
    except Exception as error:  # a torchvision for another torch raises more than ImportError
        pytest.skip(f"timm cannot be imported: {error}")
    return timm
