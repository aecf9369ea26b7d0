"""A finished run, opened: everything it made, without data, decoder or network in hand; and files that are
torn.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.cli.main import main
from oodream.config import Config, DecodeConfig, RegularizeConfig, SampleConfig
from oodream.core.errors import DataError, StoreError
from oodream.core.tensors import load_tensors
from oodream.run.artifacts import Run
from oodream.run.lacking import lacks_outlier_images
from tests.helpers.begun import begin_run
from tests.helpers.runs import command


@pytest.fixture(scope="module")
def run(finished) -> Run:
    return Run.open(finished)


def test_classes_and_vectors(run):
    assert run.book.names == ("circle", "square", "star")
    assert run.vectors.kind == run.kind == "outlier"
    assert len(run.vectors) == 24
    assert run.vectors.y_M.tolist() == [0, 1, 2] * 8
    anchors = run.features.y_N[run.vectors.anchor_M]
    assert torch.equal(anchors, run.vectors.y_M), "every vector lies around a feature of its class"


def test_images_with_what_they_were_made_from(run):
    assert len(run.images) == len(run.provenance) == 24
    for m, line in enumerate(run.provenance):
        assert line["row"] == m
        assert line["class"] == run.book.names[int(run.images.labels[m])]
        pixels = np.asarray(Image.open(run.layout.imagined("images") / line["file_name"]).convert("RGB"))
        assert np.array_equal(run.images.batch([m])[0].permute(1, 2, 0).numpy(), pixels)


def test_the_encoder_is_the_one_that_was_trained(run):
    saved = load_tensors(run.layout.encoder)
    assert all(torch.equal(saved[name], tensor) for name, tensor in run.encoder.state_dict().items())


def test_filter_classifiers_and_scores(run):
    reasons = run.drop_reasons
    assert [not reason for reason in reasons] == run.keep_mask.tolist()
    images = run.images.batch(range(len(run.images)))
    with torch.no_grad():
        said = run.classifier("baseline", 0).network.eval()(images).logits_BC.argmax(1)
    recognized = run.folder.stamp("filter")["summary"]["recognized"]
    assert recognized == int((said == run.images.labels).sum())
    assert run.classifiers == [("baseline", 0), ("regularized", 0)]
    assert run.classifier().names == run.book.names
    scores = run.scores("baseline", 0, "msp")
    assert scores.keys() >= {"id", "letters"}
    assert scores["id"].dtype == torch.float64
    (row,) = [
        r for r in run.rows() if (r.classifier, r.detector, r.dataset) == ("baseline", "msp", "letters")
    ]
    wins = (scores["letters"][:, None] > scores["id"]).double() + 0.5 * (
        scores["letters"][:, None] == scores["id"]
    )
    assert row.auroc == pytest.approx(wins.mean().item())
    assert {r.dataset for r in run.shift_rows()} >= {"blur", "rotate"}


def test_it_needs_no_data(finished, tmp_path):
    """Moved away from its data and its decoder, a run is read all the same."""
    moved = Run.open(shutil.copytree(finished, tmp_path / "elsewhere"))
    assert len(moved.images) == 24
    assert moved.rows() == Run.open(finished).rows()
    assert moved.audit().findings


def test_what_a_run_does_not_have_is_not_said_to_be_missing(run, tmp_path):
    """Images or latents, and all that belongs to imagining; with the way to what there is."""
    with pytest.raises(DataError, match=r"images and no latents: its outliers are images .* Run\.images"):
        _ = run.latents
    with pytest.raises(DataError, match="has no latents of known images: nothing"):
        _ = run.known_latents
    latents = begin_run(tmp_path / "latents", Config(decode=DecodeConfig(output="latents")))
    with pytest.raises(DataError, match=r"latents and no images: its outliers are latents .* Run\.latents"):
        _ = latents.images


@pytest.mark.parametrize("outliers", ["known", "real"])
def test_a_run_that_imagines_nothing_says_so(finished, outliers, tmp_path):
    run = begin_run(tmp_path, Config(regularize=RegularizeConfig(outliers=outliers, real="things")))
    shutil.copytree(finished / "classes", tmp_path / "classes")
    for name in ("encoder", "features", "vectors", "files", "images", "latents", "provenance", "keep_mask",
                 "samples", "strips"):  # fmt: skip
        with pytest.raises(DataError, match=f"imagines nothing: {outliers} images.* stand in the place of"):
            getattr(run, name)


@pytest.mark.parametrize(
    ("regularize", "sample", "output", "why", "imagined"),
    [
        ({}, {}, "images", "", ""),
        ({"outliers": "real", "real": "things"}, {}, "images", "", "real images stand in the place"),
        ({"outliers": "known"}, {}, "latents", "known images, altered", "known images, altered"),
        ({"ratio": 0.0}, {}, "images", "training shows nothing", "training shows nothing"),
        ({}, {"options": {"kind": "inlier"}}, "images", "this run imagines inliers", "imagines inliers"),
        ({}, {}, "latents", "this run's outliers are latents", "this run's outliers are latents"),
    ],
)
def test_why_a_run_has_no_images_of_outliers(regularize, sample, output, why, imagined, tmp_path):
    config = Config(
        regularize=RegularizeConfig(**regularize),
        sample=SampleConfig(**sample),
        decode=DecodeConfig(output=output),
    )
    run = begin_run(tmp_path, config)
    for expected, given in (
        (why, lacks_outlier_images(run)),
        (imagined, lacks_outlier_images(run, imagined=True)),
    ):
        assert expected in given
        assert bool(expected) == bool(given)


def test_scores_that_were_not_measured_come_with_those_that_were(run):
    there = r"For it there are: 'energy', 'msp', 'max_logit', 'mahalanobis'\.$"
    with pytest.raises(ValueError, match=rf"no scores of 'vim' for the classifier regularized-s0\. {there}"):
        run.scores("regularized", 0, "vim")
    with pytest.raises(ValueError, match=r"-s7\. There are some for: baseline-s0, regularized-s0\.$"):
        run.scores(seed=7)


def test_scores_that_are_gone_are_to_be_made_again(copied):
    run = Run.open(copied)
    run.layout.scores("baseline", 0, "msp").unlink()
    with pytest.raises(StoreError, match=r"is missing\. Make it again: .* --redo scores"):
        run.scores("baseline", 0, "msp")


TORN = {
    "classes/classes.json": lambda run: run.book,
    "vectors/vectors.safetensors": lambda run: run.vectors,
    "features/features.safetensors": lambda run: run.features,
    "images/imagined/metadata.jsonl": lambda run: run.provenance,
    "images/control/reconstructed-test.safetensors": lambda run: run.reconstructed("test"),
    "strips/samples.safetensors": lambda run: run.samples,
    "filter/keep.safetensors": lambda run: run.keep_mask,
    "results.jsonl": lambda run: run.rows(),
    "shift/accuracy.jsonl": lambda run: run.shift_rows(),
    "audit/audit.json": lambda run: run.audit(),
    "classifier/regularized-s0/classifier.json": lambda run: run.classifier(),
    "classifier/regularized-s0/model.safetensors": lambda run: run.classifier(),
}


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "another"])
@pytest.mark.parametrize("file", TORN)
def test_what_is_torn_is_named_with_what_to_do(file, damage, finished, tmp_path):
    """As a copy that was cut off, a sync tool or a power cut leave it."""
    path = Path(shutil.copytree(finished, tmp_path / "run")) / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "another": b"[]"}[damage])
    if damage == "empty" and file == "shift/accuracy.jsonl":
        return  # no shifted sets, no lines
    with pytest.raises(StoreError, match=Path(file).name.replace(".", r"\.")) as error:
        TORN[file](Run.open(tmp_path / "run"))
    assert any(word in str(error.value) for word in ("--redo", "same command again", "RUN/classifier/NAME"))


@pytest.mark.parametrize("file", ["vectors/vectors.safetensors", "results.jsonl"])
def test_the_commands_say_so_too(file, copied, shapes, tiny_pipeline, capsys):
    shutil.rmtree(copied / "report")
    (copied / file).write_bytes(b"")
    assert main(command(shapes, tiny_pipeline, copied)) == 2
    assert Path(file).name in capsys.readouterr().err
