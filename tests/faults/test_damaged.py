"""Every kind of file of a finished run and of a guard, cut short and with a flipped bit, is named.

The files are those that are there, so a new kind that no check covers fails here.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from oodream.core.errors import StoreError
from oodream.core.tensors import kept_tensors
from oodream.run.artifacts import Run
from oodream.run.folder import RunDir, read_manifest
from tests.faults.campaigns import damaged, one_of_each_kind
from tests.faults.parts import torch_guards

READERS: dict[str, Callable[[Run], object]] = {
    "classes/classes.json": lambda run: run.book,
    "classes/tokens.safetensors": lambda run: run.book,
    "align/encoder.safetensors": lambda run: run.encoder,
    "features/features.safetensors": lambda run: run.features,
    "vectors/vectors.safetensors": lambda run: run.vectors,
    "images/imagined/metadata.jsonl": lambda run: run.provenance,
    "images/imagined/circle-0/000000.png": lambda run: run.images,
    "images/reconstructed/reconstructed-train.safetensors": lambda run: run.reconstructed("train"),
    "images/control/reconstructed-test.safetensors": lambda run: run.reconstructed("test"),
    "filter/keep.safetensors": lambda run: run.keep_mask,
    "filter/stage.json": lambda run: run.drop_reasons,
    "strips/samples.safetensors": lambda run: run.samples,
    "strips/strips.safetensors": lambda run: run.strips,
    "classifier/baseline-s0/classifier.json": lambda run: run.classifier("baseline"),
    "classifier/regularized-s0/model.safetensors": lambda run: run.classifier(),
    "scores/baseline-s0-energy.safetensors": lambda run: run.scores("baseline"),
    "results.jsonl": lambda run: run.rows(),
    "shift/accuracy.jsonl": lambda run: run.shift_rows(),
    "audit/audit.json": lambda run: run.audit(),
    "run.json": lambda run: Run.open(run.folder.path),
}


def check(run: Path) -> None:
    """What the command of a run looks at before any work."""
    read_manifest(run)
    folder = RunDir(run)
    for stage in [mark.parent.relative_to(run).as_posix() for mark in run.rglob("stage.json")]:
        folder.check_whole(stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", refuse)
        for file in (run / "cache").glob("*"):
            kept_tensors(file)


def refuse(message: str, **_: object) -> None:
    raise StoreError(message)


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Path:
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("damaged") / "run"))


def test_the_command_of_a_run_names_every_damaged_file(finished, copied):
    check(copied)
    g, names = random.Random(0), one_of_each_kind(finished)
    assert len(names) > 30
    unnoticed = []
    for name in names:
        whole = (finished / name).read_bytes()
        for how in ("cut", "flipped") if whole else ():
            (copied / name).write_bytes(damaged(whole, how, g))
            try:
                check(copied)
                unnoticed.append((name, how))
            except StoreError as error:
                unnoticed += [] if Path(name).name in str(error) else [(name, f"{how}, not named")]
        (copied / name).write_bytes(whole)
    assert unnoticed == []
    check(copied)


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_a_flipped_bit_for_right(name, copied):
    file = copied / name
    whole = file.read_bytes()
    READERS[name](Run.open(copied))
    run = Run.open(copied)
    try:
        file.write_bytes(damaged(whole, "flipped", random.Random(name)))
        with pytest.raises(StoreError, match=re.escape(file.name)):
            READERS[name](run)
    finally:
        file.write_bytes(whole)


def test_every_damaged_file_of_a_guard_is_named(tmp_path):
    rows = list(torch_guards(tmp_path, 0))
    assert {row["file"] for row in rows} >= {"config.json", "guard.safetensors", "model.safetensors"}
    assert [row for row in rows if not row["good"]] == []
