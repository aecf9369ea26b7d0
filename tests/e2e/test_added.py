"""Outliers that a person has drawn: training takes them, the report shows them, and without them all is as it
was.
"""

from __future__ import annotations

import torch

from oodream.cli.main import main
from oodream.core.files import read_json
from oodream.run.added import remove_picture
from oodream.run.artifacts import Run
from oodream.run.imagine import End, Move, Recipe, add_drawing, draw
from oodream.run.job import Job
from oodream.run.redraw import open_decoder
from oodream.run.sources import sources
from tests.helpers.runs import command

STAGE = "classifier/regularized-s0"


def test_an_added_outlier_is_trained_with_and_leaves_no_trace_when_removed(
    finished, copied, shapes, tiny_pipeline, capsys
):
    run, before = Run.open(copied), read_json(copied / STAGE / "stage.json")["inputs"]
    recipe = Recipe(
        name="star", start=End(kind="class", value="star"), moves=(Move(share=0.5, seed=1),), steps=2
    )
    drawing = draw(recipe, run, open_decoder(run, "cpu"))
    add_drawing(drawing, run)

    assert main(command(shapes, tiny_pipeline, copied)) == 0
    said = capsys.readouterr().out
    assert "classifier/baseline-s0   done before" in said
    assert "outliers 25, added 1" in said
    source = sources(Job(Run.open(copied).config, copied))[-1]
    assert source.data.labels[-1] == 2
    pixels = source.data.batch([24])[0].permute(1, 2, 0).contiguous().numpy().tobytes()
    added = Run.open(copied).added.images.batch([0])[0].permute(1, 2, 0).contiguous().numpy().tobytes()
    assert pixels == added
    assert torch.allclose(source.vectors[-1], drawing.vector_D, atol=1e-6)
    page = (copied / "report" / "index.html").read_text()
    assert "Added by a person" in page
    assert "added 1: star" in page

    remove_picture(run.layout.added, 1)
    assert main(command(shapes, tiny_pipeline, copied)) == 0
    assert read_json(copied / STAGE / "stage.json")["inputs"] == before
    for name in ("model.safetensors", "log.json"):
        assert (copied / STAGE / name).read_bytes() == (finished / STAGE / name).read_bytes()
    assert "Added by a person" not in (copied / "report" / "index.html").read_text()
