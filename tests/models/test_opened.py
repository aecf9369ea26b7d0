"""Somebody's trained network, opened for a guard: its pre-processing, its outputs' names, and made again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification

from oodream.core.errors import StoreError
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.tensors import save_tensors
from oodream.models.classifier import Classifier, open_classifier
from oodream.models.factory import trained_network
from oodream.models.opened import Center, Said, full_name, open_network, rebuild
from tests.helpers.networks import PlainNetwork, made, pixels, saved

IMAGENET = Said(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def factory() -> nn.Module:
    """What somebody's module has: a network with weights of its own."""
    with seeded(0, "factory"):
        return PlainNetwork("").eval()


def outputs(network: nn.Module, size: int) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(pixels(3, size)).logits_BC


def again(opened, classes: int) -> nn.Module:
    """The network as a folder would give it back: from JSON and tensors."""
    state = {key: tensor.clone() for key, tensor in opened.network.state_dict().items()}
    settings = json.loads(json.dumps(opened.settings))
    return rebuild(settings, classes, opened.preprocessing.resized, state)


# Pre-processing


def test_the_middle_of_a_larger_square_is_what_a_network_gets():
    network = made("resnet8")
    x = pixels(2, 20)
    assert torch.equal(Center(network, 16).eval()(x).logits_BC, network.eval()(x[..., 2:18, 2:18]).logits_BC)


def test_a_transformers_model_says_all_of_itself(folder):
    processor = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "resample": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    config = json.loads((folder / "config.json").read_text())
    names = ["tench, Tinca tinca", "cock", "hen", "ostrich", "brambling"]
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    opened = open_network(f"hf:{folder}", None, Said())
    p = opened.preprocessing
    assert (p.size, p.resized, p.mean, p.std) == (32, 40, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert p.remarks == ("its own resizing is bilinear, here it is bicubic",)
    assert opened.names[:2] == (("tench", "Tinca tinca"), ("cock",))
    assert opened.normalised
    theirs = AutoModelForImageClassification.from_pretrained(folder).eval()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (p.mean, p.std))
    x = (pixels(3, 40)[..., 4:36, 4:36] / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(outputs(opened.network, 40), theirs(x).logits)


def test_a_classifiers_folder_says_all_of_itself(folder, tmp_path):
    """Its normalisation is that of its training, which the network holds."""
    network = trained_network(f"hf:{folder}").eval()
    settings = {"backbone": f"hf:{folder}", "loss": "cross_entropy", "loss_options": {}}
    Classifier(
        network=network, loss=make("losses", "cross_entropy"), names=tuple("abcde"), size=32, threshold=0.0,
        settings=settings,
    ).save(tmp_path / "baseline-s0")  # fmt: skip
    opened = open_classifier(tmp_path / "baseline-s0", Said())
    p = opened.preprocessing
    assert (p.size, p.resized, opened.names) == (32, 32, tuple((name,) for name in "abcde"))
    assert p.mean == pytest.approx((0.1, 0.2, 0.3))
    torch.testing.assert_close(outputs(opened.network, 32), outputs(network, 32))
    assert torch.equal(outputs(again(opened, 5), 32), outputs(opened.network, 32))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": {"shortest_edge": 28}, "crop_pct": 0.875}, (28, 32)),
        ({"size": {"height": 32, "width": 32}}, (32, 32)),
        ({"size": 32}, (32, 32)),
    ],
)
def test_processors_say_their_size_in_several_ways(folder, processor, expected):
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    p = open_network(f"hf:{folder}", None, Said(size=32) if expected[0] == 28 else Said()).preprocessing
    if expected[0] == 28:  # the crop's share is kept for another size
        assert (p.size, p.resized) == (32, round(32 / 0.875))
    else:
        assert (p.size, p.resized) == expected
    assert any("squeezes" in remark for remark in p.remarks) == ("height" in str(processor))


def test_what_the_user_says_wins(folder):
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 32, "image_mean": [0.1] * 3}))
    opened = open_network(f"hf:{folder}", None, Said(crop=0.8, mean=(0.3,), std=(0.2, 0.3, 0.4)))
    p = opened.preprocessing
    assert (p.size, p.resized, p.mean, p.std) == (32, 40, (0.3,) * 3, (0.2, 0.3, 0.4))
    assert not opened.normalised
    assert opened.network.network.mean.flatten().tolist() == pytest.approx([0.3] * 3)


@pytest.fixture
def exported(tmp_path):
    """A program for batches of any length, which says its size and nothing of its pixels."""
    file = tmp_path / "net.pt2"
    x = torch.rand(2, 3, 16, 16)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(factory(), (x,), dynamic_shapes=shapes), file)
    return file


def test_a_file_says_its_size_and_is_asked_for_the_rest(exported):
    with pytest.raises(ValueError, match=r"does not say how its pixels are normalised.*--mean 0\.485"):
        open_network(str(exported), None, Said())
    opened = open_network(str(exported), None, IMAGENET)
    assert (opened.preprocessing.size, opened.preprocessing.resized) == (16, 16)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET.mean, IMAGENET.std))
    with torch.no_grad():
        expected = factory()((pixels(3, 16) / 255 - mean) / std)
    torch.testing.assert_close(outputs(opened.network, 16), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(mean=(0.5,)), "--mean and --std"),
        (Said(mean=(0.5, 0.5), std=(1.0,)), "--mean has one value, or three"),
        (Said(mean=(0.5,), std=(0.0,)), "--std is above 0"),
    ],
)
def test_pre_processing_that_cannot_be(exported, said, message):
    with pytest.raises(ValueError, match=message):
        open_network(str(exported), None, said)


def test_a_network_that_needs_another_size_says_so(exported):
    opened = open_network(str(exported), None, replace(IMAGENET, size=15))
    with pytest.raises(ValueError, match=r"cannot be run on images of 15 x 15 pixels.*--size"):
        opened.try_out()


# Names of files, factories and weights


def test_a_files_format_is_found_by_its_content(exported, tmp_path):
    renamed = exported.rename(tmp_path / "net.pt")
    assert full_name(str(renamed)) == full_name(f"torchscript:{renamed}") == f"exported:{renamed}"
    assert full_name("timm:resnet18") == "timm:resnet18"
    weights = tmp_path / "weights.pth"
    torch.save(factory().state_dict(), weights)
    with pytest.raises(ValueError, match=r"weights\.pth is no ONNX file.*--weights"):
        full_name(str(weights))


def test_a_factorys_code_runs_only_where_that_is_wanted():
    name = f"{__name__}:factory"
    with pytest.raises(ValueError, match="--plugins"):
        open_network(name, None, Said(size=16, mean=(0.5,), std=(0.5,)))
    opened = open_network(name, None, Said(size=16, mean=(0.5,), std=(0.5,)), plugins=True)
    with torch.no_grad():
        expected = factory()(pixels(3, 16) / 127.5 - 1)
    torch.testing.assert_close(outputs(opened.network, 16), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="does not say how large its images are"):
        open_network(name, None, Said(mean=(0.5,), std=(0.5,)), plugins=True)
    with pytest.raises(ValueError, match=r"The network 'nowhere:none' cannot be imported"):
        open_network("nowhere:none", None, Said(size=16, mean=(0.5,), std=(0.5,)), plugins=True)
    with pytest.raises(ValueError, match=r"returns a str\. It takes no arguments"):
        open_network("os:getcwd", None, Said(size=16, mean=(0.5,), std=(0.5,)), plugins=True)


def test_weights_of_the_librarys_own_names_are_understood(folder, tmp_path):
    """A network fine-tuned elsewhere: another number of classes, and its library's names of the weights."""
    theirs = AutoModelForImageClassification.from_pretrained(
        folder, num_labels=3, ignore_mismatched_sizes=True
    ).eval()
    save_tensors(tmp_path / "own.safetensors", theirs.state_dict())
    network = trained_network(f"hf:{folder}", tmp_path / "own.safetensors").eval()
    assert network.head.out_features == 3
    std = network.std
    with torch.no_grad():
        expected = theirs((pixels(2) / 255 - network.mean) / std).logits
        torch.testing.assert_close(network(pixels(2)).logits_BC, expected)


def test_built_in_networks_come_from_a_file_alone(tmp_path):
    file = saved(tmp_path / "w.safetensors", made("resnet8", 4))
    opened = open_network("resnet8", file, Said(size=16))
    assert outputs(opened.network, 16).shape == (3, 4)
    with pytest.raises(ValueError, match="has no published weights"):
        open_network("resnet8", None, Said(size=16))
    with pytest.raises(ValueError, match="normalises its pixels itself"):
        open_network("resnet8", file, Said(size=16, mean=(0.5,), std=(0.5,)))
    with pytest.raises(ValueError, match="no weights of the last layer"):
        open_network("resnet8", saved(tmp_path / "v.safetensors", nn.Linear(2, 2)), Said(size=16))


# Made again


@pytest.mark.parametrize("kind", ["hf", "exported", "factory", "built-in"])
def test_a_network_is_made_again_of_what_a_folder_holds(kind, folder, exported, tmp_path, monkeypatch):
    """With some of its classes only, in another order, and where nothing of its source is left."""
    if kind == "hf":
        opened = open_network(f"hf:{folder}", None, Said(size=32, crop=0.8))
    elif kind == "exported":
        opened = open_network(str(exported), None, Said(mean=(0.2,), std=(0.3,), crop=0.8))
    elif kind == "factory":
        said = Said(size=16, crop=0.8, mean=(0.2,), std=(0.3,))
        opened = open_network(f"{__name__}:factory", None, said, plugins=True)
    else:
        file = saved(tmp_path / "w.safetensors", made("resnet8", 4))
        opened = open_network("resnet8", file, Said(size=16, crop=0.8))
    opened.network.choose(torch.tensor([2, 0]))
    for file in folder.iterdir():
        file.unlink()
    exported.unlink()
    side = opened.preprocessing.resized
    assert torch.equal(outputs(again(opened, 2), side), outputs(opened.network, side))
    assert str(tmp_path) not in json.dumps(opened.settings)


def test_tensors_of_another_network_are_refused():
    opened = open_network(f"{__name__}:factory", None, Said(size=16, mean=(0.2,), std=(0.3,)), plugins=True)
    state = dict(opened.network.state_dict())
    state.pop("network.head.bias")
    with pytest.raises(StoreError, match="are not those of"):
        rebuild(opened.settings, 3, 16, state)


# timm and torchvision


def test_timms_pre_processing_names_and_weights(timm, tmp_path):
    theirs = timm.create_model("mobilenetv2_035").eval()
    save_tensors(tmp_path / "w.safetensors", theirs.state_dict())
    opened = open_network("timm:mobilenetv2_035", tmp_path / "w.safetensors", Said(size=64))
    config = timm.data.resolve_model_data_config(theirs)
    p = opened.preprocessing
    assert (p.size, p.resized) == (64, round(64 / config["crop_pct"]))
    assert (p.mean, p.std) == (config["mean"], config["std"])
    assert opened.names[0][-1] == "n01440764"
    assert len(opened.names) == 1000
    side, start = p.resized, (p.resized - 64) // 2
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (p.mean, p.std))
    x = (pixels(3, side)[..., start : start + 64, start : start + 64] / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(outputs(opened.network, side), theirs(x), rtol=1e-3, atol=1e-4)
    opened.network.choose(torch.tensor([5, 7, 1]))
    assert torch.equal(outputs(again(opened, 3), side), outputs(opened.network, side))


def test_torchvisions_pre_processing_names_and_weights(tmp_path):
    try:
        import torchvision
    except Exception as error:  # a torchvision for another torch raises more than ImportError
        pytest.skip(f"torchvision cannot be imported: {error}")
    theirs = torchvision.models.mobilenet_v2(num_classes=7).eval()
    save_tensors(tmp_path / "w.safetensors", theirs.state_dict())
    opened = open_network("torchvision:mobilenet_v2", tmp_path / "w.safetensors", Said(size=64, crop=1.0))
    assert opened.preprocessing.remarks == ("its own resizing is bilinear, here it is bicubic",)
    assert opened.names[0] == ("tench",)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET.mean, IMAGENET.std))
    with torch.no_grad():
        expected = theirs((pixels(3, 64) / 255 - mean) / std)
    torch.testing.assert_close(outputs(opened.network, 64), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(outputs(again(opened, 7), 64), outputs(opened.network, 64))
