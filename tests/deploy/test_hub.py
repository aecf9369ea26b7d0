"""Guards on the hub: what is pushed comes back, nothing but data travels, and the card says what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from oodream.core.errors import StoreError
from oodream.core.files import read_json
from oodream.deploy.guard import Guard
from tests.helpers.guarded import clothes, guard
from tests.helpers.hub import FolderHub
from tests.helpers.rows import control_row


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FolderHub:
    return FolderHub.install(tmp_path / "hub", monkeypatch)


def test_what_is_pushed_comes_back(hub):
    url = guard().push_to_hub("me/clothes", private=True, commit_message="A guard", token="secret")
    assert url == "https://hub.invalid/me/clothes/commit/1"
    assert (hub.options["private"], hub.options["commit_message"]) == (True, "A guard")
    assert hub.options["token"] == "secret"
    again = Guard.from_pretrained("me/clothes")
    assert again.predict(clothes()[1]) == guard().predict(clothes()[1])
    assert again.at(0.3).threshold == guard().at(0.3).threshold
    assert Guard.load("hub:me/clothes").threshold == guard().threshold


def test_only_data_travels(hub):
    guard().push_to_hub("me/clothes")
    repository = hub.root / "model" / "me" / "clothes"
    assert {file.name for file in repository.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "loss.safetensors", "guard.safetensors",
    }  # fmt: skip
    (repository / "pytorch_model.bin").write_bytes(b"a pickle")
    (repository / "module.py").write_text("raise SystemExit")
    Guard.from_pretrained("me/clothes", revision="v1", cache_dir="elsewhere")
    assert hub.asked == [["*.json", "*.safetensors"]]
    assert {file.suffix for file in (hub.root / "cache" / "me" / "clothes").iterdir()} == {
        ".json", ".safetensors",
    }  # fmt: skip
    assert (hub.options["revision"], hub.options["cache_dir"]) == ("v1", "elsewhere")


def test_a_shared_guard_cannot_allow_itself_plugins(hub):
    guard().push_to_hub("me/clothes")
    file = hub.root / "model" / "me" / "clothes" / "config.json"
    config = read_json(file)
    config |= {"detector": {"name": "evil.module:Detector", "options": {}}, "plugins": True, "device": "meta"}
    file.write_text(json.dumps(config))
    with pytest.raises(StoreError, match=r"names the plug-in 'evil\.module:Detector'"):
        Guard.from_pretrained("me/clothes")
    with pytest.raises(StoreError, match=r"names the plug-in 'evil\.module:Detector'"):
        Guard.load("hub:me/clothes")


def test_a_folder_is_taken_as_well(tmp_path):
    guard().save_pretrained(tmp_path / "mine")
    assert Guard.from_pretrained(tmp_path / "mine").threshold == guard().threshold
    assert Guard.load(tmp_path / "mine").threshold == guard().threshold
    assert (tmp_path / "mine" / "README.md").is_file()


def test_what_is_not_there_says_so(hub):
    with pytest.raises(StoreError, match="hub:me/hats cannot be fetched: 404: no such repository"):
        Guard.from_pretrained("me/hats")
    (hub.root / "model" / "me" / "empty").mkdir(parents=True)
    (hub.root / "model" / "me" / "empty" / "config.json").write_text("{}")
    with pytest.raises(StoreError, match="damaged, or were written by another version"):
        Guard.from_pretrained("me/empty")


def test_the_card_of_what_is_pushed(hub):
    measured = control_row("regularized", 0.9, 0.01)
    sets = [("digits", "far"), ("letters", "near"), ("mean", "near"), ("twice", "control")]
    rows = [replace(measured, dataset=name, group=group) for name, group in sets]
    guard().push_to_hub("me/clothes", rows=rows, license="apache-2.0")
    card = ModelCard.load(hub.root / "model" / "me" / "clothes" / "README.md")
    assert card.data.license == "apache-2.0"
    assert (card.data.library_name, card.data.pipeline_tag) == ("oodream", "image-classification")
    assert card.data.model_name == "me/clothes"
    assert [(r.dataset_type, r.metric_type) for r in card.data.eval_results] == [
        ("known", "accuracy"), ("digits", "auroc"), ("digits", "fpr95"), ("letters", "auroc"),
        ("letters", "fpr95"),
    ]  # fmt: skip
    assert 'guard = Guard.from_pretrained("me/clothes")' in card.text
    assert str(guard().guarantee) in card.text
    guard().push_to_hub("hats")
    card = ModelCard.load(hub.root / "model" / "me" / "hats" / "README.md")
    assert 'from_pretrained("OWNER/hats")' in card.text
    assert card.data.get("license") is None
    assert card.data.get("eval_results") is None


def test_the_mixin_leaves_a_guards_fields_alone(monkeypatch):
    """It would copy networks into a configuration, and cannot set a field of a frozen guard."""
    moved = guard().at(0.3)
    assert moved.classifier is guard().classifier
    assert replace(moved, threshold=0.0).classifier is guard().classifier
    assert "_hub_mixin_config" not in vars(moved)


def test_names_that_are_no_ascii_stay_as_they_are(tmp_path):
    names = ("Мантия", *guard().names[1:])
    named = replace(guard(), classifier=replace(guard().classifier, names=names))
    named.save_pretrained(tmp_path / "ü")
    assert "Мантия" in (tmp_path / "ü" / "README.md").read_text(encoding="utf-8")
    assert Guard.from_pretrained(Path(tmp_path / "ü")).names == names
