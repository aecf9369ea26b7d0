"""A run's imagined images as a data set: all that the filters keep, nothing of the known images, and a true
card.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import DatasetCard
from PIL import Image

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.errors import DataError, StoreError
from oodream.core.files import read_json_lines
from oodream.core.options import overlay
from oodream.core.tensors import save_tensors
from oodream.run.added import add_picture
from oodream.run.artifacts import Run
from oodream.run.outliers import export_images
from tests.helpers.begun import begin_run, imagine
from tests.helpers.pictures import picture
from tests.helpers.runs import plain
from tests.helpers.serving import encoded


@pytest.fixture
def run(tmp_path) -> Run:
    """Six imagined coats, of which the filter drops two."""
    run = begin_run(tmp_path / "run", Config())
    imagine(run, [picture((40 * m, 9, 9), 8, 8) for m in range(6)])
    dropped_by = torch.tensor([-1, 0, -1, -1, 0, -1])
    save_tensors(run.layout.keep_mask, {"keep": dropped_by < 0, "dropped_by": dropped_by})
    stamp = {"inputs": {}, "seconds": 1.0, "summary": {"reasons": ["it shows its class"]}}
    (run.layout.keep_mask.parent / "stage.json").write_text(json.dumps(stamp))
    return run


def metadata(folder: Path) -> list[dict]:
    return read_json_lines(folder / "metadata.jsonl")


def test_what_a_person_added_goes_along(run, tmp_path):
    facts = {
        "class": "shoe", "prompt": "a shoe", "way": "from the class “shoe”", "words": ["boot"],
        "vector": [1.0] + [0.0] * 7, "cosine_to_class": 0.7, "pipeline": "0" * 16, "recipe": {"seed": 9},
    }  # fmt: skip
    add_picture(run.layout.added, encoded(picture((250, 9, 9), 32, 32)), facts)
    out = tmp_path / "out"
    assert export_images(Run.open(run.folder.path), out) == 5
    line = metadata(out)[-1]
    assert (line["file_name"], line["class"], line["seed"]) == ("added/000001.png", "shoe", 9)
    assert "hash" not in line
    assert Image.open(out / line["file_name"]).getpixel((0, 0)) == (250, 9, 9)
    assert "1 more were drawn and chosen by a person" in (out / "README.md").read_text()
    (run.layout.added / "000001.png").write_bytes(b"")
    with pytest.raises(StoreError, match=r"000001\.png is missing or damaged"):
        export_images(Run.open(run.folder.path), tmp_path / "other")


def test_the_images_that_are_kept_and_what_they_were_made_from(run, tmp_path):
    out = tmp_path / "out"
    assert export_images(run, out) == 4
    lines = metadata(out)
    assert [line["row"] for line in lines] == [0, 2, 3, 5]
    files = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert files == {"README.md", "metadata.jsonl", *(line["file_name"] for line in lines)}
    for line in lines:
        assert Image.open(out / line["file_name"]).getpixel((0, 0)) == (40 * line["row"], 9, 9)
        assert (line["class"], line["prompt"], line["words"]) == ("coat", "a coat", ["hat"])


def test_names_of_known_images_stay_behind(run, tmp_path):
    export_images(run, tmp_path / "out")
    assert all("/data/" in line["anchor"] for line in run.provenance)
    for name in ("metadata.jsonl", "README.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "/data/" not in text
        assert str(tmp_path) not in text
    assert not any("anchor" in key for line in metadata(tmp_path / "out") for key in line)


@pytest.mark.parametrize("license", [None, "cc-by-4.0"])
def test_the_card(run, tmp_path, license):
    export_images(run, tmp_path / "out", **({"license": license} if license else {}))
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == (license or "unknown")
    assert (card.data.size_categories, card.data.task_categories) == ("n<1K", ["image-classification"])
    text = " ".join(card.text.split())
    assert "4 images around these classes that show none of them" in text
    assert "Each class has 0 to 4: coat, shoe." in text
    assert "Of 6 images these were dropped: - 2: it shows its class" in text
    assert "Generator: `embedded`, dpm++, 8 steps, guidance 3" in text
    assert ("The licence is not stated" in text) == (license is None)


def test_the_folder_of_a_generator_is_named_and_not_where_it_lies(run, tmp_path):
    config = overlay(Config(), {"decode": {"source": str(tmp_path / "my-model")}})
    export_images(Run(run.folder.path, config), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Generator: `my-model`," in text
    assert str(tmp_path) not in text


def test_datasets_reads_it(run, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export_images(run, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "out" / "README.md").read_text()
    names: dict = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    images = names["images"]
    assert images["row"][:] == [0, 2, 3, 5]
    assert images["class"][:] == ["coat"] * 4
    assert [image.convert("RGB").getpixel((0, 0))[0] for image in images["image"]] == [0, 80, 120, 200]


def test_a_damaged_image_is_named_and_nothing_is_written(run, tmp_path):
    picture((1, 2, 3), 8, 8).save(run.files.paths[2])
    with pytest.raises(
        DataError, match=r"^coat-0/000002\.png is missing or damaged in .*\. Mend .* --verify"
    ):
        export_images(run, tmp_path / "out")
    run.files.paths[2].unlink()
    run.files.paths[3].unlink()
    with pytest.raises(DataError, match=r"^2 images \(coat-0/000002\.png, .*000003\.png\) are missing or"):
        export_images(run, tmp_path / "out")
    picture((1, 2, 3), 8, 8).save(run.files.paths[4])  # it is dropped
    assert not (tmp_path / "out").exists()


def test_runs_without_imagined_images_are_refused(run, tmp_path):
    for options, message in (
        ({"decode": {"output": "latents"}}, "has latents and no images: its outliers are latents"),
        ({"regularize": {"outliers": "real", "real": "x"}}, "imagines nothing: real images stand"),
    ):
        with pytest.raises(DataError, match=message):
            export_images(Run(run.folder.path, overlay(Config(), options)), tmp_path / "out")
    shutil.rmtree(run.layout.keep_mask.parent)
    with pytest.raises(StoreError, match="filter"):
        export_images(Run.open(run.folder.path), tmp_path / "out")


def test_the_command(run, tmp_path, capsys):
    out, folder = tmp_path / "out", str(run.folder.path)
    assert main(["export", folder, "--outliers", str(out), "--license", "cc0-1.0"]) == 0
    assert f"{out}: 4 imagined images, with a card" in capsys.readouterr().out
    assert DatasetCard.load(out / "README.md").data.license == "cc0-1.0"
    assert main(["export", folder, "--outliers", str(out)]) == 2
    assert "holds something already" in capsys.readouterr().err
    assert main(["export", folder]) == 2
    assert "Give --out FOLDER for the guard, --outliers FOLDER" in plain(capsys.readouterr().err)
