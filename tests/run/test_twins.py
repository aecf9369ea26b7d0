"""Twins of imagined outliers: drawn from the same class, noise and known image, and shown as known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oodream.cli.main import main
from oodream.run.artifacts import Run
from oodream.run.job import Job
from oodream.run.plan import stages
from oodream.run.sources import sources
from oodream.run.twins import twin_files, twins
from oodream.training.sources import source_of
from tests.helpers.runs import command

EDITED = ["--decode.decoder", "image_to_image", "--decode.steps", "2", "--reconstruct.twins"]


@pytest.fixture(scope="module")
def finished(shapes: Path, tiny_pipeline: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("twins") / "run"
    assert main(command(shapes, tiny_pipeline, folder, *EDITED)) == 0
    return folder


def test_each_outlier_has_a_twin_from_the_same_known_image(finished: Path) -> None:
    run = Run.open(finished)
    job = Job(run.config, finished)
    vectors, shown, known = run.vectors, twins(run), twin_files(run).vectors
    assert len(shown) == len(vectors)
    assert torch.equal(known.seed_M, vectors.seed_M)
    assert torch.equal(shown.labels, vectors.y_M)
    drawn = job.decoder(known.z_MD, known.y_M, known.seed_M).images_B3HW
    assert torch.equal(drawn, shown.batch(range(len(vectors))))
    assert not torch.equal(drawn, run.images.batch(range(len(vectors))))
    begun = [line["anchor"] for line in run.provenance]
    rows = job.decoder.begins_at(vectors.y_M, vectors.seed_M)
    assert begun == [job.inputs.train.files[row] for row in rows]


def test_training_shows_twins_in_place_of_reconstructions(finished: Path) -> None:
    job = Job(Run.open(finished).config, finished)
    shown = source_of(sources(job), "reconstructed")
    assert shown is not None
    assert shown.data.name == "twins"
    trained = next(stage for stage in stages(job) if stage.name == "classifier/regularized-s0")
    assert "images/twins" in trained.after


def test_controls_have_no_twins(shapes: Path, tiny_pipeline: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    assert main(command(shapes, tiny_pipeline, folder, *EDITED, "--regularize.outliers", "known")) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert (
        "reconstruct.twins draws no twins: known images, altered in training, stand in the place of" in said
    )
    assert not (folder / "images" / "twins").exists()
    shown = source_of(sources(Job(Run.open(folder).config, folder)), "reconstructed")
    assert shown is not None
    assert shown.data.name == "reconstructed-train"


def test_a_lost_and_a_damaged_twin_are_drawn_again(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = twin_files(Run.open(finished)).paths
    before = [file.read_bytes() for file in files[:2]]
    files[0].unlink()
    files[1].write_bytes(before[1][:60])
    assert main(["decode", str(finished), "--verify"]) == 0
    assert "2 images were missing or damaged" in capsys.readouterr().out
    assert [file.read_bytes() for file in files[:2]] == before


def test_machines_share_twins_too(shapes: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(command(shapes, tiny_pipeline, folder, *EDITED, "--until", "vectors")) == 0
    for part in range(2):
        assert main(["decode", str(folder), "--shard", f"{part}/2"]) == 0
    files = twin_files(Run.open(folder))
    assert all(file.exists() for file in files.paths)
