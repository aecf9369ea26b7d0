"""Real outliers in place of imagined ones, alone and as the oracle of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from oodream.cli.main import main
from oodream.core.files import read_json
from oodream.core.tensors import load_tensors
from oodream.run.artifacts import Run
from tests.helpers.clouds import clouds, saved
from tests.helpers.runs import command

CLASSIFIER = "classifier/regularized-s0/model.safetensors"


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """A folder of two folders of other things, one in the other."""
    top = tmp_path_factory.mktemp("real") / "others"
    saved(top / "a", clouds(30, 0))
    saved(top / "a" / "b", clouds(10, 1))
    return top


def real(folder: Path) -> list[str]:
    return ["--regularize.outliers", "real", "--regularize.real", str(folder)]


@pytest.fixture(scope="module")
def oracle(others, shapes, tiny_pipeline, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "oracle"
    assert main(command(shapes, tiny_pipeline, run, *real(others))) == 0
    return run


def test_a_run_with_real_outliers_imagines_nothing(oracle, finished):
    assert not [name for name in ("align", "vectors", "filter", "strips") if (oracle / name).exists()]
    assert [path.name for path in (oracle / "images").iterdir() if path.name == "imagined"] == []
    run = Run.open(oracle)
    assert run.stamp("classifier/regularized-s0")["summary"]["outliers"] == 40
    assert {finding.sets[-1] for finding in run.audit().findings if finding.kind == "look"} == {"run/real"}
    page = (oracle / "report" / "index.html").read_text()
    assert "beside real images of other things" in page
    for missing in ("Imagined outliers", "Latent map", "Are the outliers outliers?"):
        assert missing not in page
    base = [load_tensors(r / "classifier/baseline-s0/model.safetensors") for r in (oracle, finished)]
    assert all(base[0][name].equal(base[1][name]) for name in base[0])


def test_it_has_learned_the_real_outliers(oracle):
    """Clouds score higher than shapes with the classifier that saw them, more than with the baseline."""

    def gap(kind: str) -> float:
        run = Run.open(oracle)
        network, test = run.classifier(kind).network.eval(), clouds(20, 5)
        x = torch.from_numpy(np.stack([np.asarray(p) for p in test])).permute(0, 3, 1, 2)
        with torch.no_grad():
            unknown = -network(x).logits_BC.logsumexp(1)
        known = run.scores(kind, 0, "energy")["id"]
        return float((unknown.mean() - known.mean()) / known.std())

    assert gap("regularized") > gap("baseline")


def test_another_folder_is_refused_and_then_trained_on(oracle, shapes, tiny_pipeline, tmp_path, capsys):
    before = load_tensors(oracle / CLASSIFIER)
    saved(more := tmp_path / "more", clouds(25, 3))
    args = command(shapes, tiny_pipeline, oracle, *real(more))
    assert main(args) == 2
    assert "the real outliers are not the same" in (said := capsys.readouterr().err)
    assert "--redo changed" in said
    assert main([*args, "--redo", "changed", "--until", "classifier"]) == 0
    assert "real outliers: 25" in capsys.readouterr().out
    after = load_tensors(oracle / CLASSIFIER)
    assert not all(before[name].equal(after[name]) for name in before)


def test_losses_that_cannot_use_them_say_so(others, shapes, tiny_pipeline, tmp_path, capsys):
    for loss, message in ((["cross_entropy"], "uses no outliers"), (["energy_logistic", "micl"], "micl")):
        args = [*real(others), "--regularize.loss", *loss]
        assert main(command(shapes, tiny_pipeline, tmp_path / "run", *args)) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_nothing_can_be_decoded(oracle, capsys):
    assert main(["decode", str(oracle)]) == 2
    assert "has nothing to decode: real images stand in the place" in capsys.readouterr().err


def test_the_oracle_of_a_comparison(others, shapes, tiny_pipeline, tmp_path, capsys):
    arms = {
        "imagined": {},
        "real things": {"regularize": {"outliers": "real", "real": str(others)}},
        "nothing reconstructed": {"reconstruct": {"frac": 0.0}},
    }
    (tmp_path / "arms.json").write_text(json.dumps(arms))
    saved(near := tmp_path / "near", clouds(20, 8))
    args = [
        *command(shapes, tiny_pipeline, tmp_path / "out", "--ood", f"near={near}")[1:],
        *("--arms", str(tmp_path / "arms.json"), "--seeds", "2"),
    ]
    assert main(["compare", *args, "--dry-run"]) == 0
    assert "arms 3, seeds 2" in capsys.readouterr().out
    assert main(["compare", *args, "--dry-run", "--regularize.loss", "cross_entropy"]) == 2
    assert "Arm 'real things': The loss cross_entropy uses no outliers" in capsys.readouterr().err
    for text, why in (('{"a": {', "it is no JSON"), ('{"a": {}, "a": {}}', "the key 'a' is there twice")):
        (tmp_path / "bad.json").write_text(text)
        assert main(["compare", *args, "--arms", str(tmp_path / "bad.json")]) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'bad.json'} cannot be read as arms" in said
        assert why in said
    out = tmp_path / "out"
    assert not out.exists()
    assert main(["compare", *args]) == 0
    found = {line["arm"]: line for line in read_json(out / "comparison.json")}
    assert [line["oracle"] for line in found.values()] == [False, False, True, False]
    assert [line["count"] for line in found.values()] == [0, 24, 40, 24]
    assert (found["real things"]["synthesis"], found["real things"]["contrasts"]["near auroc"]["share"]) == (
        0,
        None,
    )
    share = found["imagined"]["contrasts"]["near auroc"]["share"]
    means = [sum(found[arm]["by_seed"]["near auroc"]) / 2 for arm in ("baseline", "imagined", "real things")]
    assert share["reference"]["value"] == pytest.approx(means[2] - means[0])
    if share["value"] is not None:
        assert share["value"] == pytest.approx((means[1] - means[0]) / (means[2] - means[0]))
    assert "look auroc" in found["imagined"]["cells"]
    assert "control auroc" in found["baseline"]["cells"]
    assert "The oracle is real things" in (out / "comparison.md").read_text()
    files = [out / arm / "classifier/baseline-s1/model.safetensors" for arm in ("imagined", "real_things")]
    files.append(out / "nothing_reconstructed" / "classifier/baseline-s1/model.safetensors")
    assert len({file.stat().st_ino for file in files}) == 1, "baselines are trained once"
