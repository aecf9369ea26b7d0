"""The verb `sample`."""

from __future__ import annotations

import pytest
import torch

from oodream.config import SampleConfig
from oodream.core.registry import make
from oodream.core.types import ClassBook
from oodream.synthesis.sample import make_sampler, sample
from oodream.testing.sampler import random_words
from tests.helpers.features import features


def book(width: int) -> ClassBook:
    names = ("a", "b", "c")
    return ClassBook(names=names, prompts=names, tokens_CD=torch.ones(3, width), space="here")


def test_the_sampler_of_the_configuration_is_used():
    config = SampleConfig(per_class=5, options={"k": 4, "kind": "inlier", "cosine": 0.6})
    vectors = sample(features(), book(16), config, seed=2)
    expected = make("samplers", "knn", k=4, kind="inlier", cosine=0.6)(features(), 5, 2, "here")
    assert torch.equal(vectors.z_MD, expected.z_MD)
    assert (vectors.kind, vectors.space, len(vectors)) == ("inlier", "here", 15)


def test_a_sampler_that_needs_words_is_given_some():
    config = SampleConfig(sampler="words", per_class=4, options={"words": "moon, river"})
    asked = []

    def lookup(names):
        asked.append(tuple(names))
        return random_words(names)

    vectors = sample(features(), book(16), config, 2, lookup)
    assert asked == [("moon", "river")]
    expected = make_sampler(config, random_words)(features(), 4, 2, "here")
    assert torch.equal(vectors.z_MD, expected.z_MD)
    with pytest.raises(ValueError, match=r"The sampler 'words' needs words: pass lookup=decoder\.words"):
        sample(features(), book(16), config, seed=2)


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="features have width 16 and the class vectors 8"):
        sample(features(), book(8), SampleConfig(), seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_same_vectors_are_sampled_but_for_rounding():
    config = SampleConfig(per_class=20, options={"k": 4, "anchors": 5, "candidates": 100})
    here, there = (sample(features(), book(16), config, 2, device=device) for device in ("cpu", "cuda"))
    assert there.z_MD.device.type == "cpu"
    assert torch.equal(here.anchor_M, there.anchor_M)
    assert torch.equal(here.seed_M, there.seed_M)
    assert (here.z_MD - there.z_MD).abs().max() < 1e-4
    assert (here.knn_M - there.knn_M).abs().max() < 1e-4
