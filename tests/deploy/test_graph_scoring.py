"""Guards on graphs score files, folders and batches where PyTorch is not installed, as the guard in PyTorch
does.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from oodream.cli.main import main
from oodream.core.errors import StoreError
from oodream.core.options import ConfigError
from oodream.deploy.batch import COLUMNS, GuardMap
from oodream.deploy.resumed import score_to
from oodream.deploy.tables import JsonLines, read_part
from oodream.runtime import Guard as GraphGuard
from tests.helpers.exported import exported
from tests.helpers.guarded import clothes, encoded, guard
from tests.helpers.without_torch import RUNTIME, SCORER, interpreter

N, DAMAGED = 12, 5
FOREIGN = "torch scipy sklearn safetensors datasets pandas pyarrow huggingface_hub transformers".split()
COMMAND = f"""
import sys
from oodream.cli.main import main

code = main()
print(sorted({{*{FOREIGN}}} & {{*sys.modules}}), file=sys.stderr)
sys.exit(code)
"""
MAPPED = f"""
import json, pickle, sys
import numpy as np
from oodream import GuardMap

folder, pictures = sys.argv[1:]
score = pickle.loads(pickle.dumps(GuardMap(folder=folder, alpha=0.2)))
columns = score({{"image": [*np.load(pictures), b"no picture"]}})
columns = {{name: column.tolist() for name, column in columns.items()}}
print(json.dumps([columns, sorted({{*{FOREIGN}}} & {{*sys.modules}})]))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Some garments, of which one is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for row, data in enumerate(encoded(N, {DAMAGED})):
        (folder / f"{row:03}.png").write_bytes(data)
    return folder


def run(code: str, packages: tuple[str, ...], *args: object) -> subprocess.CompletedProcess[str]:
    command = [*interpreter(code, packages), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def check(rows: list[dict], photos: Path, alpha: float) -> None:
    """The rows are what the guard in PyTorch says of the pictures."""
    assert [row["file"] for row in rows] == [str(photos / f"{row:03}.png") for row in range(N)]
    for row, expected in zip(rows, guard().at(alpha).predict(clothes()[1].batch(range(N))), strict=True):
        if row["file"].endswith(f"{DAMAGED:03}.png"):
            assert "cannot identify image file" in row["error"]
            continue
        assert (row["answer"], row["flagged"], row["likeliest"]) == (
            expected.answer, expected.flagged, expected.likeliest,
        )  # fmt: skip
        assert row["threshold"] == expected.threshold
        assert row["score"] == pytest.approx(expected.score, abs=1e-4)
        assert row["p_value"] == pytest.approx(expected.p_value, abs=2e-3)  # a rank or two of 1,001


@pytest.mark.parametrize("place", ["", "guard.onnx"])
def test_a_table_of_a_folder(place, photos, tmp_path):
    out = tmp_path / "answers.jsonl"
    done = run(
        COMMAND, SCORER, "score", photos, "--run", exported()[0] / place, "--alpha", "0.2", "--out", out
    )
    assert done.returncode == 2, done.stderr
    assert "1 picture cannot be read" in done.stderr
    assert done.stderr.endswith("[]\n")  # nothing else was imported
    assert done.stdout.startswith(f"{out}: {N} pictures, ")
    check(read_part(JsonLines(), out), photos, 0.2)


def test_a_line_for_each_picture(photos):
    file = photos / "000.png"
    done = run(COMMAND, SCORER, "score", file, "--run", exported()[0], "--json")
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert json.loads(done.stdout)["answer"] == guard().predict(file).answer


def test_parquet_without_its_package_is_refused_before_anything(photos, tmp_path):
    out = tmp_path / "answers.parquet"
    done = run(COMMAND, SCORER, "score", photos, "--run", exported()[0], "--out", out)
    assert done.returncode == 2
    assert "Parquet needs pyarrow, which is not installed: pip install pyarrow" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_function_of_batches(tmp_path):
    pixels = clothes()[1].batch(range(N)).permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "pictures.npy", pixels)
    done = run(MAPPED, RUNTIME, exported()[0], tmp_path / "pictures.npy")
    assert done.returncode == 0, done.stderr
    columns, foreign = json.loads(done.stdout)
    assert foreign == []
    expected = guard().at(0.2).predict(pixels)
    assert columns["answer"] == [*(one.answer for one in expected), ""]
    assert columns["score"][:-1] == pytest.approx([one.score for one in expected], abs=1e-4)
    assert "cannot be read" in columns["error"][-1]


def test_a_graphs_file_is_asked_as_a_graph_where_pytorch_is():
    file = exported()[0] / "guard-int8.onnx"
    score, pixels = GuardMap(folder=file), clothes()[1].batch(range(N)).permute(0, 2, 3, 1).numpy()
    columns = pickle.loads(pickle.dumps(score))({"image": pixels})
    assert columns.keys() == COLUMNS.keys()
    expected = GraphGuard.load(file).predict(pixels)
    assert columns["answer"].tolist() == [one.answer for one in expected]
    assert columns["score"].tolist() == [one.score for one in expected]
    with pytest.raises(ConfigError, match="A graph runs on the processor, so --device cuda cannot be"):
        GuardMap(folder=file, device="cuda")


def test_the_command_takes_a_graphs_file(photos, tmp_path, capsys):
    file, out = exported()[0] / "guard.onnx", tmp_path / "answers.jsonl"
    assert main(["score", str(photos), "--run", str(file), "--out", str(out)]) == 2
    check(read_part(JsonLines(), out), photos, guard().guarantee.alpha)
    assert main(["score", str(photos), "--run", str(file), "--device", "cuda"]) == 2
    assert "A graph runs on the processor" in capsys.readouterr().err


def test_another_graph_in_its_place_is_refused(photos, tmp_path):
    file = tmp_path / "guard.onnx"
    shutil.copy(exported()[0] / "guard.onnx", file)
    score = pickle.dumps(GuardMap(folder=file))
    shutil.copy(exported()[0] / "guard-int8.onnx", file)
    with pytest.raises(StoreError, match="not the one that this job was begun with"):
        pickle.loads(score)({"image": [photos / "000.png"]})


def test_a_table_that_a_graph_began_is_no_other_graphs(photos, tmp_path, monkeypatch):
    from oodream.deploy import resumed

    folder, out = exported()[0], tmp_path / "answers.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(resumed.shutil, "rmtree", lambda folder: None)
        score_to(out, [str(photos)], GraphGuard.load(folder))
    with pytest.raises(StoreError, match="was begun with another guard"):
        score_to(out, [str(photos)], GraphGuard.load(folder / "guard-int8.onnx"))
    with pytest.raises(StoreError, match=r"another alpha \(0\.05, and now 0\.2\)"):
        score_to(out, [str(photos)], GraphGuard.load(folder).at(0.2))


@pytest.mark.parametrize(
    ("packages", "args", "lacking"),
    [(RUNTIME, ("score", "a.png", "--run", "guard.onnx"), "tyro"), (SCORER, ("audit", "run"), "torch")],
)
def test_a_package_that_is_missing_is_named_in_one_line(packages, args, lacking):
    done = run("import sys\nfrom oodream.cli.entry import main\nsys.exit(main())", packages, *args)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"oodream: This command needs {lacking}, which is not installed: pip install "
    )
    assert done.stderr.count("\n") == 1
