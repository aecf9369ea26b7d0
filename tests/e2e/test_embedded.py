"""The embedded decoder and the main job on it, with a fraction of the demo's budget."""

from __future__ import annotations

import pytest
import torch

from oodream.cli.main import main
from oodream.core.files import read_json, read_json_lines
from oodream.core.tensors import load_tensors
from oodream.data.builtin import FASHION_ID
from oodream.models.classifier import load_classifier
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.pipeline import EMBEDDED

SMALL = (
    "--max-per-class 600 --sample.per-class 16 --align.optimisation.epochs 2 --align.optimisation.batch 64 "
    "--train.optimisation.epochs 4 --train.optimisation.batch 64 --reconstruct.share 0.2 "
    "--evaluate.n-far 200 --evaluate.resamples 20 --shift.n-corrupted 50 --report.strips 1 "
    "--report.features 8 --device cpu"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded") / "demo"
    assert main(["demo", "--run", str(folder), *SMALL]) == 0
    return folder


def mean(run, classifier: str, group: str, metric: str) -> float:
    rows = read_json_lines(run / "results.jsonl")
    wanted = {"classifier": classifier, "group": group, "dataset": "mean", "detector": "energy"}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    return row[metric]


def test_the_outliers_help(run):
    assert mean(run, "regularized", "all", "fpr95_id") < 2 / 3 * mean(run, "baseline", "all", "fpr95_id")
    assert mean(run, "regularized", "far", "auroc") > mean(run, "baseline", "far", "auroc")
    assert mean(run, "regularized", "all", "accuracy") > 0.75


def test_the_network_did_not_learn_to_see_the_decoder(run):
    summary = read_json(run / "classifier" / "regularized-s0" / "stage.json")["summary"]
    assert summary["reconstructed_id_auroc"] < 0.6


def test_the_report_answers_as_what_is_deployed_does(run):
    summary = read_json(run / "guard" / "stage.json")["summary"]
    page = (run / "report" / "index.html").read_text()
    assert f"above the threshold is flagged: {summary['guarantee']}." in page
    assert f"{summary['threshold']:.2f}".replace("-", "−") in page.replace("-", "−")


def test_plain_prompts_draw_their_class(run):
    """By the plain classifier, which has seen real images alone."""
    judge = load_classifier(run / "classifier" / "baseline-s0").network
    drawn = load_tensors(run / "strips" / "samples.safetensors")["images"]
    with torch.no_grad():
        said = judge(drawn.flatten(0, 1)).logits_BC.argmax(1).view(drawn.shape[:2])
    assert (said == torch.arange(len(FASHION_ID))[:, None]).float().mean() > 0.85


def test_every_class_of_the_embedded_data_is_one_known_token():
    decoder = StableDecoder(names=FASHION_ID)
    for name in FASHION_ID:
        assert len(decoder.pipeline.tokenizer(name, add_special_tokens=False).input_ids) == 1


def test_it_is_small_and_holds_no_pickle():
    files = [p for p in EMBEDDED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files if p.suffix == ".safetensors") < 32e6
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".md", ".png"}
