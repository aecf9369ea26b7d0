from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oodream.core.errors import DataError
from oodream.core.tensors import save_tensors
from oodream.core.types import Output
from oodream.detection.detectors.mahalanobis import Mahalanobis
from oodream.models.factory import backbone
from tests.helpers.protocols import SIZE, picture, rows, run_command, save


@dataclass
class Greenish:
    """Score = sign * the logit of green: each sign is right on one pair of sets, and wrong on the reverse."""

    sign: int = -1
    GRID: ClassVar = {"sign": (-1, 1)}

    def fit(self, *_: Any) -> Greenish:
        return self

    def score(self, output: Any) -> Tensor:
        return self.sign * output.logits_BC[:, 1].double()


# Validation: known images (folder val) are red, unknown ones green. In the test it is the reverse.
KINDS = {
    "train/red": 0, "train/green": 1, "val/red": 0, "val/green": 0, "val-ood": 1, "more-green": 1,
    "test/red": 1, "test/green": 1, "near": 0,
}  # fmt: skip
HEAD = f'about = "opposites"\nsize = {SIZE}\nclasses = ["red", "green"]\nleast_accuracy = 0.0001\n'
REVERSED = HEAD + "".join(
    f'[[sets]]\nname = "{group}-set"\ngroup = "{group}"\nfolders = ["{group}"]\n'
    for group in ("train", "val", "val-ood", "test", "near")
)


@pytest.fixture
def reversed_sets(tmp_path: Path) -> Path:
    for place, (folder, kind) in enumerate(KINDS.items()):
        for i in range(12):
            save(picture(kind, 100 * place + i), tmp_path / folder / f"{i}.png")
    (tmp_path / "reversed.toml").write_text(REVERSED)
    return tmp_path


def red_or_green() -> nn.Module:
    """A network with random features whose last layer compares with the mean features of red and of green."""
    torch.manual_seed(0)
    network = backbone("resnet8", 2).eval()
    with torch.no_grad():
        red_F, green_F = (
            network(torch.stack([tensor(picture(kind, 10_000 + i)) for i in range(8)])).z_BF.mean(0)
            for kind in (0, 1)
        )
        network.head.weight.copy_(torch.stack([red_F - green_F, green_F - red_F]))
        network.head.bias.zero_()
    return network


def tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("tune", ["val", "more-green"])
def test_options_are_chosen_on_validation_images_and_never_on_test_images(
    reversed_sets: Path, tune: str
) -> None:
    folder, detector = reversed_sets, f"{__name__}:Greenish"
    save_tensors(folder / "w.safetensors", red_or_green().state_dict())
    run_command(
        [
            *("evaluate", "--protocol", str(folder / "reversed.toml"), "--model", "resnet8"),
            *("--weights", str(folder / "w.safetensors"), "--detectors", detector, "--resamples", "5"),
            *("--tune", tune if tune == "val" else str(folder / tune)),
            *("--device", "cpu", "--out", str(folder / "out")),
        ]
    )
    notes = json.loads((folder / "out" / "evaluation.json").read_text())["notes"]
    assert "Options were chosen on 24 known and 12 unknown images of no test set." in notes
    assert f"{detector}: sign 1 (AUROC 100.0 %, by default 0.0 %), on validation images." in notes
    assert rows(folder / "out")[detector, "near-set", "near"].auroc == 0  # by default it would be 1


def embedded_args(folder: Path, *more: str) -> list[str]:
    torch.manual_seed(0)
    save_tensors(folder / "w.safetensors", backbone("resnet8", 8).state_dict())
    return [
        *("evaluate", "--protocol", "embedded", "--model", "resnet8"),
        *("--weights", str(folder / "w.safetensors"), "--max-images", "40"),
        *("--detectors", "knn", "msp", "--resamples", "5", "--device", "cpu", "--out", str(folder / "out")),
        *more,
    ]


def test_options_are_tuned_on_validation_sets_or_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither changes what is measured on, and the choice is reported."""
    for i in range(30):
        save(picture(i % 5, i), tmp_path / "strange" / f"{i}.png")
    for tune, unknown in (("val", 120), (str(tmp_path / "strange"), 30)):
        with pytest.warns(UserWarning, match="something is wrong"):
            run_command(embedded_args(tmp_path, "--tune", tune))
        printed = capsys.readouterr().out
        assert "the best of 8 candidates" in printed
        assert f"chosen on 40 known and {unknown} unknown images of no test set" in printed
        names = {name for _, name, _ in rows(tmp_path / "out")}
        assert names == {"mean", "bag", "ankle-boot", "digits", "letters", "photos", "textures", "noise"}


def test_a_folder_to_tune_on_that_is_none_is_named_before_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-folder is not a folder"):
        run_command(embedded_args(tmp_path, "--tune", str(tmp_path / "no-folder")))
    assert not (tmp_path / "out").exists()


def test_an_option_without_a_name_is_the_first_detectors_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="something is wrong"):
        run_command(embedded_args(tmp_path, "--tune", "val", "--detector-options", "k=3"))
    assert {name for name, *_ in rows(tmp_path / "out")} == {"knn", "msp"}
    assert "the best of 1 candidates" in capsys.readouterr().out


@dataclass
class Backwards(Mahalanobis):
    """What is far from the known images is said to be known."""

    def _score(self, output: Output) -> Tensor:
        return -super()._score(output)


def test_a_detector_that_ranks_upside_down_is_named_in_the_results(tmp_path: Path) -> None:
    detectors = ("--detectors", "mahalanobis", f"{__name__}:Backwards", "--plugins")
    with pytest.warns(UserWarning, match=rf"^What ranks upside down: {__name__}:Backwards .* in resnet8\)"):
        run_command(embedded_args(tmp_path, *detectors))
    notes = json.loads((tmp_path / "out" / "evaluation.json").read_text())["notes"]
    upside_down = [note.split()[0] for note in notes if "ranks upside down" in note]
    assert upside_down == [f"{__name__}:Backwards"]
