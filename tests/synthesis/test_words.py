"""Vectors of words: which words, how near to them, and where they come from."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
from torch.nn.functional import normalize

from oodream.core.registry import make
from oodream.core.words import Words, WordSampler
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.names import disjoint, things
from oodream.synthesis.samplers.words import WordVectors
from oodream.testing.sampler import random_words
from tests.helpers.features import features
from tests.helpers.tiny import save_tiny_pipeline


def drawn(count: int, width: int = 16, **options):
    f = features(width=width)
    sampler = WordVectors(**options).with_words(lambda names: random_words(names, width))
    return f, sampler.chosen.z_VD, sampler(f, count, 0, "s")


def test_every_class_has_all_words_as_often():
    _, word_VD, vectors = drawn(11, cosine=1.0)
    for c in range(3):
        mine = vectors.y_M == c
        nearest = (vectors.z_MD[mine] @ word_VD.T).max(1)
        assert torch.equal(vectors.name_M[mine], nearest.indices)
        torch.testing.assert_close(nearest.values, torch.ones(11))
        assert sorted(Counter(nearest.indices.tolist()).values()) == [2, 2, 2, 2, 3]
        assert (
            sorted(nearest.indices[:5].tolist()) == sorted(nearest.indices[5:10].tolist()) == [0, 1, 2, 3, 4]
        )


@pytest.mark.parametrize("cosine", [0.6, 0.95])
def test_cosine_to_the_word_is_as_asked(cosine):
    _, word_VD, vectors = drawn(200, width=256, words="one", cosine=cosine)
    assert (vectors.z_MD @ word_VD[0]).mean().item() == pytest.approx(cosine, abs=0.01)


def test_anchors_are_the_nearest_features_of_the_class():
    f, _, vectors = drawn(5)
    for v, y, anchor in zip(vectors.z_MD, vectors.y_M, vectors.anchor_M, strict=True):
        assert anchor == (f.z_ND @ v).masked_fill(f.y_N != y, -2).argmax()


def test_words_that_do_not_do_are_refused():
    sampler = make("samplers", "words", words=" moon,, hot dog ,")
    assert isinstance(sampler, WordSampler)
    assert sampler.with_words(random_words).chosen.names == ("moon", "hot dog")
    assert sampler.chosen is None
    with pytest.raises(ValueError, match="has no words yet"):
        sampler(features(), 2, 0, "s")
    with pytest.raises(ValueError, match="lists no word that no class has"):
        sampler.with_words(lambda names: Words(names=(), z_VD=torch.empty(0, 16)))
    with pytest.raises(ValueError, match="words have width 16 and the features 8"):
        sampler.with_words(random_words)(features(width=8), 2, 0, "s")
    with pytest.raises(ValueError, match="sampler 'words': cosine must be"):
        make("samplers", "words", cosine=0.0)


def test_other_samplers_need_no_words():
    assert not isinstance(make("samplers", "knn"), WordSampler)


def test_disjoint_names_hold_no_class_and_are_held_by_none():
    names = ["boot", "Boots", "ankle", "ankle boots", "red ankle-boot", "booth", "cat", "hot dog", "moon"]
    assert disjoint(names, ["ankle boot", "feline"], {"feline": ["cat"]}) == ["booth", "hot dog", "moon"]
    assert disjoint(names, []) == names
    assert disjoint(names, ["dog"]) == [name for name in names if name != "hot dog"]


def test_a_decoders_words_are_class_vectors(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle", "star"], tile=2)
    words = decoder.words(["star", "circle"])
    assert words.names == ("star", "circle")
    torch.testing.assert_close(words.z_VD, normalize(decoder.book.tokens_CD.flip(0), dim=1))
    vocabulary = decoder.words()
    assert {"circle", "star", "red", "blue"} <= set(vocabulary.names)
    row = vocabulary.names.index("star")
    torch.testing.assert_close(vocabulary.z_VD[row], words.z_VD[0])


def test_a_vocabulary_of_many_words_gives_the_things_among_them(tmp_path):
    pictured = sorted(word for word in things() if len(word) >= 3)[::12]
    assert len(pictured) >= 100
    folder = save_tiny_pipeline(tmp_path / "wide", words=[*pictured, "walking", "beautiful"])
    decoder = StableDecoder(str(folder), names=[pictured[0], pictured[1]], tile=2)
    assert {"walking", "beautiful", "red"} <= set(decoder.text.words()[0])
    words = decoder.words()
    assert {*pictured} <= {*words.names} <= things()
    torch.testing.assert_close(words.z_VD, decoder.text.vectors(words.names))


def test_things_are_single_words():
    names = things()
    assert len(names) > 1000
    assert all(re.fullmatch("[a-z]{2,}", name) for name in names)
    assert {"cat", "lantern", "glacier"} <= names
