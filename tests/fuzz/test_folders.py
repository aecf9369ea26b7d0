"""Folders that somebody hands over, of guards and of runs: they reach nothing and run nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from oodream.core.errors import DataError, StoreError
from oodream.core.files import read_json, write_json
from oodream.core.results import row_from_json, shift_row_from_json
from oodream.core.tensors import load_tensors, save_tensors
from oodream.data.classes import check_name
from oodream.deploy.guard import Guard
from oodream.deploy.resumed import score_to
from oodream.deploy.tables import JsonLines, read_part
from oodream.models.classifier import load_classifier
from oodream.models.opened import full_name
from oodream.models.serialized import Onnx
from oodream.run.artifacts import Run
from oodream.run.generated import slug
from oodream.run.process import recorded
from oodream.studio.jobs import resumed
from tests.helpers.rows import control_row
from tests.helpers.studio import imagined_run

from .small import classifier, guard


def put(folder: Path, name: str, *path: str | int, value: object) -> None:
    """Puts a value into a file of JSON."""
    values = part = read_json(folder / name)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (folder / name).write_text(json.dumps(values))


# Guards


@pytest.fixture
def handed(tmp_path) -> Path:
    guard().save(tmp_path / "guard")
    return tmp_path / "guard"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("threshold",), float("nan"), "the threshold in its description cannot be"),
        (("threshold",), float("inf"), "the threshold in its description cannot be"),
        (("threshold",), "0", "the threshold in its description cannot be"),
        (("guarantee", "alpha"), 7, "the alpha in its description cannot be"),
        (("guarantee", "n"), 10**6, "the number of held-out images"),
        (("guarantee", "too_few"), {"cow": 3}, "the classes with too few held-out images"),
        (("classifier", "names"), ["cat", "cat", "dog"], "its 'names' is"),
        (("classifier", "names"), "cat", "its 'names' is 'cat'"),
        (("classifier", "size"), 1 << 40, "its 'size' is"),
        (("classifier", "size"), True, "its 'size' is True"),
        (("classifier", "white"), float("nan"), "its 'white' is nan"),
        (("classifier", "loss"), ["kd"], "its 'loss' is"),
        (("classifier", "loss"), "os:system", "names the plug-in 'os:system'"),
        (("classifier", "backbone"), "torchscript:net.pt", "names the plug-in 'torchscript:net.pt'"),
        (("classifier", "backbone"), "evil.module:make", "names the plug-in"),
        (("classifier", "loss_options"), {"beta": "x" * 10_000}, "beta"),
        (("detector", "name"), "evil:Detector", "names the plug-in"),
        (("detector", "options"), {"no": 1}, "has no option 'no'"),
        (("detector", "options"), [1], "damaged"),
    ],
)
def test_a_guard_that_would_flag_nothing_or_run_anything(handed, path, value, message):
    put(handed, "config.json", *path, value=value)
    with pytest.raises((StoreError, ValueError), match=message) as refused:
        Guard.load(handed)
    assert len(str(refused.value)) < 1500


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("score_N", lambda x: x.float()), ("score_N", lambda x: x * torch.nan), ("score_N", lambda x: x[:0]),
        ("score_N", lambda x: x.flip(0)), ("score_N", lambda x: x[None]), ("likeliest_N", lambda x: x + 99),
        ("likeliest_N", lambda x: x.to(torch.uint8)), ("rank_N", lambda x: x[:3]),
        ("probability_N", lambda x: x - 5), ("detector.means_MF_", lambda x: x[:, :3]),
    ],
)  # fmt: skip
def test_tensors_of_a_guard_that_cannot_be(handed, name, change):
    file = handed / "guard.safetensors"
    tensors = load_tensors(file)
    save_tensors(file, {**tensors, name: change(tensors[name])})
    with pytest.raises(StoreError, match="damaged"):
        Guard.load(handed)


def test_a_network_far_larger_than_its_tensors_is_not_made(tmp_path):
    """A configuration of a hundred letters may ask for all memory that there is."""
    classifier().save(tmp_path)
    configuration = {"model_type": "vit", "hidden_size": 65_536, "intermediate_size": 262_144,
                     "num_hidden_layers": 100, "num_attention_heads": 1}  # fmt: skip
    put(tmp_path, "classifier.json", "backbone", value="hf:vit")
    put(tmp_path, "classifier.json", "configuration", value=configuration)
    began = time.process_time()
    with pytest.raises(StoreError, match=r"hf:vit has [\d,]{13,} weights, and there are 309,100"):
        load_classifier(tmp_path, plugins=False)
    assert time.process_time() - began < 60


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".pt2", ".safetensors", ".png", ".json"])
def test_a_pickle_is_never_opened_whatever_its_name(tmp_path, suffix):
    """One that would write a file if anything did."""
    witness = tmp_path / "witness"
    call = f"cposix\nsystem\n(S'touch {witness}'\ntR.".encode()
    for name in (f"a{suffix}", "model.safetensors", "guard.safetensors", "config.json"):
        (tmp_path / name).write_bytes(call)
    family = full_name(str(tmp_path / "a.onnx")).partition(":")[0] if suffix == ".onnx" else "none"
    assert family in ("onnx", "none"), "by its name alone; opening it says what it is"
    with pytest.raises(ValueError, match=r"is no ONNX file|cannot be run"):
        Onnx("a", (tmp_path / f"a{suffix}").read_bytes())
    for read in (Guard.load, lambda folder: load_tensors(folder / "model.safetensors")):
        with pytest.raises(StoreError, match="damaged"):
            read(tmp_path)
    assert not witness.exists()


# Runs


@pytest.fixture
def run(tmp_path) -> Path:
    return imagined_run(tmp_path / "run", 5)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--preset=folder", "--sample.sampler=evil:Sampler", "--run=RUN"],
        ["export", "RUN", "--out=/tmp/elsewhere"],
        ["run", "--preset=folder", "--data=/a", "--run=/somewhere/else"],
        ["run", "--preset=folder", "--config=RUN/process-options.json", "--run=RUN"],
        ["run"],
        [],
    ],
)
def test_a_run_goes_on_by_no_words_that_its_folder_was_given(run, words):
    """But by its recorded configuration, whose plug-ins are asked for."""
    words = [word.replace("RUN", str(run)) for word in words]
    write_json(run / "process.json", {"pid": 4_000_000, "began": 1.5, "arguments": words})
    expected = ["run", "--preset=folder", f"--config={run}/process-options.json", f"--run={run}"]
    assert resumed(run, changed=False, plugins=False) == expected
    put(run, "run.json", "config", "sample", "sampler", value="evil:Sampler")
    with pytest.raises(StoreError, match="names the plug-in 'evil:Sampler'"):
        resumed(run, changed=False, plugins=False)


def test_a_run_that_was_begun_here_goes_on_by_its_own_words(run):
    words = ["run", "--preset=folder", "--data=/a", "--seeds=2", f"--run={run.resolve()}", "--redo=changed"]
    write_json(run / "process.json", {"pid": 4_000_000, "began": 1.5, "arguments": words})
    assert resumed(run, changed=False, plugins=False) == words[:-1]


@pytest.mark.parametrize(
    "record", [{"pid": -1}, {"pid": 1 << 40}, {"arguments": ["run", 1]}, {"began": "now"}]
)
def test_a_process_that_cannot_be(run, record):
    write_json(run / "process.json", {"pid": 1, "began": 1.5, "arguments": ["run"], **record})
    with pytest.raises(StoreError, match=r"process\.json is damaged"):
        recorded(run)


@pytest.mark.parametrize(
    ("file", "path", "value", "read"),
    [
        ("run.json", ("stages",), 7, lambda run: run),
        ("run.json", ("config", "seeds"), 10**400, lambda run: run),
        ("images/imagined/stage.json", ("seconds",), float("nan"), lambda run: run.keep_mask),
        ("images/imagined/stage.json", ("files",), [], lambda run: run.keep_mask),
        ("filter/stage.json", ("summary", "reasons"), {}, lambda run: run.drop_reasons),
        ("filter/stage.json", ("summary", "reasons"), [], lambda run: run.drop_reasons),
        ("classes/classes.json", ("names",), ["coat", 7], lambda run: run.book),
        ("classes/classes.json", ("names",), ["coat"], lambda run: run.vectors),
    ],
)
def test_a_file_of_a_run_that_cannot_be(run, file, path, value, read):
    put(run, file, *path, value=value)
    with pytest.raises(
        StoreError, match=r"damaged|cannot be used|has no reasons|other classes|of other rows"
    ):
        read(Run.open(run))


@pytest.mark.parametrize(
    ("stage", "name", "tensor"),
    [
        ("vectors", "y_M", torch.full((5,), 9)), ("vectors", "y_M", torch.zeros(5)),
        ("vectors", "seed_M", torch.tensor([1])), ("vectors", "z_MD", torch.zeros(3)),
        ("filter", "keep", torch.tensor([True])), ("filter", "dropped_by", torch.full((5,), 5)),
    ],
)  # fmt: skip
def test_tensors_of_a_run_that_cannot_be(run, stage, name, tensor):
    file = next((run / stage).glob("*.safetensors"))
    save_tensors(file, {**load_tensors(file), name: tensor})
    with pytest.raises(StoreError, match=r"is damaged|is of other rows"):
        _ = [getattr(Run.open(run), one) for one in ("keep_mask", "drop_reasons")]


@pytest.mark.parametrize(
    ("key", "value"),
    [("auroc", "0.9"), ("auroc", float("nan")), ("n_id", 0.5), ("n_ood", 10**400), ("classifier", 1),
     ("intervals", []), ("intervals", {"auroc": [1]}), ("intervals", {"auroc": ["a", "b"]}), ("seed", True)],
)  # fmt: skip
def test_results_that_are_no_numbers(key, value):
    from dataclasses import asdict

    line = {**asdict(control_row("baseline", 0.9, 0.1)), key: value}
    with pytest.raises(ValueError, match=f"A row's .*{key if key != 'intervals' else 'interval'}"):
        row_from_json(json.dumps(line))
    with pytest.raises(ValueError, match="and not a row"):
        shift_row_from_json("[]")


# Scores that are taken up again


@pytest.mark.parametrize("text", ["[]", "null", "7", '{"total": "many"}', "[" * 100_000])
def test_scores_begun_with_a_damaged_file(tmp_path, text):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "begun.json").write_text(text)
    with pytest.raises(StoreError, match=r"is damaged|was begun with"):
        score_to(tmp_path / "out.jsonl", [str(tmp_path / "a.png")], classifier())


@pytest.mark.parametrize("line", ["[]", "{}", '{"file": 3}', "[" * 100_000, "\xff"])
def test_a_part_of_scores_that_is_none(tmp_path, line):
    (tmp_path / "part.jsonl").write_bytes(f"{line}\n".encode("latin-1"))
    with pytest.raises(StoreError, match=r"part\.jsonl is damaged"):
        read_part(JsonLines(), tmp_path / "part.jsonl")


# Names


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\0b", "a\x07", "a\x9b1m", "x" * 201, "Unknown", "\ud800"])
def test_names_that_no_class_has(name):
    with pytest.raises(DataError, match="Rename it"):
        check_name(name, "here", "Rename it.")


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "{0.__class__}", "%s%n", "../x", "CON", "日本の鳥", "می‌خواهم", "C++"],
)
def test_names_that_a_class_may_have(name):
    """Whatever is written of them is escaped where it is shown, and no format string anywhere."""
    check_name(name, "here", "")
    assert not {*slug(name)} & {*"/\\.:*?<>|\0"}


def test_a_folder_for_a_long_name_is_one_that_a_disk_can_have(tmp_path):
    names = ["ü" * 190, "ü" * 191, "鳥" * 200]
    folders = {slug(name) for name in names}
    assert len(folders) == 3
    for folder in folders:
        (tmp_path / f"{folder}-12345").mkdir()
