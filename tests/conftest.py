"""Shared fixtures: a real, tiny Stable Diffusion with random weights, and small labelled image folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# One thread for each of several test processes, also in the programs that tests start; waiting threads sleep.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import numpy as np
import pytest
import torch
from hypothesis import settings

from oodream.cli.main import main
from tests.helpers.bucket import bucket
from tests.helpers.runs import command
from tests.helpers.tiny import NAMES, draw, save_tiny_pipeline, save_tiny_xl_pipeline

# Beside other work, an example may take any time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw without a generator of their own draw the same each time, in any order."""
    torch.manual_seed(0)


@pytest.fixture
def no_preview(monkeypatch) -> None:
    """A dry run prints the options and looks at no data, for tests of options without data."""
    for name in (
        "run.preview.preview",
        "run.arms.check_inputs",
        "run.arms.check_options",
        "run.guard.check_guard",
    ):
        monkeypatch.setattr(f"oodream.{name}", lambda *_, **__: None)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes this process that of another machine."""
    return lambda name: monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / name))


@pytest.fixture
def s3(monkeypatch, tmp_path) -> Iterator[str]:
    """The URL of a new bucket on a server of S3's kind; copies are kept in the folder `cache` of tmp_path."""
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "cache"))
    with bucket("s3", monkeypatch) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="session")
def tiny_xl_pipeline(tmp_path_factory) -> Path:
    return save_tiny_xl_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny-xl")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A folder of three class folders with 20 images each; copy it to change it."""
    folder, g = tmp_path_factory.mktemp("data") / "shapes", np.random.default_rng(0)
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for i in range(20):
            draw(name, 32, g).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def finished(shapes, tiny_pipeline, tmp_path_factory) -> Path:
    """A small whole run that nothing disturbed, for all tests that only read one; copy it to change it."""
    run = tmp_path_factory.mktemp("runs") / "calm"
    assert main(command(shapes, tiny_pipeline, run)) == 0
    return run


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the same run, to change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def sampled(copied) -> Path:
    """The same run before any image was decoded."""
    shutil.rmtree(copied / "images")
    return copied
