"""Runs whose decoders look at known images or their classifier: their order, and rows drawn again."""

from __future__ import annotations

import pytest

from oodream.cli.main import main
from oodream.run.artifacts import Run
from tests.helpers.runs import command, images_of


@pytest.mark.parametrize(
    ("decoder", "options"),
    [("edited", ["low=0.4"]), ("guided", ["strength=0.3"]), ("guided", ["by=feature", "k=3"])],
)
def test_images_and_rows_of_them_drawn_again(decoder, options, shapes, tiny_pipeline, tmp_path, capsys):
    run = tmp_path / "run"
    args = ["--decode.decoder", decoder, "--decode.options", *options, "--until", "images/imagined"]
    assert main(command(shapes, tiny_pipeline, run, *args)) == 0
    stored = images_of(run)
    assert len(stored) == 24
    again = tmp_path / "again"
    assert main(["decode", str(run), "--row", "4", "17", "--out", str(again)]) == 0
    for row in (4, 17):
        (original,) = (data for name, data in stored.items() if name.endswith(f"{row:06}.png"))
        assert (again / f"{row:06}.png").read_bytes() == original
    assert (run / "classifier" / "baseline-s0" / "stage.json").exists() == (decoder == "guided")
    opened = Run.open(run)
    sampled = opened.features.index_N[opened.vectors.anchor_M].tolist()
    begun = [line["anchor_index"] for line in opened.provenance]
    assert (begun == sampled) == (decoder == "guided")
    assert all(f"/{line['class']}/" in line["anchor"] for line in opened.provenance)
    assert main(["decode", str(run), "--verify"]) == 0
    assert "0 images were" in capsys.readouterr().out


def test_a_guided_shard_needs_the_baseline(shapes, tiny_pipeline, tmp_path, capsys):
    run = tmp_path / "run"
    args = ["--decode.decoder", "guided", "--until", "vectors"]
    assert main(command(shapes, tiny_pipeline, run, *args)) == 0
    assert main(["decode", str(run)]) == 2
    assert "has no classifier/baseline-s0 yet" in capsys.readouterr().err


def test_too_few_known_images_are_named_before_any_work(shapes, tiny_pipeline, tmp_path, capsys):
    args = ["--decode.decoder", "guided", "--decode.options", "by=feature", "k=1000"]
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", *args)) == 2
    assert "k is 1000, and there are" in capsys.readouterr().err
    assert not (tmp_path / "run" / "align").exists()
