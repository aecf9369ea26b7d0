"""One pass over a set: outputs with probes, the head, and a cache that never takes old for new."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from oodream.core import registry
from oodream.core.seeding import seeded
from oodream.core.types import ForwardPass, Output
from oodream.data.images import from_array, from_files
from oodream.detection.detectors import probes_of
from oodream.models.factory import backbone
from oodream.models.inference import cost, hash_of, head_of, outputs

CPU = torch.device("cpu")


def model(seed: int = 0) -> nn.Module:
    with seeded(seed, "test"):
        return backbone("resnet8", 3)


def pictures(n: int = 20, seed: int = 0):
    pixels = torch.randint(
        0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return from_array("x", pixels, torch.arange(n) % 3, ["a", "b", "c"])


class Counted(nn.Module):
    """A network that counts the images it has seen."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, images_B3HW: Tensor) -> Output:
        self.seen += len(images_B3HW)
        return self.network(images_B3HW)


@dataclass(frozen=True)
class Brightness:
    key: str = "brightness"
    wants: str = ""
    for_fit: bool = False

    def __call__(self, seen: ForwardPass) -> Tensor:
        return seen.images_B3HW.mean((1, 2, 3))


def test_outputs_are_the_networks_in_order_and_in_evaluation_mode() -> None:
    network, images = model().train(), pictures()
    found = outputs(network, images, CPU, batch=7)
    with torch.no_grad():
        whole = network.eval()(images.batch(range(20)))
    torch.testing.assert_close(found.logits_BC, whole.logits_BC)
    torch.testing.assert_close(found.z_BF, whole.z_BF)
    assert not found.logits_BC.requires_grad


def test_views_share_the_pass_and_change_no_output() -> None:
    network, images = model(), pictures()
    detectors = [registry.make("detectors", name) for name in ("odin", "adascale", "rankfeat")]
    probes = [*probes_of(detectors), Brightness()]
    found = outputs(network, images, CPU, probes=probes)
    plain = outputs(network, images, CPU)
    torch.testing.assert_close(found.logits_BC, plain.logits_BC)
    assert found.probes.keys() == {probe.key for probe in probes}
    torch.testing.assert_close(found.probes["brightness"], images.batch(range(20)).float().mean((1, 2, 3)))
    assert all(p.grad is None for p in network.parameters())


def test_odins_view_is_one_step_against_the_gradient() -> None:
    """Against the definition, written out for one image at a time, in pixels of [0, 1]."""
    network, images = model().eval(), pictures(4)
    detector = registry.make("detectors", "odin", temperature=10.0, epsilon=0.02)
    found = outputs(network, images, CPU, probes=detector.probes)
    for row in range(4):
        x = (images.batch([row]).float() / 255).requires_grad_()
        best = F.log_softmax(network(x * 255).logits_BC / 10, dim=1).max()
        (slope,) = torch.autograd.grad(-best, x)
        with torch.no_grad():
            moved = network((x - 0.02 * slope.sign()) * 255).logits_BC
        torch.testing.assert_close(found.probes[detector.probes[0].key][row], moved[0], rtol=1e-4, atol=1e-4)
    p = (found.probes[detector.probes[0].key].double() / 10).softmax(1).amax(1)
    torch.testing.assert_close(detector.score(found), torch.log1p(-p))


def test_adascales_view_moves_the_least_important_pixels_alone() -> None:
    network, images = model().eval(), pictures(3)
    detector = registry.make("detectors", "adascale", pixels=0.25)
    found = outputs(network, images, CPU, probes=detector.probes)
    for row in range(3):
        x = images.batch([row]).float().requires_grad_()
        (slope,) = torch.autograd.grad(network(x).logits_BC.max(), x)
        order = slope.abs().flatten().argsort()[: x.numel() // 4]
        step = torch.zeros(x.numel())
        step[order] = 0.125 * 255 * slope.flatten()[order].sign()
        with torch.no_grad():
            moved = network(x + step.view_as(x)).z_BF
        torch.testing.assert_close(found.probes[detector.probes[0].key][row], moved[0], rtol=1e-3, atol=1e-4)


def test_rankfeats_view_is_the_map_less_its_first_singular_triple() -> None:
    network, images = model().eval(), pictures(3)
    detector = registry.make("detectors", "rankfeat")
    found = outputs(network, images, CPU, probes=detector.probes).probes["rankfeat"]
    with torch.no_grad():
        maps = network.stages(network.first_map(images.batch(range(3)))).flatten(2).double().numpy()
    for row, image in enumerate(maps):
        u, s, v = np.linalg.svd(image, full_matrices=False)
        np.testing.assert_allclose(
            found[row].numpy(), (image - s[0] * np.outer(u[:, 0], v[0])).mean(1), rtol=1e-4, atol=1e-5
        )


def test_a_network_without_a_pooled_map_is_refused() -> None:
    class Flat(nn.Module):
        def forward(self, images_B3HW: Tensor) -> Output:
            z = images_B3HW.float().flatten(1)[:, :8]
            return Output(logits_BC=z[:, :3], z_BF=z)

    with pytest.raises(ValueError, match="no average of a feature map"):
        outputs(Flat(), pictures(), CPU, probes=registry.make("detectors", "rankfeat").probes)


def test_an_empty_set_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'x' is empty"):
        outputs(model(), pictures().subset(torch.zeros(20, dtype=torch.bool)), CPU)


def test_the_head_makes_logits_of_features() -> None:
    network = model()
    found, head = outputs(network, pictures(), CPU), head_of(network)
    assert head is not None
    torch.testing.assert_close(found.z_BF @ head.weight_CF.T + head.bias_C, found.logits_BC)
    assert head_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) is None


def test_the_cache_saves_the_second_pass(tmp_path: Path) -> None:
    network, images = Counted(model()), pictures()
    first = outputs(network, images, CPU, probes=[Brightness()], cache=tmp_path)
    again = outputs(network, images, CPU, probes=[Brightness()], cache=tmp_path)
    assert network.seen == 20
    assert torch.equal(first.logits_BC, again.logits_BC)
    assert torch.equal(first.probes["brightness"], again.probes["brightness"])
    outputs(network, images, CPU, probes=registry.make("detectors", "odin").probes, cache=tmp_path)
    assert network.seen == 60  # a new probe: one more pass, and ODIN's second look
    assert outputs(network, images, CPU, cache=tmp_path).probes == {}
    assert network.seen == 60


def test_the_cache_tells_weights_and_images_apart(tmp_path: Path) -> None:
    network, images = Counted(model()), pictures()
    outputs(network, images, CPU, cache=tmp_path)
    with torch.no_grad():
        network.network.head.bias[0] += 1
    moved = outputs(network, images, CPU, cache=tmp_path)
    torch.testing.assert_close(moved.logits_BC, outputs(network, images, CPU).logits_BC)
    outputs(network, pictures(seed=1), CPU, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert hash_of(model(0)) == hash_of(model(0)) != hash_of(model(1))


def test_the_identity_of_files_changes_with_them(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.new("RGB", (8, 8), (i * 40, 0, 0)).save(file)
    images = from_files("f", files, [0, 1, 2], ["a", "b", "c"], 8)
    before = images.identity()
    assert before == from_files("f", files, [0, 1, 2], ["a", "b", "c"], 8).identity()
    assert before != from_files("f", files, [0, 1, 2], ["a", "b", "c"], 16).identity()
    os.utime(files[1], ns=(1, 1))
    assert before != images.identity()


class Small(nn.Module):
    """Six channels by a convolution, then two logits of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.drop, self.head = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Dropout(),
            nn.Linear(6 * 8 * 8, 2),
        )

    def forward(self, images_B3HW: Tensor) -> Output:
        z = self.drop(self.convolution(images_B3HW.float())).flatten(1)
        return Output(logits_BC=self.head(z), z_BF=z)


def test_cost_is_counted_by_hand() -> None:
    network = Small().train()
    assert cost(network, 8) == (6 * 27 + 6 + 2 * 384 + 2, 2 * (8 * 8 * 6 * 27 + 2 * 384))
    assert network.training, "as it was"
