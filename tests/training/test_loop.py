"""The training loop: what a batch is made of, resume, and losses that stop being numbers."""

from __future__ import annotations

import pytest
import torch

from oodream.config import Optimisation
from oodream.core.distributed import Shard
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.types import Loss, Terms
from oodream.data.images import from_array
from oodream.models.factory import backbone
from oodream.models.inference import outputs
from oodream.training.batches import Mixture, epoch_batches
from oodream.training.loop import fit, one_cycle

CPU = torch.device("cpu")


def images(n: int, value: int = 0, classes: int = 3):
    g = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 60, (n, 3, 16, 16), generator=g, dtype=torch.uint8) + value
    return from_array("x", pixels, torch.arange(n) % classes, [f"c{i}" for i in range(classes)])


def network():
    with seeded(0, "test"):
        return backbone("resnet8", 3)


def test_a_batch_is_id_with_its_reconstructed_share_and_then_outliers():
    data = Mixture(
        id=images(64), reconstructed=images(32, 80), share=0.25, outliers=images(10, 160), ratio=0.5
    )
    config = Optimisation(batch=16, crop_padding=0, flip=False)
    batches = list(epoch_batches(data, config, 0, 0))
    assert len(batches) == 4
    for batch in batches:
        pixels = batch.images_B3HW
        brightness = pixels.float().mean((1, 2, 3))
        assert len(batch.y_B) == len(batch.weight_B) == 16
        assert ((brightness > 80) & (brightness < 140)).sum() == 4
        assert (brightness[16:] > 160).all()
        assert len(pixels) == 24


def test_a_share_of_the_outliers_is_turned_grey():
    parts = {"id": images(400), "outliers": images(400)}
    config = Optimisation(batch=400, crop_padding=0, flip=False)

    def grey(share: float) -> torch.Tensor:
        (batch,) = epoch_batches(Mixture(**parts, grey=share), config, 0, 0)
        pixels, n = batch.images_B3HW, len(batch.y_B)
        without_colour = (pixels == pixels[:, :1]).flatten(1).all(1)
        assert not without_colour[:n].any(), "ID images stay as they are"
        return without_colour[n:].float().mean()

    assert grey(0.0) == 0
    assert grey(0.5).item() == pytest.approx(0.5, abs=0.1)
    assert grey(1.0) == 1


def test_every_id_image_is_seen_once_an_epoch():
    data = Mixture(id=images(48))
    seen = torch.cat(
        [b.images_B3HW for b in epoch_batches(data, Optimisation(batch=16, crop_padding=0, flip=False), 0, 0)]
    )
    assert torch.equal(
        seen.flatten(1).float().sum(1).sort().values,
        data.id.batch(range(48)).flatten(1).float().sum(1).sort().values,
    )


def test_a_set_smaller_than_a_batch_makes_one_batch():
    (only,) = epoch_batches(Mixture(id=images(5)), Optimisation(batch=16), 0, 0)
    assert len(only.y_B) == 5


class Interrupted(Loss):
    """Cross-entropy that stops, as a kill would, after some calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.inner, self.left = make("losses", "energy_logistic"), calls

    def forward(self, step):
        if (left := self.left) == 0:
            raise KeyboardInterrupt
        self.left = left - 1
        return self.inner(step)


def test_resumed_training_equals_an_undisturbed_one(tmp_path):
    data, config = Mixture(id=images(64), outliers=images(20, 90)), Optimisation(batch=16, epochs=3)
    whole = network()
    log = fit(whole, Interrupted(-1), data, config, 5, CPU, tmp_path / "a", "t")
    broken = network()
    with pytest.raises(KeyboardInterrupt):
        fit(broken, Interrupted(6), data, config, 5, CPU, tmp_path / "b", "t")
    again = network()
    assert fit(again, Interrupted(-1), data, config, 5, CPU, tmp_path / "b", "t") == log
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert len(log) == 3


def test_the_seed_decides(tmp_path):
    data, config = Mixture(id=images(64)), Optimisation(batch=16, epochs=1)
    found = []
    for i, seed in enumerate((1, 1, 2)):
        model = network()
        fit(model, make("losses", "cross_entropy"), data, config, seed, CPU, tmp_path / str(i), "t")
        found.append(outputs(model, data.id, CPU).logits_BC)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_loss_that_is_not_a_number_stops_with_its_epoch(tmp_path):
    class Broken(Loss):
        def forward(self, step):
            return Terms(total=step.id.logits_BC.sum() * float("nan"))

    with pytest.raises(FloatingPointError, match=r"t: the loss became nan in epoch 1.*learning rate"):
        fit(network(), Broken(), Mixture(id=images(16)), Optimisation(batch=8), 0, CPU, tmp_path / "s", "t")


def test_one_cycle():
    assert one_cycle(0.1) == pytest.approx(0.5)
    assert one_cycle(0.2) == pytest.approx(1.0)
    assert one_cycle(0.6) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(0.0)


def test_small_sets_are_passed_over_more_often(tmp_path):
    config = Optimisation(batch=16, epochs=2, min_steps=9)
    log = fit(
        network(),
        make("losses", "cross_entropy"),
        Mixture(id=images(32)),
        config,
        0,
        CPU,
        tmp_path / "s",
        "t",
    )
    assert len(log) == 5


def test_inliers_are_known_images_with_a_weight():
    data = Mixture(id=images(32), inliers=images(10, 160), weight=0.3, ratio=0.5)
    for batch in epoch_batches(data, Optimisation(batch=16, crop_padding=0, flip=False), 0, 0):
        brightness = batch.images_B3HW.float().mean((1, 2, 3))
        assert len(batch.images_B3HW) == len(batch.y_B) == 24
        assert (brightness[:16] < 80).all()
        assert (brightness[16:] > 160).all()
        assert batch.weight_B.tolist() == [1.0] * 16 + [pytest.approx(0.3)] * 8
        value = batch.images_B3HW[16:].sum((1, 2, 3))
        known = {
            int(v): int(y)
            for v, y in zip(data.inliers.batch(range(10)).sum((1, 2, 3)), data.inliers.labels, strict=True)
        }
        assert [known[int(v)] for v in value] == batch.y_B[16:].tolist()


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_a_batch(count):
    """Together they see the rows that one process would."""
    data = Mixture(
        id=images(48), reconstructed=images(32, 80), share=0.25, outliers=images(10, 160), ratio=0.5
    )
    config = Optimisation(batch=12, crop_padding=0, flip=False)
    alone = list(epoch_batches(data, config, 0, 0))
    shared = [list(epoch_batches(data, config, 0, 0, Shard(i, count))) for i in range(count)]
    for whole, parts in zip(alone, zip(*shared, strict=True), strict=True):
        assert sum(len(p.y_B) for p in parts) == 12
        for known in (True, False):
            rows = [
                x
                for b in (whole,)
                for x in (b.images_B3HW[: len(b.y_B)] if known else b.images_B3HW[len(b.y_B) :])
            ]
            theirs = [
                x
                for b in parts
                for x in (b.images_B3HW[: len(b.y_B)] if known else b.images_B3HW[len(b.y_B) :])
            ]
            assert sorted(int(x.sum()) for x in rows) == sorted(int(x.sum()) for x in theirs)
