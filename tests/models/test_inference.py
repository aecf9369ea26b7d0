"""One pass over a set: outputs with probes, the head, and a cache that never takes old for new."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from oodream.core import registry
from oodream.core.memory import MemoryShort
from oodream.core.seeding import seeded
from oodream.core.types import ForwardPass, Output, Probe, Sizes
from oodream.data.images import Images, from_array, from_files
from oodream.detection.detectors import probes_of
from oodream.models.factory import backbone
from oodream.models.inference import Extractor, PatientExtractor, cost, head_of, weights_hash


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

    def __call__(self, forward: ForwardPass) -> Tensor:
        return forward.images_B3HW.mean((1, 2, 3))


def test_outputs_are_the_networks_in_order_and_in_evaluation_mode() -> None:
    network, images = model().train(), pictures()
    found = Extractor(network)(images, batch=7)
    with torch.no_grad():
        whole = network.eval()(images.batch(range(20)))
    torch.testing.assert_close(found.logits_BC, whole.logits_BC)
    torch.testing.assert_close(found.z_BF, whole.z_BF)
    assert not found.logits_BC.requires_grad


class Cramped(nn.Module):
    """A network whose memory holds few images."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, images_B3HW: Tensor) -> Output:
        if len(images_B3HW) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(images_B3HW)


def test_a_batch_that_memory_does_not_hold_is_halved() -> None:
    network = model().eval()
    with pytest.warns(UserWarning, match="from here on 5 are computed together"):
        output = Extractor(Cramped(network, 6))(pictures(), batch=10)
    assert torch.allclose(output.logits_BC, network(pictures().batch(range(20))).logits_BC, atol=1e-5)
    with (
        pytest.warns(UserWarning, match="from here on 1 are"),
        pytest.raises(MemoryShort, match="one image of x, 16 pixels"),
    ):
        Extractor(Cramped(network, 0))(pictures(), batch=2)


def test_a_damaged_cache_is_computed_again(tmp_path: Path) -> None:
    network = Counted(model())
    right = Extractor(network, cache=tmp_path)(pictures(), [Brightness()])
    assert network.seen == 20
    for file in list(tmp_path.iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.warns(UserWarning, match="is damaged .* made again"):
            again = Extractor(network, cache=tmp_path)(pictures(), [Brightness()])
        assert torch.equal(again.logits_BC, right.logits_BC)
        assert torch.equal(again.probes["brightness"], right.probes["brightness"])
        assert file.read_bytes() == whole
    assert network.seen == 60


def test_probes_share_the_pass_and_change_no_output() -> None:
    network, images = model(), pictures()
    detectors = [registry.make("detectors", name) for name in ("odin", "adascale", "rankfeat")]
    probes = [*probes_of(detectors), Brightness()]
    found = Extractor(network)(images, probes)
    plain = Extractor(network)(images)
    torch.testing.assert_close(found.logits_BC, plain.logits_BC)
    assert found.probes.keys() == {probe.key for probe in probes}
    torch.testing.assert_close(found.probes["brightness"], images.batch(range(20)).float().mean((1, 2, 3)))
    assert all(p.grad is None for p in network.parameters())


@dataclass(frozen=True)
class Late(Brightness):
    """Looks well at two images, as an evaluation first shows it, and fails later."""

    key: str = "late"
    fault: str = "raises"

    def __call__(self, forward: ForwardPass) -> Tensor:
        bright_B = super().__call__(forward)
        if len(bright_B) <= 2:
            return bright_B
        return {"row": bright_B[0], "no tensor": None}[self.fault]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", r"The probe 'late': KeyError: 'raises' \(.*test_inference\.py, line \d+\)\."),
        ("row", r"The probe 'late': It returns a tensor with a row for each image"),
        ("no tensor", r"The probe 'late': It returns a tensor with a row for each image"),
    ],
)
def test_a_probe_that_fails_late_is_named(fault, told) -> None:
    extract, probe = Extractor(model()), Late(fault=fault)
    assert len(extract(pictures(2), [probe]).probes["late"]) == 2
    with pytest.raises(ValueError, match=told):
        extract(pictures(), [probe])


def test_odins_probe_is_one_step_against_the_gradient() -> None:
    """Against the definition, written out for one image at a time, in pixels of [0, 1]."""
    network, images = model().eval(), pictures(4)
    detector = registry.make("detectors", "odin", temperature=10.0, epsilon=0.02)
    found = Extractor(network)(images, detector.probes)
    for row in range(4):
        x = (images.batch([row]).float() / 255).requires_grad_()
        best = F.log_softmax(network(x * 255).logits_BC / 10, dim=1).max()
        (slope,) = torch.autograd.grad(-best, x)
        with torch.no_grad():
            moved = network((x - 0.02 * slope.sign()) * 255).logits_BC
        torch.testing.assert_close(found.probes[detector.probes[0].key][row], moved[0], rtol=1e-4, atol=1e-4)
    p = (found.probes[detector.probes[0].key].double() / 10).softmax(1).amax(1)
    torch.testing.assert_close(detector.score(found), torch.log1p(-p))


def test_adascales_probe_moves_the_least_important_pixels_alone() -> None:
    network, images = model().eval(), pictures(3)
    detector = registry.make("detectors", "adascale", pixels=0.25)
    found = Extractor(network)(images, detector.probes)
    for row in range(3):
        x = images.batch([row]).float().requires_grad_()
        (slope,) = torch.autograd.grad(network(x).logits_BC.max(), x)
        order = slope.abs().flatten().argsort()[: x.numel() // 4]
        step = torch.zeros(x.numel())
        step[order] = 0.125 * 255 * slope.flatten()[order].sign()
        with torch.no_grad():
            moved = network(x + step.view_as(x)).z_BF
        torch.testing.assert_close(found.probes[detector.probes[0].key][row], moved[0], rtol=1e-3, atol=1e-4)


def test_rankfeats_probe_is_the_map_less_its_first_singular_triple() -> None:
    network, images = model().eval(), pictures(3)
    detector = registry.make("detectors", "rankfeat")
    found = Extractor(network)(images, detector.probes).probes["rankfeat"]
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
        Extractor(Flat())(pictures(), registry.make("detectors", "rankfeat").probes)


@pytest.mark.parametrize("probes", [(), registry.make("detectors", "rankfeat").probes])
def test_an_empty_set_is_refused_by_name(probes: list[Probe]) -> None:
    with pytest.raises(ValueError, match="'x' is empty"):
        Extractor(model())(pictures().subset(torch.zeros(20, dtype=torch.bool)), probes)


def test_the_head_makes_logits_of_features() -> None:
    extractor = Extractor(model())
    output, head = extractor(pictures()), extractor.head
    assert head is not None
    assert head.energy_C is None
    torch.testing.assert_close(output.z_BF @ head.weight_CF.T + head.bias_C, output.logits_BC)
    assert head_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) is None


def test_the_head_has_the_class_weights_of_the_loss() -> None:
    loss = registry.make("losses", "energy_logistic", weighted=True)
    loss.build(Sizes(features=128, classes=3))
    head = Extractor(model(), loss=loss).head
    assert head is not None
    assert head.energy_C is not None
    torch.testing.assert_close(head.energy_C, torch.ones(3))


def test_the_cache_saves_the_second_pass(tmp_path: Path) -> None:
    network, images = Counted(model()), pictures()
    extractor = Extractor(network, cache=tmp_path)
    first = extractor(images, [Brightness()])
    again = Extractor(network, cache=tmp_path)(images, [Brightness()])
    assert network.seen == 20
    assert torch.equal(first.logits_BC, again.logits_BC)
    assert torch.equal(first.probes["brightness"], again.probes["brightness"])
    extractor(images, registry.make("detectors", "odin").probes)
    assert network.seen == 60  # a new probe: one more pass, and ODIN's second look
    assert extractor(images).probes == {}
    assert network.seen == 60


def test_the_cache_tells_weights_and_images_apart(tmp_path: Path) -> None:
    network, images = Counted(model()), pictures()
    Extractor(network, cache=tmp_path)(images)
    with torch.no_grad():
        network.network.head.bias[0] += 1
    extractor = Extractor(network, cache=tmp_path)
    torch.testing.assert_close(extractor(images).logits_BC, Extractor(network)(images).logits_BC)
    extractor(pictures(seed=1))
    assert len(list(tmp_path.iterdir())) == 3
    hashes = [Extractor(model(seed)).weights_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_weights_are_hashed_once_and_a_sets_files_looked_at_once(tmp_path: Path) -> None:
    class Hashed(Counted):
        states = 0

        def state_dict(self, *args: Any, **options: Any) -> Any:
            self.states += 1
            return super().state_dict(*args, **options)

    @dataclass(frozen=True, kw_only=True)
    class Asked(Images):
        def identity(self) -> str:
            asked.append(self.name)
            return super().identity()

    asked: list[str] = []
    network, (first, second) = Hashed(model()), (Asked(**vars(pictures(seed=seed))) for seed in (0, 1))
    extractor = Extractor(network, cache=tmp_path)
    assert network.states == 0
    for images in (first, second, first, second):
        extractor(images)
        extractor(images, [Brightness()])
    assert network.states == 1
    assert asked == ["x", "x"]
    Extractor(network)(first)  # without a cache nothing is hashed
    assert (network.states, len(asked)) == (1, 2)


def test_sets_that_come_and_go_are_told_apart(tmp_path: Path) -> None:
    """Python gives an object's id to another once it is gone."""
    extractor = Extractor(model(), cache=tmp_path)
    for seed in range(30):
        torch.testing.assert_close(
            extractor(pictures(2, seed)).logits_BC, Extractor(extractor.network)(pictures(2, seed)).logits_BC
        )


def test_the_weights_hash_sees_names_values_shapes_kinds_and_description() -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.int64)}
    others = [
        ({"a": base["a"], "c": base["b"]}, ""),
        ({"a": base["a"] + 1e-6, "b": base["b"]}, ""),
        ({"a": base["a"].view(2, 3), "b": base["b"]}, ""),
        ({"a": base["a"], "b": base["b"].int()}, ""),
        (base, "another layer"),
    ]
    digests = {weights_hash(base), *(weights_hash(state, text) for state, text in others)}
    assert len(digests) == 6
    assert weights_hash(dict(reversed(base.items()))) == weights_hash(base)
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


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


class Stopping(Counted):
    """A counting network that may be stopped."""

    stop = 10**9

    def forward(self, images_B3HW: Tensor) -> Output:
        if self.seen >= self.stop:
            raise KeyboardInterrupt
        return super().forward(images_B3HW)


def test_a_patient_pass_is_an_ordinary_one_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    images, network = pictures(500), Stopping(model())
    expected = Extractor(model())(images, [Brightness()])
    network.stop = 300
    with pytest.raises(KeyboardInterrupt):
        PatientExtractor(network, cache=tmp_path)(images, [Brightness()])
    kept = sum(len(load_file(file)["logits_BC"]) for file in tmp_path.iterdir() if file.stem.count("-") == 1)
    assert kept == 256  # two whole parts
    network.stop, network.seen = 10**9, 0
    output = PatientExtractor(network, cache=tmp_path)(images, [Brightness()])
    assert network.seen == 500 - kept
    torch.testing.assert_close(output.logits_BC, expected.logits_BC)
    torch.testing.assert_close(output.z_BF, expected.z_BF)
    assert torch.equal(output.probes["brightness"], expected.probes["brightness"])


def test_a_patient_extractor_looks_at_a_set_once() -> None:
    network = Counted(model())
    extractor = PatientExtractor(network)
    first, second = pictures(40), pictures(40, seed=1)
    outputs = [extractor(images) for images in (first, second, first, second)]
    assert network.seen == 80
    assert outputs[0] is outputs[2]
    assert not torch.equal(outputs[0].logits_BC, outputs[1].logits_BC)
    extractor(first, [Brightness()])
    assert network.seen == 120


@pytest.mark.parametrize(("size", "batches"), [(16, [32, 8]), (112, [16, 16, 8]), (224, [4] * 10)])
def test_large_images_are_computed_a_few_at_once(size: int, batches: list[int]) -> None:
    """Memory for the activations of many is fetched anew at every layer, which costs more than it saves."""
    seen = []

    class Watched(nn.Module):
        def forward(self, images_B3HW: torch.Tensor) -> Output:
            seen.append(len(images_B3HW))
            z_BF = images_B3HW.float().mean((2, 3))
            return Output(logits_BC=z_BF, z_BF=z_BF)

    pixels = torch.zeros(40, 3, size, size, dtype=torch.uint8)
    Extractor(Watched())(from_array("x", pixels, torch.zeros(40), ()))
    assert seen == batches


class OfFloats(nn.Module):
    """Logits of pixels as floats, as other libraries have them."""

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return images_B3HW.float().mean((2, 3))


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(3, 3, 16), nn.Flatten()), OfFloats()])
def test_a_network_of_another_convention_is_refused_with_what_makes_one(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"is no network on uint8 images .* split\(network, size, mean"):
        Extractor(network)(pictures())
