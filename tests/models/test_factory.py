"""Networks by name: sizes, one convention for all, and the weights that training begins with."""

from __future__ import annotations

import pytest
import torch

from oodream.config import Optimisation, TrainConfig
from oodream.core.seeding import seeded
from oodream.models.factory import backbone, initial_network, initial_weights_hash, load_weights
from oodream.models.resnet import BACKBONES
from oodream.training.train import make_loss, train
from tests.helpers.networks import check_convention, close, images, made, same, saved
from tests.helpers.training import CPU, known

HARDLY = Optimisation(lr=1e-30, batch=24, epochs=1)  # a step that moves no weight

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


# Weights to begin with


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


def test_training_begins_where_it_is_told_to(folder, tmp_path):
    name, state = f"hf:{folder}", tmp_path / "state"
    published = made(name, pretrained=True)
    assert same(initial_network(name, 3).body, published.body)
    scratch = made(name)
    with seeded(0, "test"):
        assert same(initial_network(name, 3, "scratch"), scratch)
    assert not same(scratch.body, published.body)
    file = saved(tmp_path / "w.safetensors", scratch)
    assert same(initial_network(name, 3, str(file)), scratch)
    with pytest.warns(UserWarning, match="has 3 classes, the network 4: it is left out"):
        assert same(initial_network(name, 4, str(file)).body, scratch.body)
    for init, begun in (("", published.body), (str(file), scratch.body)):
        config = TrainConfig(backbone=name, init=init, optimisation=HARDLY)
        trained = train([known(images())], config, 0, CPU, state, "t", loss=make_loss(("cross_entropy",)))
        assert close(trained.network.body, begun)
        state.unlink()


def test_initial_weights_have_a_hash_where_some_are_read(folder, tmp_path):
    name = f"hf:{folder}"
    assert initial_weights_hash("resnet8") == ""
    assert initial_weights_hash(name, "scratch") == initial_weights_hash("resnet8", "scratch") == "scratch"
    a, b = (saved(tmp_path / f"{i}.safetensors", made(name, 3 + i)) for i in range(2))
    hashes = {initial_weights_hash(name, str(file)) for file in (a, b)}
    assert len(hashes) == 2
    assert initial_weights_hash(name, str(a)) in hashes
    (tmp_path / "moved").mkdir()
    a.rename(tmp_path / "moved" / "model.safetensors")
    assert initial_weights_hash("resnet8", str(tmp_path / "moved")) in hashes, "the content counts"
    published = initial_weights_hash(name)
    assert published == initial_weights_hash(name), "a head that is made anew does not count"
    assert published not in {*hashes, "", "scratch"}


def test_features_of_a_z_network_are_standardised_in_every_image():
    network = made("resnet8-z", 3).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    output = network(images)
    torch.testing.assert_close(output.z_BF.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(output.z_BF.std(1), torch.full((4,), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(output.logits_BC, network.head(output.z_BF))
    plain = made("resnet8", 3).eval()
    plain.load_state_dict(network.state_dict(), strict=False)
    z = plain(images).z_BF
    expected = 0.5 * (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    torch.testing.assert_close(output.z_BF, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("names", [("resnet8-z", "resnet8"), ("resnet8", "resnet8-z")])
def test_weights_of_a_z_network_fit_no_other(names, tmp_path):
    one, other = (made(name, 3) for name in names)
    with pytest.raises(ValueError, match="another network: sigma is not in the"):
        load_weights(one, saved(tmp_path / "w.safetensors", other))
