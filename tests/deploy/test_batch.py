"""A guard as a function of batches: the guard's answers, whatever framework hands pictures out, however often
it is pickled.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from oodream.core.errors import StoreError
from oodream.deploy.batch import COLUMNS, GuardMap
from tests.helpers.guarded import clothes, encoded, guard

N = 30


def pixels() -> np.ndarray:
    return clothes()[1].batch(range(N)).permute(0, 2, 3, 1).numpy()


def check(columns, alpha: float | None = None, rows=range(N)) -> None:
    """The columns are what the guard says of these of the pictures."""
    mine = guard() if alpha is None else guard().at(alpha)
    predictions = [mine.predict(pixels())[row] for row in rows]
    for name in ("answer", "flagged", "likeliest"):
        assert list(columns[name]) == [getattr(p, name) for p in predictions]
    for name in ("score", "threshold", "probability", "known", "p_value"):
        expected = [getattr(p, name) for p in predictions]
        assert list(columns[name]) == pytest.approx(expected, rel=1e-4, abs=2e-3), name
    assert set(columns["error"]) == {""}


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_however_pictures_are_given(guard_folder, alpha, tmp_path):
    score = GuardMap(folder=guard_folder, alpha=alpha)
    files = [tmp_path / f"{i}.png" for i in range(N)]
    for file, data in zip(files, encoded(N), strict=True):
        file.write_bytes(data)
    objects = np.empty(N, dtype=object)
    objects[:] = encoded(N)
    for pictures in (
        pixels(), list(pixels()), encoded(N), objects, np.array([str(file) for file in files]),
        [{"bytes": data, "path": None} for data in encoded(N)], [Image.fromarray(p) for p in pixels()],
        torch.from_numpy(pixels().transpose(0, 3, 1, 2)),
    ):  # fmt: skip
        columns = score({"image": pictures, "id": np.arange(N)})
        assert list(columns) == list(COLUMNS)
        assert {column.shape for column in columns.values()} == {(N,)}
        check(columns, alpha)


def test_gray_pictures_in_one_array_are_several(guard_folder):
    gray = pixels()[..., 0]
    assert list(GuardMap(folder=guard_folder)({"image": gray})["score"]) == pytest.approx(
        [p.score for p in guard().predict(list(gray))], rel=1e-4
    )


def test_other_columns_are_handed_through(guard_folder):
    score = GuardMap(folder=guard_folder, column="photo", keep=("id", "name"))
    batch = {"photo": pixels(), "id": np.arange(N), "name": [f"n{i}" for i in range(N)], "score": [9.0] * N}
    columns = score(batch)
    assert columns["id"].tolist() == list(range(N))
    assert columns["name"].tolist() == batch["name"]
    check(columns)


def test_what_cannot_be_read_says_why_and_keeps_its_place(guard_folder):
    pictures = [
        *encoded(N)[:4],
        b"no",
        None,
        "gone.png",
        {"label": 3},
        np.zeros((4, 4, 2), np.uint8),
        *encoded(N)[4:6],
    ]
    columns = GuardMap(folder=guard_folder)({"image": pictures})
    errors = columns["error"].tolist()
    assert [bool(error) for error in errors] == [False] * 4 + [True] * 5 + [False] * 2
    assert "cannot be read" in errors[4]
    assert "gone.png cannot be read" in errors[6]
    assert np.isnan(columns["score"]).tolist() == [bool(error) for error in errors]
    assert not columns["flagged"][4:9].any()
    whole = {name: np.delete(values, range(4, 9)) for name, values in columns.items()}
    check(whole, rows=range(6))
    empty = GuardMap(folder=guard_folder)({"image": [b"no"]})
    assert {name: values.dtype.kind for name, values in empty.items()} == {
        name: values.dtype.kind for name, values in columns.items()
    }


def test_it_is_pickled_by_name_and_loaded_where_it_is_used(guard_folder, tmp_path):
    score = GuardMap(folder=guard_folder)
    data = pickle.dumps(score)
    assert len(data) < 1000
    score({"image": pixels()[:1]})
    assert pickle.dumps(score) == data, "frameworks hash what they pickle"
    assert pickle.dumps(GuardMap(folder=guard_folder)) == data
    np.save(tmp_path / "pixels.npy", pixels())
    code = """
import pickle, sys
import numpy as np
score = pickle.loads(bytes.fromhex(sys.argv[1]))
print(repr(score({"image": np.load("pixels.npy")})["score"].tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, data.hex()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert eval(done.stdout) == pytest.approx([p.score for p in guard().predict(pixels())], rel=1e-4)


def test_another_guard_in_its_place_is_refused(tmp_path):
    guard().save(tmp_path)
    score = pickle.dumps(GuardMap(folder=tmp_path))
    guard().at(0.4).save(tmp_path)
    with pytest.raises(StoreError, match="is not the one that this job was begun with"):
        pickle.loads(score)({"image": pixels()})
    check(GuardMap(folder=tmp_path)({"image": pixels()}), 0.4)


def test_what_is_wrong_is_said_before_any_work(guard_folder, tmp_path):
    with pytest.raises(StoreError, match="There is no folder"):
        GuardMap(folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"these can guarantee 0\.003"):
        GuardMap(folder=guard_folder, alpha=0.001)


def test_a_folder_is_found_from_any_directory(guard_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(guard_folder.parent)
    score = GuardMap(folder=guard_folder.name)
    monkeypatch.chdir(tmp_path)
    check(pickle.loads(pickle.dumps(score))({"image": pixels()}))


# Frameworks


def test_a_table_of_pandas_as_spark_hands_it_out(guard_folder):
    """The body of `mapInPandas` and of a pandas function."""
    score = GuardMap(folder=guard_folder, keep=("id",))
    table = pd.DataFrame({"id": range(N), "image": encoded(N)}, index=range(100, 100 + N))
    answers = pd.DataFrame(score(table))
    assert answers["id"].tolist() == list(range(N))
    check(answers)


@pytest.mark.parametrize("processes", [None, 2])
def test_datasets_map(guard_folder, processes, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = [{"bytes": data, "path": None} for data in encoded(N)]
    rows[7] = {"bytes": b"no picture", "path": None}
    features = datasets.Features({"id": datasets.Value("int64"), "image": datasets.Image(decode=False)})
    data = datasets.Dataset.from_dict({"id": list(range(N)), "image": rows}, features=features)
    data.save_to_disk(tmp_path / "data")
    data = datasets.load_from_disk(tmp_path / "data")
    scored = data.map(GuardMap(folder=guard_folder), batched=True, batch_size=7, num_proc=processes)
    assert set(scored.column_names) == {"id", "image", *COLUMNS}
    assert scored["id"][:] == list(range(N))
    assert [bool(error) for error in scored["error"]] == [i == 7 for i in range(N)]
    whole = scored.filter(lambda row: not row["error"])
    check({name: whole[name][:] for name in COLUMNS}, rows=[i for i in range(N) if i != 7])
    assert scored.features["score"].dtype == "float64"
    assert scored.features["error"].dtype == "string"


def test_datasets_map_decoded_pictures_and_knows_its_results_again(guard_folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict({"image": [Image.fromarray(p) for p in pixels()]})
    data.save_to_disk(tmp_path / "data")
    data = datasets.load_from_disk(tmp_path / "data")
    scored, again = (data.map(GuardMap(folder=guard_folder), batched=True) for _ in range(2))
    check({name: scored[name][:] for name in COLUMNS})
    moved = data.map(GuardMap(folder=guard_folder, alpha=0.3), batched=True)
    assert scored.cache_files == again.cache_files != moved.cache_files
