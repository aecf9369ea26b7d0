"""What is said before a run begins: here, where the decoder's names do not fit the classes."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from oodream.config import Config
from oodream.core.options import ConfigError, overlay
from oodream.run.check import check
from oodream.run.job import Job
from oodream.run.stages.vectors import sample_vectors
from tests.helpers.features import features
from tests.helpers.pictures import class_folder

LEARNT = ["red circle", "square", "star fruit"]


@pytest.fixture(scope="module")
def decoder(tiny_pipeline, tmp_path_factory) -> Path:
    """The tiny decoder, with a list of names that lacks none of the classes."""
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path_factory.mktemp("named") / "decoder"))
    (folder / "names.json").write_text(json.dumps(LEARNT))
    return folder


NAMES = ("has learnt", "not learnt", "no photograph")


def checked(
    shapes: Path, decoder: Path, folder: Path, about: tuple[str, ...] = NAMES, **options: object
) -> list[str]:
    """The warnings that a run begins with, by default those about names."""
    base = {
        "data": str(shapes),
        "decode": {"source": str(decoder)},
        "evaluate": {"n_far": 2},
        "device": "cpu",
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(Job(overlay(overlay(Config(), base), options), folder))
    return [str(w.message) for w in caught if any(words in str(w.message) for words in about)]


def test_a_decoder_that_knows_all_classes_and_no_unknown_one_is_fine(shapes, decoder, tmp_path):
    assert checked(shapes, decoder, tmp_path) == []


def test_a_decoder_that_does_not_say_what_it_knows_is_fine(shapes, tiny_pipeline, tmp_path):
    assert checked(shapes, tiny_pipeline, tmp_path) == []


def test_a_class_word_that_the_decoder_has_not_learnt_is_named(shapes, decoder, tmp_path):
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    (data / "square").rename(data / "grouse")
    (message,) = checked(data, decoder, tmp_path / "run")
    assert f"The decoder {decoder} has not learnt 'grouse': its pictures will not show it." in message
    assert "classes.toml" in message


def test_an_unknown_class_that_the_decoder_has_learnt_is_named(shapes, decoder, tmp_path):
    (message,) = checked(shapes, decoder, tmp_path, unknown=["circle"])
    assert "has learnt what is unknown here: 'red circle' (circle)." in message
    assert "--without" in message
    (message,) = checked(shapes, decoder, tmp_path, validate=["star"])
    assert "'star fruit' (star)" in message


def test_other_names_of_an_unknown_class_count(shapes, decoder, tmp_path):
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    (data / "classes.toml").write_text(
        '[classes]\ncircle = "circle"\nsquare = "square"\nstar = "star"\n[aliases]\nred = "star"\n'
    )
    (message,) = checked(data, decoder, tmp_path / "run", unknown=["star"])
    assert "'red circle' (star), 'star fruit' (star)" in message


def test_where_nothing_is_imagined_the_decoder_may_know_what_it_likes(shapes, decoder, tmp_path):
    other = class_folder(tmp_path / "other", tree=3)
    real = {"regularize": {"outliers": "real", "real": str(other)}}
    assert checked(shapes, decoder, tmp_path / "run", unknown=["circle"], **real) == []


def test_words_to_sample_are_no_classes(shapes, decoder, tmp_path):
    """All that the decoder lists but classes; those that are named must not be classes, known or unknown."""
    options = {"data": str(shapes), "decode": {"source": str(decoder)}, "device": "cpu"}

    def job(**more):
        return Job(overlay(overlay(Config(), options), more), tmp_path / "run")

    classes = job().book.names
    assert "circle" in classes
    names = job().words().names
    assert set(names) == {name for name in LEARNT if not any(word in name for word in classes)}
    sampled = {"sampler": "words", "options": {"words": "circle"}}
    with pytest.raises(ValueError, match="'circle' cannot be sampled: a class is called so"):
        check(job(sample=sampled))


def test_words_that_the_decoder_has_not_learnt_or_cannot_write_are_named(shapes, decoder, tmp_path):
    options = {"data": str(shapes), "decode": {"source": str(decoder)}, "device": "cpu"}
    for words, missing in (
        ("red", []),
        ("red,blue", ["'blue'"]),
        ("red blue, blue", ["'red blue'", "'blue'"]),
    ):
        sample = {"sampler": "words", "options": {"words": words}}
        found = checked(shapes, decoder, tmp_path / "run", sample=sample)
        assert len(found) == bool(missing)
        for message in found:
            assert f"has not learnt {', '.join(missing)}, so outliers drawn by such words" in message
            assert "words=star,moon" in message
        job = Job(overlay(overlay(Config(), options), {"sample": sample}), tmp_path / "run")
        assert job.sampled_words == [word.strip() for word in words.split(",")]
    with pytest.raises(
        ValueError, match="tokenizer does not know '猫', and cannot draw things by such names"
    ):
        checked(shapes, decoder, tmp_path / "run", sample={**sample, "options": {"words": "red,猫"}})


def test_the_stage_says_how_many_words_were_read_and_which(shapes, decoder, tmp_path):
    options = {
        "data": str(shapes),
        "decode": {"source": str(decoder)},
        "sample": {"sampler": "words", "options": {"words": "red, blue"}, "per_class": 3},
        "device": "cpu",
    }
    job = Job(overlay(Config(), options), tmp_path / "run")
    job.run.features = features(width=job.book.tokens_CD.shape[1])
    summary = sample_vectors(job)
    assert (summary["words"], summary["such_as"], summary["outliers"]) == (2, "red, blue", 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularize": {"known_transform": "cut"}}, "cut takes --regularize.outliers known; it is imagined"),
        (
            {"regularize": {"known_transform": "cut", "outliers": "known"}, "decode": {"output": "latents"}},
            "Latents of known images can be varied alone",
        ),
        (
            {
                "regularize": {"known_transform": "cut", "outliers": "known", "loss": ["cross_entropy"]},
                "sample": {"options": {"kind": "inlier"}},
            },
            "cut show no class, and could be no inliers. .* is one of varied, inverted, structured, augmix",
        ),
    ],
)
def test_known_images_are_transformed_only_where_they_teach_something(
    shapes, decoder, tmp_path, options, message
):
    with pytest.raises(ConfigError, match=message):
        checked(shapes, decoder, tmp_path, **options)


def test_images_are_not_augmented_beside_latents(shapes, decoder, tmp_path):
    options = {"decode": {"output": "latents"}, "train": {"augmentation": "augmix"}}
    with pytest.raises(ConfigError, match="Images can be augmented and latents cannot"):
        checked(shapes, decoder, tmp_path, **options)


def inliers(**more: object) -> dict[str, object]:
    return {"sample": {"options": {"kind": "inlier"}}, "regularize": {"loss": ["cross_entropy"]}, **more}


@pytest.mark.parametrize("name", ["edited", "guided", "noisy_text"])
def test_decoders_that_lead_away_from_the_class_draw_no_inliers(shapes, decoder, tmp_path, name):
    with pytest.raises(ConfigError, match=f"'{name}' leads away from the class"):
        checked(shapes, decoder, tmp_path, **inliers(decode={"decoder": name}))


def test_what_inliers_need_is_said(shapes, decoder, tmp_path):
    with pytest.raises(ValueError, match=r"for these --regularize\.loss cross_entropy"):
        checked(shapes, decoder, tmp_path, sample={"options": {"kind": "inlier"}})
    with pytest.raises(ConfigError, match="inlier-weight weighs inliers, and there are none"):
        checked(shapes, decoder, tmp_path, regularize={"inlier_weight": 3.0})


def test_a_loss_that_needs_nothing_beside_known_images_is_said(shapes, decoder, tmp_path):
    about = ("nothing is imagined",)
    assert checked(shapes, decoder, tmp_path, about, regularize={"loss": ["cross_entropy"]})
    for other in (inliers(), {"regularize": {"loss": ["logit_norm"]}}):
        assert not checked(shapes, decoder, tmp_path, about, **other)


def test_a_loss_that_tells_names_apart_is_checked_in_silence(shapes, decoder, tmp_path):
    """With an outlier's name, as there is one at least; a layer for none makes PyTorch warn."""
    loss = {"loss": ["extra_class"], "loss_options": {"named": True}}
    assert checked(shapes, decoder, tmp_path, ("zero-element",), regularize=loss) == []


def test_folders_that_validation_does_not_read_are_said(shapes, decoder, tmp_path):
    about, folder = ("is not measured",), str(class_folder(tmp_path / "other", circle=3))
    (message,) = checked(shapes, decoder, tmp_path, about, validate=["star"], shifted=[folder])
    assert message.startswith("--shifted is not measured: --validate is for choosing")
    assert not checked(shapes, decoder, tmp_path, about, validate=["star"])
    assert not checked(shapes, decoder, tmp_path, about, shifted=[folder])


def test_so_few_steps_that_nothing_is_learned_are_said(shapes, decoder, tmp_path):
    about = ("steps alone",)
    (message,) = checked(shapes, decoder, tmp_path, about, train={"optimisation": {"epochs": 3}})
    assert "trained for 3 steps alone: 3 epochs of " in message
    longer = {"optimisation": {"epochs": 3, "min_steps": 100}}
    assert not checked(shapes, decoder, tmp_path, about, train=longer)


LATENTS = {"decode": {"output": "latents"}}
INLIERS = {"sample": {"options": {"kind": "inlier"}}, "regularize": {"loss": ["cross_entropy"]}}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (LATENTS, r"this run's outliers are latents \(decode.output\)"),
        (INLIERS, "this run imagines inliers"),
        ({"regularize": {"outliers": "known"}}, "known images, altered in training, stand in the place"),
        (
            INLIERS | {"regularize": {"outliers": "known", "loss": ["cross_entropy"]}},
            "known images, altered in training, stand in the place",
        ),
    ],
)
@pytest.mark.parametrize(
    "detectors",
    [
        {"evaluate": {"detectors": ["outlier_probe", "energy"]}, "guard": {"detector": "energy"}},
        {"evaluate": {"detectors": ["energy", "outlier_probe"]}, "guard": {"detector": "outlier_probe"}},
    ],
)
def test_a_detector_that_learns_from_outliers_needs_images_of_some(
    shapes, decoder, tmp_path, options, why, detectors
):
    """As the first or the guard's; a further one is left out when its turn comes."""
    given = overlay(overlay(Config(), options), detectors)
    evaluate = {"n_far": 2, "detectors": list(given.evaluate.detectors)}
    with pytest.raises(ConfigError, match=f"outlier_probe learns from images of outliers, and {why}"):
        checked(shapes, decoder, tmp_path, **options, guard=detectors["guard"], evaluate=evaluate)
    further = {"n_far": 2, "detectors": ["energy", "outlier_probe"]}
    assert checked(shapes, decoder, tmp_path, **options, evaluate=further) == []


def test_imagined_and_real_outliers_are_images_to_learn_from(shapes, decoder, tmp_path):
    first = {"evaluate": {"n_far": 2, "detectors": ["outlier_probe"]}}
    other = class_folder(tmp_path / "other", tree=3)
    for more in ({}, {"regularize": {"outliers": "real", "real": str(other)}}):
        assert checked(shapes, decoder, tmp_path / "run", **first, **more) == []


def test_that_there_will_be_no_guard_is_said(shapes, decoder, tmp_path):
    about = ("no guard",)
    (message,) = checked(shapes, decoder, tmp_path, about, guard={"alpha": 0.1})
    assert "no guard: alpha 0.1 takes 29 known test images to guarantee, and there are 12" in message
    assert checked(shapes, decoder, tmp_path, about, guard={"alpha": 0.3}) == []


def test_photographs_beside_the_embedded_decoder_are_warned_of(shapes, tmp_path):
    (message,) = checked(shapes, "embedded", tmp_path / "run")
    assert "has seen garments, drawings and emoji, and no photograph" in message
    assert "win or lose near-OOD by what is unknown" in message
    assert "--decode.source FOLDER" in message
    assert checked(shapes, "embedded", tmp_path / "known", regularize={"outliers": "known"}) == []
    assert checked("doodles", "embedded", tmp_path / "own") == []
