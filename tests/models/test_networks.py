"""Image networks by name: sizes, one convention for all, weights to begin with, and what is refused."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from oodream.config import AlignConfig, Optimisation, TrainConfig
from oodream.core.files import save_tensors
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.types import ClassBook, Loss, Terms
from oodream.data.images import from_array
from oodream.models.external import split
from oodream.models.factory import backbone, load_weights
from oodream.models.inference import outputs
from oodream.models.resnet import BACKBONES
from oodream.synthesis.align import align
from oodream.training.batches import Mixture
from oodream.training.loop import fit
from oodream.training.train import train

CPU = torch.device("cpu")
NONE = Optimisation(epochs=0)
VIT = ViTConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=32,
    patch_size=8,
    num_labels=5,
)
RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)


def pixels(n: int = 4, size: int = 32):
    return torch.randint(
        0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def images(n: int = 24, classes: int = 3):
    """Images whose class is their brightness."""
    y = torch.arange(n) % classes
    return from_array(
        "x",
        pixels(n) // 4 + (60 * y).to(torch.uint8)[:, None, None, None],
        y,
        [f"c{i}" for i in range(classes)],
    )


def made(name: str, classes: int = 3, **more):
    with seeded(0, "test"):
        return backbone(name, classes, **more)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def check_convention(model: nn.Module, size: int = 32, classes: int = 3) -> None:
    model.eval()
    with torch.no_grad():
        out = model(pixels(2, size))
        assert torch.equal(model.head(out.z_BF), out.logits_BC)
    assert out.logits_BC.shape == (2, classes)
    assert out.z_BF.ndim == 2
    assert out.logits_BC.dtype == out.z_BF.dtype == torch.float32


@pytest.fixture(params=["vit", "resnet"])
def folder(request, tmp_path):
    """A transformers image classifier of five classes with weights and its own normalisation."""
    path = tmp_path / request.param
    with seeded(1, "test"):
        model = (
            ViTForImageClassification(VIT) if request.param == "vit" else ResNetForImageClassification(RESNET)
        )
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]})
    )
    return path


# Built-in networks


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18-224", 11_689_512), ("resnet34-224", 21_797_672), ("resnet50-224", 25_557_032)],
)
def test_as_many_parameters_as_torchvisions(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in backbone(name, 1000).parameters()) == parameters


@pytest.mark.parametrize("name", BACKBONES)
def test_logits_are_the_head_of_the_features(name):
    check_convention(made(name))


def test_the_stem_is_cifars_or_imagenets():
    assert made("resnet18").stem(torch.zeros(1, 3, 32, 32)).shape[2:] == (32, 32)
    assert made("resnet18-224").stem(torch.zeros(1, 3, 224, 224)).shape[2:] == (56, 56)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet55", "resnet50"),
        ("resnet34_224", "resnet34-224"),
        ("vgg", "timm:NAME, hf:NAME"),
        ("hf:", "hf:NAME"),
    ],
)
def test_an_unknown_name_names_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"No backbone is called '{name}'.*{near}"):
        backbone(name, 3)


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


# timm


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'oodream[timm]'")):
        backbone("timm:resnet18", 3)


@pytest.fixture
def timm():
    try:
        import timm
    except Exception as error:  # a torchvision for another torch raises more than ImportError
        pytest.skip(f"timm cannot be imported: {error}")
    return timm


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


# Weights to begin with


def saved(path, model):
    save_tensors(path, model.state_dict())
    return path


def test_weights_of_a_file_and_of_a_folder(tmp_path):
    old = made("resnet8")
    file = saved(tmp_path / "model.safetensors", old)
    for source in (file, tmp_path):
        new = backbone("resnet8", 3)
        load_weights(new, source)
        assert same(new, old)


def test_the_head_of_other_classes_is_left_out_or_refused(tmp_path):
    old, new = made("resnet8", 7), backbone("resnet8", 3)
    fresh = new.head.weight.clone()
    file = saved(tmp_path / "w.safetensors", old)
    with pytest.raises(
        ValueError, match="has 7 classes, the network 3: these weights belong to another list of classes"
    ):
        load_weights(new, file)
    with pytest.warns(UserWarning, match="has 7 classes, the network 3: it is left out"):
        load_weights(new, file, new_head=True)
    assert same(new.stages, old.stages)
    assert torch.equal(new.head.weight, fresh)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    file = saved(tmp_path / "w.safetensors", made("resnet8"))
    with pytest.raises(
        ValueError,
        match=r"another network: head\.weight is \(3, 128\) in the file, \(3, 512\).*; and \d+ more",
    ):
        load_weights(backbone("resnet18", 3), file, new_head=True)
    with pytest.raises(
        ValueError,
        match=r"another network: stem\.0\.weight is \(64, 3, 3, 3\) in the file, \(64, 3, 7, 7\).*network\.$",
    ):
        load_weights(backbone("resnet18-224", 3), saved(file, made("resnet18")))


def test_only_safetensors_are_read(tmp_path):
    for name in ("w.pt", "w.pth", "w.bin"):
        torch.save(made("resnet8").state_dict(), tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is not read.*run code.*save_file.*w\.safetensors"):
            load_weights(backbone("resnet8", 3), tmp_path / name)
    with pytest.raises(ValueError, match="does not exist"):
        load_weights(backbone("resnet8", 3), tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        load_weights(backbone("resnet8", 3), tmp_path / "w.safetensors")


def begun(state, **options):
    config = TrainConfig(loss=("cross_entropy",), optimisation=NONE, **options)
    return train(Mixture(id=images()), config, 0, CPU, state, "t")[0]


def test_training_begins_where_it_is_told_to(folder, tmp_path):
    name, state = f"hf:{folder}", tmp_path / "state"
    published = made(name, pretrained=True)
    assert same(begun(state, backbone=name).body, published.body)
    scratch = begun(state, backbone=name, init="scratch")
    assert not same(scratch.body, published.body)
    file = saved(tmp_path / "w.safetensors", scratch)
    assert same(begun(state, backbone=name, init=str(file)), scratch)
    assert same(begun(state), begun(state, init="scratch"))


def test_the_aligned_encoder_begins_with_published_weights(folder, tmp_path):
    book = ClassBook(names=("a", "b", "c"), prompts=("a", "b", "c"), tokens_CD=torch.eye(3, 6), space="s")
    config = AlignConfig(backbone=f"hf:{folder}", optimisation=NONE)
    model, _ = align(images(), book, config, 0, CPU, tmp_path / "state")
    assert same(model.network.body, made(f"hf:{folder}", 6, pretrained=True).body)


def test_a_transformers_network_is_trained(folder, tmp_path):
    model, config = made(f"hf:{folder}"), Optimisation(batch=8, epochs=2, lr=0.01)
    log = fit(
        model, make("losses", "cross_entropy"), Mixture(id=images()), config, 0, CPU, tmp_path / "s", "t"
    )
    assert len(log) == 2
    assert torch.isfinite(outputs(model, images(), CPU).logits_BC).all()


def test_dropout_belongs_to_the_seed_and_the_step(tmp_path):
    ViTForImageClassification(
        ViTConfig(**{**VIT.to_diff_dict(), "hidden_dropout_prob": 0.5})
    ).save_pretrained(tmp_path / "vit")
    networks = []
    for i in range(2):
        torch.rand(i)  # the global generator stands elsewhere
        networks.append(made(f"hf:{tmp_path / 'vit'}"))
        config = Optimisation(batch=8, epochs=1, lr=0.01)
        fit(
            networks[i],
            make("losses", "cross_entropy"),
            Mixture(id=images()),
            config,
            0,
            CPU,
            tmp_path / str(i),
            "t",
        )
    assert networks[0].body.config.hidden_dropout_prob == 0.5
    assert same(*networks)


# Precision


class Watching(Loss):
    """Cross-entropy that remembers what it received."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def forward(self, step):
        self.seen |= {
            part.dtype for output in (step.id, step.ood) for part in (output.logits_BC, output.z_BF)
        }
        return Terms(total=F.cross_entropy(step.id.logits_BC, step.y_B))


def trained(precision, tmp_path):
    inside: set[torch.dtype] = set()
    model, loss = made("resnet8"), Watching()
    model.stages.register_forward_hook(lambda module, given, out: inside.add(out.dtype))
    data = Mixture(id=images(), outliers=images(8))
    log = fit(
        model,
        loss,
        data,
        Optimisation(batch=8, epochs=3, lr=0.05, precision=precision),
        0,
        CPU,
        tmp_path / precision,
        "t",
    )
    return model, log, inside, loss.seen


def test_mixed_precision_trains_and_losses_stay_float32(tmp_path):
    model, log, inside, seen = trained("bf16", tmp_path)
    assert inside == {torch.bfloat16}
    assert seen == {torch.float32}
    assert log[-1]["loss"] < log[0]["loss"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    out = outputs(model, images(), CPU)
    assert out.logits_BC.dtype == out.z_BF.dtype == torch.float32
    assert torch.isfinite(out.logits_BC).all()


def test_auto_is_float32_on_the_cpu(tmp_path):
    (a, log_a, inside, _), (b, log_b, _, _) = trained("auto", tmp_path), trained("fp32", tmp_path)
    assert inside == {torch.float32}
    assert log_a == log_b
    assert same(a, b)


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision is auto, bf16, fp32, not 'fp16'"):
        trained("fp16", tmp_path)


# Any network


class Plain(nn.Module):
    """Somebody's network, with layers after which a careless split would go wrong."""

    def __init__(self, ends: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
        self.ends = ends

    def forward(self, x):
        y = self.classifier(self.body(x))
        return y.softmax(1) if self.ends == "softmax" else y


@pytest.mark.parametrize("pooled", [False, True])
def test_any_network_is_split_where_its_logits_come_from(pooled):
    with seeded(0, "test"):
        network = (
            Plain("")
            if not pooled
            else nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.Flatten())
        )
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    found = split(network, 16, mean, std)
    check_convention(found, 16)
    x = (pixels(2, 16).float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(found(pixels(2, 16)).logits_BC, network.eval()(x))
    assert found.head.in_features == (6 if pooled else 8)


def test_a_network_that_ends_otherwise_is_refused():
    with pytest.raises(ValueError, match="Plain come from no linear layer"):
        split(Plain("softmax"), 16)


def test_exchange_formats_give_their_own_logits(tmp_path):
    """Traced by PyTorch, exported to ONNX, and read back by name: the same logits, and no features."""
    with seeded(0, "test"):
        network = Plain("").eval()
    scripted, onnx = tmp_path / "n.ts", tmp_path / "n.onnx"
    x = pixels(2, 16).float() / 255
    torch.jit.trace(network, x).save(scripted)
    torch.onnx.export(
        network, (x,), onnx, input_names=["x"], dynamic_shapes=({0: "batch"},), dynamo=True, verbose=False
    )
    with torch.no_grad():
        expected = network(pixels(5, 16).float() / 255)
    for name in (f"torchscript:{scripted}", f"onnx:{onnx}"):
        found = backbone(name, 3, pretrained=True)(pixels(5, 16))
        torch.testing.assert_close(found.logits_BC, expected, rtol=1e-4, atol=1e-5)
        assert found.z_BF.shape == (5, 0)
        with pytest.raises(ValueError, match="knows 3 classes, and 4 are asked for"):
            backbone(name, 4, pretrained=True)(pixels(5, 16))
        with pytest.raises(ValueError, match="can be measured and not be trained"):
            backbone(name, 3)
    with pytest.raises(ValueError, match="gives no gradients"):
        backbone(f"onnx:{onnx}", 3, pretrained=True)(pixels(5, 16).float().requires_grad_())


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("no network")
    for family in ("onnx", "torchscript"):
        with pytest.raises(ValueError, match="does not exist"):
            backbone(f"{family}:{tmp_path / 'none'}", 3, pretrained=True)
        with pytest.raises(ValueError, match="is no "):
            backbone(f"{family}:{tmp_path / 'text'}", 3, pretrained=True)


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
