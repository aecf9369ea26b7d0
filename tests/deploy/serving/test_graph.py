"""A guard on a graph is served, with PyTorch and without, and answers as the one in PyTorch."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from oodream.cli.main import main
from tests.helpers.exported import exported
from tests.helpers.guarded import guard
from tests.helpers.serving import FORM, ask, encoded, form, garment, server, values
from tests.helpers.without_torch import SERVER, interpreter

FILES = [(f"{i}.png", encoded(garment(i))) for i in range(5)]
BODY = form(*FILES)
BY_WHAT = """
import sys
from oodream.cli.main import main

code = main()
print(sorted({"torch", "scipy", "safetensors", "huggingface_hub"} & {*sys.modules}))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder():
    return exported()[0]


def test_a_folder_is_served_where_pytorch_is_not_installed(folder):
    with server(folder, "--alpha", "0.2", program=interpreter(BY_WHAT, SERVER)) as running:
        assert running.said == f"oodream: {guard().at(0.2).guarantee}\n"
        status, content = ask(running.port, "/predict?alpha=0.1&candidates=0.02", BODY, FORM)
        counted = values(ask(running.port, "/metrics")[1].decode())
        running.process.send_signal(signal.SIGTERM)
        output, errors = running.process.communicate(timeout=20)
    assert (status, running.process.returncode, errors) == (200, 0, "")
    assert output == "oodream: stopped\n[]\n"
    assert counted["oodream_pass_pictures_sum"] == len(FILES)
    expected = guard().at(0.1).predict_set([content for _, content in FILES], 0.02)
    for (name, _), one, other in zip(FILES, json.loads(content)["predictions"], expected, strict=True):
        assert (one["file"], one["answer"], one["flagged"]) == (name, other.answer, other.flagged)
        assert (one["threshold"], one["candidates"]) == (other.threshold, list(other.candidates))
        assert one["score"] == pytest.approx(other.score, abs=1e-4)
        assert one["p_value"] == pytest.approx(other.p_value, abs=1e-4)


@pytest.mark.parametrize("file", ["guard.onnx", "guard-int8.onnx"])
def test_a_graphs_file_is_served_where_pytorch_is(folder, file, tmp_path):
    """No other file of the folder is needed."""
    shutil.copy(folder / file, tmp_path)
    with server(tmp_path / file) as running:
        status, content = ask(running.port, "/predict", BODY, FORM)
    assert (status, len(json.loads(content)["predictions"])) == (200, len(FILES))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("does not exist", ("nothing.onnx",)),
        ("cannot be run, or is damaged", ("damaged.onnx",)),
        ("runs on the processor, so --device cuda", ("damaged.onnx", "--device", "cuda")),
    ],
)
def test_what_is_refused(words, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.onnx").write_bytes(b"none")
    assert main(["serve", *options]) == 2
    assert words in capsys.readouterr().err
