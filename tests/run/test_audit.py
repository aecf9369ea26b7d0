"""Audits of folders and of runs, from the command line and from Python."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from oodream.audit.finding import Audit, Finding
from oodream.cli.main import main
from oodream.config import Config, DecodeConfig, EvaluateConfig, RegularizeConfig
from oodream.core.results import write_rows
from oodream.core.tensors import save_tensors
from oodream.run.artifacts import Run
from oodream.run.audit import audit_folders, audit_run, lines
from tests.helpers.begun import begin_run, imagine
from tests.helpers.clouds import clouds, compressed, photographs, saved
from tests.helpers.rows import control_row


@pytest.fixture
def folders(tmp_path) -> Path:
    everything = photographs(140, 5)
    for k, name in enumerate(("coat", "shoe")):
        saved(tmp_path / "data" / "train" / name, everything[k * 20 : k * 20 + 20])
        saved(tmp_path / "data" / "test" / name, everything[40 + k * 20 : 60 + k * 20])
    saved(tmp_path / "odd", everything[80:110])
    return tmp_path


def test_audit_of_folders_from_the_command_line(folders, capsys):
    args = ["audit", "--data", str(folders / "data"), "--ood", f"near={folders / 'odd'}", "--seed", "1"]
    assert main(args) == 0
    assert "Problems: 0. Warnings: 0." in capsys.readouterr().out
    compressed(Image.open(folders / "data/train/coat/003.png"), 80).save(folders / "odd" / "shoes-1.jpg")
    assert main(args) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("problem  duplicates: ID/train, odd")
    assert "warning  names: odd" in printed
    assert main([*args, "--json"]) == 1
    audit = Audit.from_json(json.loads(capsys.readouterr().out))
    config = Config(data=str(folders / "data"), ood=(f"near={folders / 'odd'}",), seed=1)
    assert audit == audit_folders(config)
    files = audit["problem"][0].examples[0]["files"]
    assert [Path(file).name for file in files] == ["003.png", "shoes-1.jpg"]
    assert {*audit.sets.values()} == {"train", "test", "near"}


def test_shifted_folders_are_audited(folders, capsys):
    everything = photographs(140, 5)
    saved(folders / "night" / "coat", [everything[0], *everything[110:125]])
    saved(folders / "night" / "shoe", [everything[60], *everything[125:140]])  # a test image
    options = {"data": str(folders / "data"), "shifted": (str(folders / "night"),)}
    audit = audit_run(begin_run(folders / "run", Config(**options, evaluate=EvaluateConfig(n_far=30))))
    assert audit.sets["night"] == "shift"
    assert [(f.kind, f.sets, f.count) for f in audit["problem"]] == [("duplicates", ("ID/train", "night"), 1)]
    assert main(["audit", "--data", options["data"], "--shifted", *options["shifted"]]) == 1
    assert "problem  duplicates: ID/train, night" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Audit what?"),
        (["{folder}", "--data", "x"], "Audit what?"),
        (["{folder}"], "is not a run folder"),
        (["--data", "{folder}/none"], "is not a folder"),
    ],
)
def test_audit_refuses_what_it_cannot_read(args, message, tmp_path, capsys):
    assert main(["audit", *(arg.format(folder=tmp_path) for arg in args)]) == 2
    assert message in capsys.readouterr().err


def test_audit_of_a_run_takes_what_the_run_has_made(folders):
    config = Config(
        data=str(folders / "data"), ood=(str(folders / "odd"),),
        evaluate=EvaluateConfig(n_far=30, detectors=("energy",)),
    )  # fmt: skip
    run = begin_run(folders / "run", config)
    assert {*audit_run(run).sets.values()} == {"train", "test", "far"}

    imagine(run, [Image.open(folders / "data/train/coat/004.png"), *clouds(30, 7)])
    rows = [control_row("regularized", 0.7, 0.01), control_row("baseline", 0.5, 0.01)]
    write_rows(run.layout.results, rows)
    audit = audit_run(Run.open(folders / "run"))
    assert audit.sets["run/imagined"] == "outliers"
    assert [(f.kind, f.sets) for f in audit["problem"]] == [
        ("duplicates", ("ID/train", "run/imagined")),
        ("control", ("regularized",)),
    ]

    save_tensors(run.layout.keep_mask, {"keep": torch.tensor([False, *[True] * 30])})
    assert [f.kind for f in audit_run(Run.open(folders / "run"))["problem"]] == ["control"]


def test_images_that_are_no_longer_those_of_the_run_are_told(finished, shapes, tmp_path):
    for name, source in (("run", finished), ("shapes", shapes)):
        shutil.copytree(source, tmp_path / name)
    config = replace(Run.open(finished).config, data=str(tmp_path / "shapes"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audit_run(Run(tmp_path / "run", config, ""))
    next((tmp_path / "shapes").rglob("*.png")).unlink()
    with pytest.warns(UserWarning, match="have changed since align was made of them"):
        audit_run(Run(tmp_path / "run", config, ""))


def test_real_outliers_are_audited_in_the_imagined_ones_place(folders):
    """A picture that training calls unknown and a test set holds is found, and so is how they look."""
    saved(folders / "others", [Image.open(folders / "odd" / "003.png"), *clouds(30, 7)])
    config = Config(
        data=str(folders / "data"), ood=(str(folders / "odd"),),
        regularize=RegularizeConfig(outliers="real", real=str(folders / "others")),
        evaluate=EvaluateConfig(n_far=30, detectors=("energy",)),
    )  # fmt: skip
    audit = audit_run(begin_run(folders / "run", config))
    assert audit.sets["run/real"] == "outliers"
    assert "run/imagined" not in audit.sets
    assert [(f.kind, f.sets) for f in audit["problem"]] == [("duplicates", ("run/real", "odd"))]
    (look,) = (finding for finding in audit.findings if finding.kind == "look")
    assert look.sets == ("ID/train", "run/real")
    assert look.share > 0.9, "clouds have no grain, and photographs do"
    assert "classes" not in look.message
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit


def test_imagined_images_that_nothing_is_trained_on_are_not_audited(folders):
    config = Config(
        data=str(folders / "data"), regularize=RegularizeConfig(outliers="known"),
        evaluate=EvaluateConfig(n_far=30, detectors=("energy",)),
    )  # fmt: skip
    run = begin_run(folders / "run", config)
    imagine(run, clouds(30, 7))
    assert "outliers" not in audit_run(Run.open(folders / "run")).sets.values()


def test_latents_are_not_audited(folders):
    config = Config(
        data=str(folders / "data"), decode=DecodeConfig(output="latents"), evaluate=EvaluateConfig(n_far=30)
    )
    run = begin_run(folders / "run", config)
    run.layout.provenance("latents").parent.mkdir(parents=True)
    run.layout.provenance("latents").write_text("{}\n")
    assert "outliers" not in audit_run(run).sets.values()


def test_lines_can_be_printed_whatever_files_are_called():
    file = os.fsdecode(b"/d/caf\xe9\n\xe2\x80\xa8.png")
    finding = Finding(
        kind="names", sets=("caf\udce9",), count=1, share=0.5, severity="warning",
        message="caf\udce9 at 50.0\u00a0%", examples=({"class": "cafe", "file": file, "count": 1},),
    )  # fmt: skip
    printed = [*lines(Audit(sets={}, findings=(finding,)))]
    assert "\n".join(printed).encode()
    assert printed[0] == "warning  names: caf\\xe9"
    assert "50.0\u00a0%" in printed[1]
    assert printed[2] == "           cafe: /d/caf\\xe9\\n\\u2028.png"
    assert printed[3] == "Problems: 0. Warnings: 1."
