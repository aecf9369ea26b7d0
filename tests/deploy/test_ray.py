"""A guard on a local cluster of Ray: every picture is answered in order, though a worker is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from oodream.deploy.batch import GuardMap
from tests.helpers.guarded import clothes, encoded, guard

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytestmark = pytest.mark.slow
N, BATCH, DAMAGED = 96, 8, 41


@pytest.fixture(scope="module")
def cluster():
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    }
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20,
        runtime_env={"env_vars": environment},
    )  # fmt: skip
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def rows():
    return [{"id": i, "image": data} for i, data in enumerate(encoded(N, {DAMAGED}))]


class Mortal(GuardMap):
    """Its process is killed at the first sight of the picture in the middle; a file remembers that."""

    def __call__(self, batch):
        mark = Path(self.folder) / "killed"
        if N // 2 in batch["id"] and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


@pytest.mark.parametrize("actors", [False, True])
def test_a_worker_killed_in_the_middle_costs_no_answer(actors, cluster, rows, guard_folder):
    (guard_folder / "killed").unlink(missing_ok=True)
    data = ray.data.from_items(rows, override_num_blocks=6)
    options = {"batch_size": BATCH}
    if actors:
        options |= {"fn_constructor_kwargs": {"folder": str(guard_folder), "keep": ("id",)}, "concurrency": 2}
        scored = data.map_batches(Mortal, **options)
    else:
        scored = data.map_batches(Mortal(folder=guard_folder, keep=("id",)), **options)
    answers = scored.take_all()
    assert (guard_folder / "killed").exists()
    assert [row["id"] for row in answers] == list(range(N))
    predictions = guard().predict(clothes()[1].subset(np.arange(N)))
    for i, (row, prediction) in enumerate(zip(answers, predictions, strict=True)):
        if i == DAMAGED:
            assert "cannot be read" in row["error"]
            assert np.isnan(row["score"])
        else:
            assert row["score"] == pytest.approx(prediction.score, rel=1e-4)
            assert (row["answer"], row["error"]) == (prediction.answer, "")


def test_arrays_of_pixels(cluster, guard_folder):
    """As `ray.data.read_images` gives them."""
    pixels = clothes()[1].batch(range(20)).permute(0, 2, 3, 1).numpy()
    data = ray.data.from_numpy(pixels)
    answers = data.map_batches(GuardMap(folder=guard_folder, column="data"), batch_size=7).take_all()
    assert [row["score"] for row in answers] == pytest.approx(
        [prediction.score for prediction in guard().predict(pixels)], rel=1e-4
    )
