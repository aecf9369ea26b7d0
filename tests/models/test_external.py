"""Other people's networks: by name, or split where their logits come from."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, ViTConfig, ViTForImageClassification, ViTModel

from oodream.config import AlignConfig, Optimisation
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.types import ClassBook
from oodream.models.external import split
from oodream.models.factory import backbone
from oodream.models.inference import Extractor
from oodream.synthesis.align import align
from oodream.training.loop import fit
from tests.helpers.networks import VIT, PlainNetwork, check_convention, close, images, made, pixels, same
from tests.helpers.training import CPU, known

# transformers


def test_a_transformers_network_keeps_the_convention(folder):
    check_convention(made(f"hf:{folder}"))


def test_published_weights_give_transformers_own_logits(folder):
    model = made(f"hf:{folder}", 5, pretrained=True).eval()
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    x = (pixels().permute(0, 2, 3, 1) / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(model(pixels()).logits_BC, theirs(x.permute(0, 3, 1, 2)).logits)


def test_another_class_count_gets_a_fresh_head_on_the_published_body(folder):
    five, three = made(f"hf:{folder}", 5, pretrained=True), made(f"hf:{folder}", 3, pretrained=True)
    assert same(five.body, three.body)
    check_convention(three)
    assert not same(three.body, made(f"hf:{folder}", 3).body)


def test_rebuilding_reads_the_configuration_alone(folder):
    model = made(f"hf:{folder}", pretrained=True).eval()
    (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").unlink()
    again = backbone(f"hf:{folder}", 3)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(pixels()).logits_BC, model(pixels()).logits_BC)
    with pytest.raises(ValueError, match=r"has no weights.*scratch"):
        backbone(f"hf:{folder}", 3, pretrained=True)
    with pytest.raises(ValueError, match=r"has no weights.*--weights FILE"):  # to be used as it is
        backbone(f"hf:{folder}", 0, pretrained=True)


def test_weights_without_a_head_are_enough_and_weights_without_a_layer_are_not(tmp_path):
    ViTModel(VIT, add_pooling_layer=False).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no preprocessor_config"):
        check_convention(backbone(f"hf:{tmp_path}", 3, pretrained=True))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"lack .*\.1\..*\(\d+ in all\)"):
        backbone(f"hf:{tmp_path}", 3, pretrained=True)


def test_pickled_weights_are_refused_with_the_safe_way(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*run code.*save_pretrained"):
        backbone(f"hf:{folder}", 3, pretrained=True)


def test_code_in_a_folder_is_not_run(tmp_path):
    auto = {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (tmp_path / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import PreTrainedConfig as Config\n"
    )
    for pretrained in (False, True):
        with pytest.raises(ValueError, match=r"cannot be made|has no weights"):
            backbone(f"hf:{tmp_path}", 3, pretrained)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="hf:"):
        backbone(f"hf:{tmp_path}", 3, pretrained=True)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_image_classifier_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"hf:{tmp_path} cannot be made"):
        backbone(f"hf:{tmp_path}", 3)
    BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"hf:{tmp_path} cannot be made.*BertConfig"):
        backbone(f"hf:{tmp_path}", 3)


def test_a_transformers_network_is_trained(folder, tmp_path):
    model, config = made(f"hf:{folder}"), Optimisation(batch=8, epochs=2, lr=0.01)
    log = fit(model, make("losses", "cross_entropy"), [known(images())], config, 0, CPU, tmp_path / "s", "t")
    assert len(log) == 2
    assert torch.isfinite(Extractor(model)(images()).logits_BC).all()


def test_dropout_belongs_to_the_seed_and_the_step(tmp_path):
    ViTForImageClassification(
        ViTConfig(**{**VIT.to_diff_dict(), "hidden_dropout_prob": 0.5})
    ).save_pretrained(tmp_path / "vit")
    networks = []
    for i in range(2):
        torch.rand(i)  # the global generator stands elsewhere
        networks.append(made(f"hf:{tmp_path / 'vit'}"))
        config = Optimisation(batch=8, epochs=1, lr=0.01)
        loss = make("losses", "cross_entropy")
        fit(networks[i], loss, [known(images())], config, 0, CPU, tmp_path / str(i), "t")
    assert networks[0].body.config.hidden_dropout_prob == 0.5
    assert same(*networks)


def test_the_aligned_encoder_begins_with_published_weights(folder, tmp_path):
    book = ClassBook(names=("a", "b", "c"), prompts=("a", "b", "c"), tokens_CD=torch.eye(3, 6), space="s")
    config = AlignConfig(backbone=f"hf:{folder}", optimisation=Optimisation(lr=1e-30, batch=24, epochs=1))
    model, _ = align(images(), book, config, 0, CPU, tmp_path / "state")
    assert close(model.network.body, made(f"hf:{folder}", 6, pretrained=True).body)


# timm


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=re.escape("pip install '.[timm]'")):
        backbone("timm:resnet18", 3)


@pytest.mark.parametrize(
    ("name", "size"), [("test_resnet", 32), ("test_vit", 160), ("resnetv2_50x1_bit", 32)]
)
def test_timms_features_and_logits(timm, name, size):
    model = made(f"timm:{name}")
    check_convention(model, size)
    with seeded(0, "test"):
        theirs = timm.create_model(name, num_classes=3).eval()
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    x = (pixels(2, size) / 255 - mean) / std
    with torch.no_grad():
        z = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        torch.testing.assert_close(model(pixels(2, size)).z_BF, z.flatten(1))
        torch.testing.assert_close(model(pixels(2, size)).logits_BC, theirs(x))


def test_timms_refusals(timm):
    with pytest.raises(ValueError, match=r"no model 'resnet51'.*resnet50"):
        backbone("timm:resnet51", 3)
    with pytest.raises(ValueError, match="no model 'local-dir:"):
        backbone("timm:local-dir:/nowhere", 3)
    with pytest.raises(ValueError, match="does not end in one linear layer"):
        backbone("timm:deit_tiny_distilled_patch16_224", 3)
    with pytest.raises(ValueError, match=r"cannot be made.*scratch"):
        backbone("timm:test_vit.no_such_tag", 3, pretrained=True)
    with pytest.raises(ValueError, match=r"cannot be made.*--weights FILE"):
        backbone("timm:test_vit.no_such_tag", 0, pretrained=True)


# torchvision


def test_torchvisions_networks_are_split():
    """With torchvision where it is installed; without it, the error says what is missing."""
    try:
        import torchvision
    except Exception:
        with pytest.raises(ValueError, match="needs torchvision"):
            backbone("torchvision:resnet18", 3)
        return
    assert torchvision
    check_convention(backbone("torchvision:resnet18", 3), 64)
    with pytest.raises(ValueError, match="no image classifier 'resnet19'"):
        backbone("torchvision:resnet19", 3)


# Any network


@pytest.mark.parametrize("pooled", [False, True])
def test_any_network_is_split_where_its_logits_come_from(pooled):
    with seeded(0, "test"):
        network = (
            PlainNetwork("")
            if not pooled
            else nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.Flatten())
        )
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    adapted = split(network, 16, mean, std)
    check_convention(adapted, 16)
    x = (pixels(2, 16).float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(adapted(pixels(2, 16)).logits_BC, network.eval()(x))
    assert adapted.head.in_features == (6 if pooled else 8)


def test_a_network_that_ends_otherwise_is_refused():
    with pytest.raises(ValueError, match="PlainNetwork come from no linear layer"):
        split(PlainNetwork("softmax"), 16)


def test_a_network_whose_logits_are_not_finite_is_refused_for_that():
    network = PlainNetwork("")
    next(network.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match="The logits of this PlainNetwork are not finite"):
        split(network, 16)
