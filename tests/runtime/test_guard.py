"""A guard on a graph answers as the one with PyTorch, however pictures are given; and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from oodream.core.errors import DataError, StoreError
from oodream.core.sealed import KEY as SEAL
from oodream.deploy.export import export
from oodream.runtime import Guard
from oodream.runtime.description import KEY
from oodream.runtime.pictures import squares
from tests.helpers.exported import exported
from tests.helpers.guarded import SIZE, clothes, guard

CLOSE = 1e-4


@pytest.fixture(scope="module")
def graph_guard() -> Guard:
    return Guard.load(exported()[0])


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Known garments, none of them held out, in colour and as gray arrays, and noise, of several sizes."""
    known = [x.permute(1, 2, 0).numpy() for x in clothes()[0].batch(range(60))]
    g = np.random.default_rng(0)
    noise = [g.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((9, 30), (40, 21), (12, 12))]
    large = [np.asarray(Image.fromarray(x).resize((50, 40))) for x in known[:5]]
    return [*known, *noise, *large, *(x[..., 0] for x in known[:3])]


def same(a, b) -> bool:
    """Whether two predictions are equal, numbers up to what single precision leaves open."""
    words = ("answer", "flagged", "likeliest", "candidates", "threshold")
    numbers = [(getattr(a, name), getattr(b, name)) for name in ("score", "known", "p_value")]
    return all(getattr(a, w) == getattr(b, w) for w in words) and all(
        x == pytest.approx(y, abs=CLOSE) for x, y in numbers
    )


def test_answers_are_those_of_the_guard_with_torch(graph_guard, pictures):
    mine, expected = graph_guard.predict(pictures), guard().predict(pictures)
    assert {p.answer for p in expected} >= {"unknown", *guard().names[:2]}
    assert all(p.known is not None for p in expected)
    assert all(map(same, mine, expected))
    assert graph_guard.scores(pictures).dtype == np.float64
    assert graph_guard.scores(pictures) == pytest.approx(guard().scores(pictures).numpy(), abs=CLOSE)


def test_however_a_picture_is_given_it_is_the_same(graph_guard, pictures, tmp_path):
    picture = pictures[-4]
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    expected = graph_guard.predict(picture)
    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    ways = [picture / 255, Image.fromarray(picture), path, str(path), path.read_bytes(), tensor]
    for way in (*ways, {"path": str(path)}, {"bytes": path.read_bytes()}):
        assert graph_guard.predict(way) == expected
        assert graph_guard.predict([way]) == [expected]
    batches = picture[None], tensor[None], (x for x in [path])
    assert [graph_guard.predict(batch) for batch in batches] == [[expected]] * 3


def test_a_turned_photograph_and_a_deep_one_are_read_as_with_torch(graph_guard, pictures, tmp_path):
    turned, deep = tmp_path / "turned.jpg", tmp_path / "deep.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures[-4]).save(turned, exif=exif)
    Image.fromarray((pictures[0][..., 0] * 16.0).astype(np.uint16)).save(deep)
    files = [turned, deep]
    assert all(map(same, graph_guard.predict(files), guard().predict(files)))
    pixels = [*squares(files, SIZE)]
    assert pixels[0].shape == pixels[1].shape == (SIZE, SIZE, 3)


def test_the_size_of_batches_makes_no_difference(graph_guard, pictures):
    whole = graph_guard.predict(pictures)
    for batch in (1, 7):
        assert all(map(same, graph_guard.predict(iter(pictures), batch=batch), whole))
    assert graph_guard.predict([]) == []
    with pytest.raises(ValueError, match="A batch is at least one picture, not 0"):
        graph_guard.predict(pictures, batch=0)


@pytest.mark.parametrize("alpha", [0.02, 0.3])
def test_the_rate_moves(graph_guard, pictures, alpha):
    mine, expected = graph_guard.at(alpha), guard().at(alpha)
    assert (mine.threshold, mine.guarantee) == (expected.threshold, expected.guarantee)
    assert all(map(same, mine.predict(pictures), expected.predict(pictures)))
    with pytest.raises(ValueError, match="these can guarantee"):
        graph_guard.at(1e-6)


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_sets_are_those_of_the_guard_with_torch(graph_guard, pictures, method):
    mine = graph_guard.predict_set(pictures, alpha=0.02, method=method)
    assert all(map(same, mine, guard().predict_set(pictures, alpha=0.02, method=method)))
    assert max(len(p.candidates) for p in mine) > 1


def test_drift_is_that_of_the_guard_with_torch(graph_guard, pictures):
    mine, expected = graph_guard.drift(window=20), guard().drift(window=20)
    for part in (pictures[:30], pictures[30:]):
        mine.add(graph_guard.scores(part))
        expected.add(guard().scores(part))
    assert str(mine) == str(expected)
    assert (mine.total.n, mine.latest.n) == (len(pictures), 20)
    assert str(graph_guard.drift(pictures)) == str(graph_guard.drift(graph_guard.scores(pictures).tolist()))


def test_thresholds_by_class(tmp_path, pictures):
    mine = guard("mahalanobis", alpha=0.1, per_class=True)
    export(mine, tmp_path / "g", onnx=True)
    again = Guard.load(tmp_path / "g" / "guard.onnx", threads=1)
    assert (again.threshold_C == mine.threshold_C).all()
    assert again.guarantee == mine.guarantee
    predictions = again.predict(pictures)
    assert len({p.threshold for p in predictions}) > 1
    spread = np.ptp(mine.held_out.score_N)
    for one, expected in zip(predictions, mine.predict(pictures), strict=True):
        assert (one.answer, one.threshold) == (expected.answer, expected.threshold)
        assert one.score == pytest.approx(expected.score, abs=1e-4 * spread)


# What is refused


def test_pictures_that_are_none(graph_guard, tmp_path):
    (tmp_path / "x.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"x\.jpg cannot be read"):
        graph_guard.predict(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="is a folder"):
        graph_guard.predict(tmp_path)
    with pytest.raises(DataError, match="reach from 0 to 200"):
        graph_guard.predict(np.array([[0.0, 200.0]]))


def test_places_without_a_graph(tmp_path):
    with pytest.raises(StoreError, match=r"holds no graph: neither guard\.onnx nor guard\.xml.*--onnx"):
        Guard.load(tmp_path)
    with pytest.raises(StoreError, match=r"g\.onnx does not exist"):
        Guard.load(tmp_path / "g.onnx")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"no graph: its name does not end in \.onnx or \.xml"):
        Guard.load(tmp_path / "model.pt")


def test_a_torn_graph(tmp_path):
    whole = (exported()[0] / "guard.onnx").read_bytes()
    for n in (0, 100, len(whole) // 2):
        (tmp_path / "guard.onnx").write_bytes(whole[:n])
        with pytest.raises(StoreError, match=r"guard\.onnx (cannot be run, or is damaged|does not say)"):
            Guard.load(tmp_path)


def test_a_graph_that_is_too_large_is_not_opened(tmp_path):
    with (tmp_path / "guard.onnx").open("wb") as file:
        file.truncate((2 << 30) + 1)  # a hole: it takes no room
    with pytest.raises(StoreError, match=r"has 2,147,483,649 bytes, and graphs of at most 2,147,483,648"):
        Guard.load(tmp_path)


def changed(folder, change) -> None:
    """The exported graph with another description; None takes it away."""
    model = onnx.load(exported()[0] / "guard.onnx")
    properties = {p.key: p.value for p in model.metadata_props}
    del properties[SEAL]
    text = change(json.loads(properties.pop(KEY)))
    if text is not None:
        properties[KEY] = text if isinstance(text, str) else json.dumps(text)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, folder / "guard.onnx")


def put(*path_and_value):
    """A change of one value in a description."""
    *path, last, value = path_and_value

    def change(description):
        part = description
        for key in path:
            part = part[key]
        part[last] = value
        return description

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: None, "does not say what it is.*Export it again"),
        (lambda d: "{", "is damaged, or of another version"),
        (lambda d: [], "its description lacks something"),
        (lambda d: {k: v for k, v in d.items() if k != "held_out"}, "lacks something.*held_out"),
        (put("version", 2), "version 2, and 1 is read here"),
        (put("names", []), "the names in its description cannot be"),
        (put("names", ["a", "b", "c", 4]), "the names in its description cannot be"),
        (put("names", ["a", "b", "c", "d", "e"]), "does not give logits and scores as its description says"),
        (put("size", 0), "the size in its description cannot be"),
        (put("size", 1 << 20), "the size in its description cannot be"),
        (put("size", "12"), "the size in its description cannot be"),
        (put("threshold", float("nan")), "the threshold in its description cannot be"),
        (put("threshold", "high"), "the threshold in its description cannot be"),
        (put("threshold", True), "the threshold in its description cannot be"),
        (put("threshold", 10**400), "the threshold in its description cannot be"),
        (put("names", ["a"] * 4), "the names in its description cannot be"),
        (put("guarantee", "n", "many"), "the number of held-out images in its description cannot be"),
        (put("guarantee", "too_few", ["a"]), "the classes with too few held-out images in its description"),
        (put("held_out", "likeliest_N", [10**30] * 1000), "likeliest_N in its description is no list"),
        (put("held_out", "probability_N", [7.0] * 1000), "the held-out probabilities in its description"),
        (lambda d: "[" * 100_000, "nested too deeply"),
        (put("white", -1.0), "the white in its description cannot be"),
        (put("guarantee", "alpha", 1.5), "the alpha in its description cannot be"),
        (put("guarantee", "confidence", 0), "the confidence in its description cannot be"),
        (put("guarantee", "promise", 1), "lacks something.*promise"),
        (put("held_out", "score_N", [0.0]), "the held-out images in its description cannot be"),
        (put("held_out", "score_N", [[0.0]]), "score_N in its description is no list of numbers"),
        (put("held_out", "score_N", [1.0 - i for i in range(1000)]), "the held-out scores in its"),
        (put("held_out", "likeliest_N", [9] * 1000), "the held-out classes in its description"),
        (put("held_out", "likeliest_N", ["a"] * 1000), "is damaged, or of another version"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be(tmp_path, change, message):
    changed(tmp_path, change)
    with pytest.raises(StoreError, match=message):
        Guard.load(tmp_path)


def test_a_description_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("oodream.runtime.description.MAX_TEXT", 1000)
    with pytest.raises(StoreError, match="its description has more than 1,000 characters"):
        Guard.load(exported()[0])


def test_the_program_that_runs_a_graph_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"guard\.onnx needs onnxruntime: pip install onnxruntime"):
        Guard.load(exported()[0])
    monkeypatch.setitem(sys.modules, "openvino", None)
    shutil.copy(exported()[0] / "guard.onnx", tmp_path / "guard.xml")
    with pytest.raises(ImportError, match=r"guard\.xml needs openvino: pip install openvino"):
        Guard.load(tmp_path)
