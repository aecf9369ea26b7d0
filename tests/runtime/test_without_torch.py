"""Guards answer in a process that can import nothing but onnxruntime, NumPy and Pillow."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.helpers.exported import exported
from tests.helpers.guarded import clothes, guard
from tests.helpers.without_torch import interpreter

WORK = """
import sys
import json
import numpy as np
from dataclasses import asdict
from pathlib import Path
from PIL import Image
from oodream.runtime import Guard

folder, room = sys.argv[1], Path(sys.argv[2])
guard = Guard.load(folder)
pictures = np.load(room / "pictures.npy")
drift = guard.drift(window=50).add(guard.scores(pictures))
by_class = guard.predict_set(pictures[:5], alpha=0.02)
file = room / "x.png"
ways = [file, file.read_bytes(), Image.open(file), np.asarray(Image.open(file))]
answer = {
    "predictions": [asdict(one) for one in guard.predict(pictures)],
    "drift": str(drift),
    "sets": [list(one.candidates) for one in by_class],
    "ways": [guard.predict(way).score for way in ways],
    "at": guard.at(0.3).threshold,
    "int8": Guard.load(Path(folder) / "guard-int8.onnx").predict(file).answer,
    "files": [str(f) for f in __import__("oodream.data.scan", fromlist=["scan"]).image_files(room)],
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}
print(json.dumps(answer))
"""


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*interpreter(code), *args], capture_output=True, text=True, timeout=120)


def test_other_packages_are_not_there():
    done = python("import oodream.deploy.guard")
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr


def test_everything_works_and_gives_equal_answers(tmp_path):
    pictures = clothes()[0].batch(range(80)).permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "pictures.npy", pictures)
    file = tmp_path / "x.png"
    Image.fromarray(pictures[3]).resize((31, 40)).save(file)
    done = python(WORK, str(exported()[0]), str(tmp_path))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    expected = guard().predict(pictures)
    for one, other in zip(answer["predictions"], expected, strict=True):
        assert (one["answer"], one["flagged"], one["likeliest"], one["threshold"]) == (
            other.answer, other.flagged, other.likeliest, other.threshold,
        )  # fmt: skip
        for name in ("score", "known", "p_value"):
            assert one[name] == pytest.approx(getattr(other, name), abs=1e-4)
    assert answer["drift"] == str(guard().drift(window=50).add(guard().scores(pictures)))
    assert answer["sets"] == [list(one.candidates) for one in guard().predict_set(pictures[:5], alpha=0.02)]
    assert answer["ways"] == pytest.approx([guard().predict(file).score] * 4, abs=1e-4)
    assert answer["at"] == guard().at(0.3).threshold
    assert answer["int8"] in {*guard().names, "unknown"}
    assert answer["files"] == [str(file)]
    foreign = {name for name in answer["modules"] if name not in sys.stdlib_module_names}
    assert foreign & {"torch", "scipy", "sklearn", "safetensors", "diffusers", "onnx"} == set()
