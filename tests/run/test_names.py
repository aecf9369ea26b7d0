"""Outliers with names: from the words that vectors are drawn by to what a training shows its losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from oodream.cli.main import main
from oodream.run.artifacts import Run
from oodream.run.job import Job
from oodream.run.sources import kept_rows, sources
from oodream.training.sources import source_of
from tests.helpers.runs import command

WORDS = ["--sample.sampler", "words", "--sample.options", "words=moon,river", "cosine=1.0"]
NAMED = ["--regularize.loss", "extra_class", "--regularize.loss-options", "named=true"]


def names_of(run: Run, **changed: object) -> torch.Tensor:
    outliers = source_of(sources(Job(replace(run.config, **changed), run.folder.path)), "outlier")
    assert outliers is not None
    return outliers.named


def test_words_are_names_and_folders_are_those_of_real_outliers(
    shapes: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    line = command(shapes, tiny_pipeline, folder, *WORDS, *NAMED)
    knn = line.index("--sample.options")
    assert main([*line[:knn], *line[knn + 3 :]]) == 0
    run = Run.open(folder)
    rows, z_MD = kept_rows(run), run.vectors.z_MD
    same = torch.isclose(z_MD[rows] @ z_MD[rows].T, torch.ones(()), atol=1e-4)
    names = names_of(run)
    assert torch.equal(same, names[:, None] == names), "a name for each word, and no other"
    assert set(names.tolist()) == {0, 1}
    real = replace(run.config.regularize, outliers="real", real=str(tmp_path / "others"))
    for i, name in enumerate(("fox", "lynx")):
        (tmp_path / "others" / name).mkdir(parents=True, exist_ok=True)
        for file in sorted((shapes / "circle").iterdir())[: 2 + i]:
            (tmp_path / "others" / name / file.name).write_bytes(file.read_bytes())
    assert names_of(run, regularize=real).tolist() == [0, 0, 1, 1, 1]
