"""OAL through the command line: outliers that stay latents, and methods compared."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from oodream.cli.main import main
from oodream.core.files import read_json, read_json_lines
from oodream.core.tensors import load_tensors
from oodream.run.arms import read_arms
from oodream.run.generated import SHARD
from oodream.run.redraw import open_begun
from tests.helpers.runs import command, plain
from tests.helpers.tiny import save_tiny_pipeline

OAL = (
    "--decode.output",
    "latents",
    "--regularize.loss",
    "energy_logistic",
    "micl",
    "kd",
    "--reconstruct.frac",
    "0",
    "--sample.per-class",
    "100",
    "--latents.options",
    "steps=5",
)


@pytest.fixture(scope="module")
def finished(shapes, tiny_pipeline, tmp_path_factory):
    run = tmp_path_factory.mktemp("latents") / "run"
    assert main(command(shapes, tiny_pipeline, run, *OAL)) == 0
    return run


def bytes_of(run: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted((run / "latents").rglob("*.safetensors"))
    }


def test_a_run_whose_outliers_stay_latents(finished):
    shards = sorted((finished / "latents" / "imagined").glob("*.safetensors"))
    assert [len(load_tensors(file)["row_B"]) for file in shards] == [SHARD, 300 - SHARD]
    latents = load_tensors(shards[0])["latents_BFHW"]
    assert (latents.dtype, latents.shape[1:]) == (torch.float16, (4, 8, 8))
    lines = read_json_lines(finished / "latents" / "imagined" / "metadata.jsonl")
    assert len(lines) == 300
    assert lines[0].keys() >= {"row", "class", "prompt", "anchor", "seed", "knn_distance", "pipeline", "hash"}
    assert not (finished / "images" / "imagined").exists(), "nothing was decoded"
    log = read_json(finished / "classifier" / "regularized-s0" / "log.json")[-1]
    assert {"ce", "energy", "micl", "kd"} <= log.keys()
    page = (finished / "report" / "index.html").read_text()
    assert page.count("Imagined outlier of circle") == 12, "the report shows pictures all the same"


def test_latents_are_what_pictures_are_decoded_from(finished):
    begun = open_begun(finished, "cpu")
    vectors, decoder = begun.run.vectors, begun.decoder
    decoded = decoder(vectors.z_MD[:4], vectors.y_M[:4], vectors.seed_M[:4]).images_B3HW
    again = decoder.pictures(begun.run.latents(torch.arange(4)))
    assert (decoded.int() - again.int()).abs().max() <= 6  # half precision, or bfloat16, on the way


@pytest.mark.slow
def test_a_killed_run_of_latents_ends_the_same(finished, shapes, tiny_pipeline, tmp_path):
    run = tmp_path / "killed"
    args = [sys.executable, "-m", "oodream", *command(shapes, tiny_pipeline, run, *OAL)]
    for mark in (
        "latents/imagined/latents-00000.safetensors",
        "latents/known/begun.json",
        "classifier/regularized-s0/begun.json",
    ):
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (run / mark).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(command(shapes, tiny_pipeline, run, *OAL)) == 0
    assert bytes_of(run) == bytes_of(finished)
    assert (run / "results.jsonl").read_text() == (finished / "results.jsonl").read_text()


def test_shards_are_drawn_by_parts_mended_and_drawn_alone(finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    shutil.rmtree(run / "latents" / "imagined")
    for i in range(2):
        assert main(["decode", str(run), "--shard", f"{i}/2"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        str(SHARD),
        str(300 - SHARD),
    ]
    assert bytes_of(run) == bytes_of(finished)
    run = Path(shutil.copytree(finished, tmp_path / "damaged"))
    (run / "latents" / "imagined" / "latents-00001.safetensors").write_bytes(b"damaged")
    assert main(["decode", str(run), "--verify"]) == 0
    assert f"{300 - SHARD} images were missing or damaged" in capsys.readouterr().out
    assert bytes_of(run) == bytes_of(finished)
    assert main(["decode", str(run), "--row", "7", "--out", str(tmp_path / "one")]) == 0
    alone = load_tensors(tmp_path / "one" / "latent-000007.safetensors")["latents_BFHW"][0]
    assert torch.equal(
        alone, load_tensors(run / "latents" / "imagined" / "latents-00000.safetensors")["latents_BFHW"][7]
    )


def test_pictures_of_a_run_of_latents_and_latents_of_one_of_pictures(finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    assert main(["decode", str(run), "--as", "images"]) == 0
    assert len(list((run / "images" / "imagined").rglob("*.png"))) == 300
    assert main(["decode", str(run), "--as", "poems"]) == 2
    assert "poems" in capsys.readouterr().err


def test_latents_of_another_decoder_are_refused(finished, shapes, tmp_path, capsys):
    other = save_tiny_pipeline(tmp_path / "other", seed=1)
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    assert main(command(shapes, other, run, *OAL)) == 2
    assert "was made from other inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--regularize.outliers", "known"], "micl"),
        (
            ["--latents.options", "steps=many"],
            "latent adapter 'preview': steps cannot be 'many'; it takes a whole number",
        ),
        (
            ["--latents.adapter", "stairs"],
            "No latent adapter is called 'stairs'. There are: preview, projector, stem",
        ),
        (["--regularize.teacher", "nowhere"], "There is no folder nowhere"),
        (["--regularize.ratio", "0"], "regularize.ratio must be above 0"),
    ],
)
def test_mistakes_are_named_before_any_work(shapes, tiny_pipeline, tmp_path, capsys, more, message):
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", *OAL, *more)) == 2
    assert message in plain(capsys.readouterr().err)
    assert not (tmp_path / "run" / "classes").exists()


def test_a_teacher_of_other_classes_is_refused(finished, shapes, tiny_pipeline, tmp_path, capsys):
    teacher = Path(shutil.copytree(finished / "classifier" / "baseline-s0", tmp_path / "teacher"))
    args = command(
        shapes,
        tiny_pipeline,
        tmp_path / "run",
        *OAL,
        "--regularize.teacher",
        str(teacher),
        "--until",
        "classes",
    )
    assert main(args) == 0
    told = read_json(teacher / "classifier.json")
    (teacher / "classifier.json").write_text(json.dumps({**told, "names": told["names"][::-1]}))
    assert main(args) == 2
    assert "in the same order" in capsys.readouterr().err


def test_a_teacher_runs_no_code(finished, shapes, tiny_pipeline, tmp_path, capsys):
    """A plug-in's loss that it was trained with is not needed, and so need not be there; its network is."""
    teacher = Path(shutil.copytree(finished / "classifier" / "baseline-s0", tmp_path / "teacher"))
    told = read_json(teacher / "classifier.json")
    taught = ["--regularize.teacher", str(teacher), "--until", "classes"]
    args = command(shapes, tiny_pipeline, tmp_path / "run", *OAL, *taught)
    (teacher / "classifier.json").write_text(json.dumps({**told, "loss": "gone.losses:Mine"}))
    assert main(args) == 0
    (teacher / "classifier.json").write_text(json.dumps({**told, "backbone": "torchscript:net.pt"}))
    capsys.readouterr()
    assert main([*args, "--redo", "changed"]) == 2
    said = plain(capsys.readouterr().err)
    assert "cannot be a teacher: loading its 'torchscript:net.pt' runs code from elsewhere. Name one" in said
    assert "--plugins" not in said


def test_a_teacher_of_another_kind_is_fine_tuned_and_distilled_from(
    finished, shapes, tiny_pipeline, tmp_path
):
    """A vision transformer from a folder of transformers', logits and features of another width."""
    vit = ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    )
    torch.nn.init.constant_(vit.vit.embeddings.position_embeddings, 3.0)
    vit.save_pretrained(tmp_path / "vit")
    tuned = ["--train.backbone", f"hf:{tmp_path / 'vit'}", "--until", "classifier/baseline-s0"]
    assert main(command(shapes, tiny_pipeline, tmp_path / "teacher", *OAL, *tuned)) == 0
    teacher = tmp_path / "teacher" / "classifier" / "baseline-s0"
    body = load_tensors(teacher / "model.safetensors")
    # Zeros or small numbers at first in any network: the folder's are not.
    name = "vit.embeddings.position_embeddings"
    begun, tuned_to = torch.full_like(vit.state_dict()[name], 3.0), body[f"body.{name}"]
    assert not tuned_to.equal(begun), "fine-tuned"
    assert (tuned_to - begun).abs().max() < 1, "from the folder's weights"
    taught = ["--regularize.teacher", str(teacher), "--regularize.loss-options", "kd.feature=8"]
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", *OAL, *taught)) == 0
    log = read_json(tmp_path / "run" / "classifier" / "regularized-s0" / "log.json")[-1]
    assert 0 < log["kd"] < float("inf")
    assert 0 < log["kd_feature"] < float("inf")
    a, b = (
        load_tensors(run / "classifier" / "regularized-s0" / "model.safetensors")
        for run in (tmp_path / "run", finished)
    )
    assert a.keys() == b.keys()
    assert not all(a[name].equal(b[name]) for name in a), "another teacher teaches something else"


def test_arms_are_compared_and_share_what_is_equal(shapes, tiny_pipeline, tmp_path):
    arms = {
        "latents": {},
        "latents, 9": {"regularize": {"max_outliers": 9}},
        "pictures": {"decode": {"output": "images"}, "regularize": {"loss": ["energy_logistic"]}},
        "kd alone": {"regularize": {"loss": ["cross_entropy", "kd"], "ratio": 0.0}},
        "as published": {
            "regularize": {"loss": ["cross_entropy", "club_joint"]},
            "latents": {"adapter": "none"},
        },
    }
    (tmp_path / "arms.json").write_text(json.dumps(arms))
    args = [
        "compare",
        *command(shapes, tiny_pipeline, tmp_path / "out", *OAL)[1:],
        "--arms",
        str(tmp_path / "arms.json"),
        "--seeds",
        "2",
    ]
    assert main(args) == 0
    blocks = (tmp_path / "out" / "comparison.md").read_text().split("\n\n")
    measured, by_fpr, *_ = (block for block in blocks if block.startswith("| arm"))
    assert [row.split(" | ")[0].strip("| ") for row in measured.splitlines()[2:]] == ["baseline", *arms]
    found = {line["arm"]: line for line in read_json(tmp_path / "out" / "comparison.json")}
    assert [found[arm]["count"] for arm in ("baseline", "latents", "latents, 9", "kd alone")] == [
        0,
        300,
        9,
        0,
    ]
    assert found["latents, 9"]["synthesis"] == pytest.approx(found["latents"]["synthesis"] * 9 / 300)
    looks = {arm: line["cells"].pop("look auroc", None) for arm, line in found.items()}
    assert [arm for arm, look in looks.items() if look] == ["pictures"], "latents have no look"
    assert all("±" in cell["spread"] for line in found.values() for cell in line["cells"].values())
    assert all(len(line["by_seed"]["all fpr95_id"]) == 2 for line in found.values())
    assert found["baseline"]["contrasts"] == {}
    first, second = (found[arm]["contrasts"]["all fpr95_id"] for arm in ("latents", "kd alone"))
    assert (first["to_first"], second["share"]) == (None, None)
    by_seed = [found[arm]["by_seed"]["all fpr95_id"] for arm in ("baseline", "kd alone")]
    assert second["to_baseline"]["value"] == pytest.approx(sum(by_seed[1]) / 2 - sum(by_seed[0]) / 2)
    assert blocks[blocks.index(by_fpr) - 1] == "**fpr95_id of all sets**"
    assert by_fpr.count(" p = ") == 2 * len(arms) - 1
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "kd_alone/report/index.html" in page
    assert (tmp_path / "out" / "kd_alone" / "report" / "index.html").is_file()
    one, two = (
        (tmp_path / "out" / arm / "align" / "encoder.safetensors").stat() for arm in ("latents", "pictures")
    )
    assert one.st_ino == two.st_ino, "aligned once"
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("stage.json")}
    assert main(args) == 0
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps, "nothing is done again"


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "Arms are written"), ('{"a": 1}', "Arms are written"), ('{"a b": {}, "a_b": {}}', "one folder")],
)
def test_arms_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        read_arms(text)


def test_an_arm_with_a_wrong_option_stops_before_work(shapes, tiny_pipeline, tmp_path, capsys):
    (tmp_path / "arms.json").write_text('{"a": {}, "b": {"regularize": {"rat": 1}}}')
    assert (
        main(
            [
                "compare",
                *command(shapes, tiny_pipeline, tmp_path / "out")[1:],
                "--arms",
                str(tmp_path / "arms.json"),
            ]
        )
        == 2
    )
    assert "Arm 'b': There is no option 'regularize.rat'. Did you mean 'ratio'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_arm_is_checked_before_the_first_one_starts(shapes, tiny_pipeline, tmp_path, capsys):
    """What only a look at the data shows, as a neighbour that no class has."""
    arms = {"a": {}, "b": {"sample": {"options": {"k": 400}}}}
    (tmp_path / "arms.json").write_text(json.dumps(arms))
    args = [*command(shapes, tiny_pipeline, tmp_path / "out")[1:], "--arms", str(tmp_path / "arms.json")]
    assert main(["compare", *args]) == 2
    assert "Arm 'b': Class 'circle' has 16 images; the 400-th neighbour needs 401" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("gone"), "KeyError: 'gone'."),
        (ValueError("It is blue."), "It is blue."),
        (MemoryError(), "Memory gave out"),
    ],
)
def test_a_broken_arm_is_named_with_the_way_to_the_others(
    error, said, shapes, tiny_pipeline, tmp_path, capsys, monkeypatch
):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("oodream.run.compare.go", broken)
    (tmp_path / "arms.json").write_text('{"a": {}, "b c": {"regularize": {"ratio": 1.0}}}')
    args = [*command(shapes, tiny_pipeline, tmp_path / "out")[1:], "--arms", str(tmp_path / "arms.json")]
    assert main(["compare", *args]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Arm 'a': " in told
    assert "The other arms alone: --only 'b c'." in told


def test_known_images_stand_in_for_imagined_outliers(finished, shapes, tiny_pipeline, tmp_path):
    """The control: all else is as it was, and the classifier learns something else. Nothing is imagined, so
    nothing of that is needed.
    """
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for stage in ("align", "features", "vectors", "latents/imagined"):
        shutil.rmtree(run / stage)
    oal = [word for word in OAL if word != "micl"]  # known images come from no vector
    control = ["--regularize.outliers", "known", "--redo", "changed", "--until", "classifier"]
    assert main(command(shapes, tiny_pipeline, run, *oal, *control)) == 0
    a, b = (load_tensors(r / "classifier" / "regularized-s0" / "model.safetensors") for r in (run, finished))
    assert not all(a[name].equal(b[name]) for name in a)
    same = [load_tensors(r / "classifier" / "baseline-s0" / "model.safetensors") for r in (run, finished)]
    assert all(same[0][name].equal(same[1][name]) for name in same[0])
