"""Pictures that threads read ahead: every answer at its place, and never many pictures at once."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.cli.main import main
from oodream.deploy import scoring
from oodream.deploy.scoring import answers, answers_to, read_or_why
from oodream.run.layout import FORMAT
from oodream.runtime.answers import Prediction
from tests.helpers.guarded import SIZE, clothes, guard


def encoded(row: int) -> BytesIO:
    buffer = BytesIO()
    Image.fromarray(clothes()[1].batch([row])[0].permute(1, 2, 0).numpy()).save(buffer, "png")
    return buffer


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_every_answer_is_at_its_place(batch, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", batch)
    expected = guard().predict(clothes()[1].subset(torch.arange(40)))
    sources = [(f"{row}", encoded(row)) for row in range(40)]
    for row in (0, 6, 39):
        sources[row] = f"{row}", BytesIO(b"no picture")
    sources[20] = "20", Path("gone.png")
    found = list(answers(guard(), iter(sources)))
    assert [name for name, _ in found] == [str(row) for row in range(40)]
    for row, (_, answer) in enumerate(found):
        if row in (0, 6, 39):
            assert "cannot identify image file" in answer
        elif row == 20:
            assert "No such file" in answer
        else:
            assert answer.score == pytest.approx(expected[row].score, rel=1e-5)
            assert answer.likeliest == expected[row].likeliest


@pytest.mark.parametrize("all_of_them", [True, False])
def test_deep_pictures_without_a_scale_are_counted(all_of_them):
    """Once, whether or not whoever asks comes to the end of the answers."""
    sources = [("flat", encoded(0)), ("broken", BytesIO(b"no picture"))]
    for row in range(3):
        buffer = BytesIO()
        Image.fromarray(np.full((SIZE, SIZE), 3000 + row, np.uint16)).save(buffer, "png")
        sources.append((f"deep{row}", buffer))
    stream = answers(guard(), sources)
    taken = list(islice(stream, 5))
    with pytest.warns(UserWarning, match=r"^Of the pictures 3 have more than 8 bits") as warned:
        next(stream, None) if all_of_them else stream.close()
    assert len(taken) == 5
    assert len(warned) == 1
    made_of_deep = replace(guard(), classifier=replace(guard().classifier, white=4095.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(answers(made_of_deep, sources))) == 5


def test_a_batch_without_a_picture_asks_no_network():
    assert answers_to(guard(), ["damaged", "gone"]) == ["damaged", "gone"]
    ((name, answer),) = answers(guard(), [("a", BytesIO(b""))])
    assert (name, type(answer)) == ("a", str)
    assert list(answers(guard(), [])) == []


def test_few_pictures_are_read_ahead(monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 4)
    asked = []

    def sources():
        for row in range(60):
            asked.append(row)
            yield str(row), encoded(row)

    stream = answers(guard(), sources())
    for taken in range(1, 30):
        next(stream)
        assert len(asked) <= taken + 4 * (scoring.AHEAD + 1)
    stream.close()
    assert len(asked) < 60


def test_large_pictures_come_in_small_batches(monkeypatch):
    sizes = []
    monkeypatch.setattr(scoring, "PIXELS", 5 * 3 * SIZE**2)
    monkeypatch.setattr(
        scoring, "answers_to", lambda _, squares: sizes.append(len(squares)) or ["x"] * len(squares)
    )
    assert len(list(answers(guard(), [(str(row), encoded(row)) for row in range(7)]))) == 7
    assert sizes == [4, 3]


def test_a_picture_is_read_as_the_guard_reads_it_or_says_why_not():
    square = read_or_why(encoded(3).getvalue(), SIZE, 0.0)
    assert torch.equal(torch.from_numpy(square).permute(2, 0, 1), clothes()[1].batch([3])[0])
    assert "cannot be read" in read_or_why(b"no", SIZE, 0.0)
    assert "no picture" in read_or_why(3, SIZE, 0.0)
    (answer,) = answers_to(guard(), [square])
    assert isinstance(answer, Prediction)


@pytest.mark.parametrize("args", [["score", "x.png", "--run"], ["export", "--out", "y"], ["serve"]])
def test_a_mistyped_folder_is_said_to_be_missing(args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    assert main([*args, "runs/photo"]) == 2
    assert "There is no folder runs/photo. Did you mean runs/photos?" in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_said_to_be_so(tmp_path, capsys):
    stages = ["classes", "classifier/regularized-s0"]
    command = "oodream run --until align --data photos"
    manifest = {"format": FORMAT, "command": command, "config": {}, "stages": stages}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert main(["score", "x.png", "--run", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} is not finished: its classifier/regularized-s0 is not trained yet" in said
    assert "It goes on with: oodream run --data photos" in said
    assert main(["score", "x.png", "--run", str(tmp_path), "--classifier", "other"]) == 2
    assert f"{tmp_path} holds no classifier" in capsys.readouterr().err
