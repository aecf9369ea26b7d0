"""The public check for latent adapters: registered ones pass, and every rule catches one that breaks it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.core.registry import names
from oodream.core.types import LatentAdapter, Output
from oodream.testing.adapter import check_adapter

QUICK = {"preview": {"steps": 3}}


@pytest.mark.parametrize("name", names("latent_adapters"))
def test_registered_adapters_keep_the_rules(name):
    check_adapter(name, **QUICK.get(name, {}))


class Resized(LatentAdapter):
    """Latents, resized, as images: an adapter that keeps the rules, for others to break them."""

    def __init__(self, model, latent, size, gain: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.gain = nn.Parameter(torch.tensor(gain))

    def draw(self, latents):
        return 255 * (self.gain * F.interpolate(latents[:, :3], (self.size, self.size))).sigmoid()

    def forward(self, model, images, latents):
        x = self.draw(latents.latent_LFHW)
        output = model(torch.cat([images.float(), x]))
        pairs = latents.pair_K3HW.float()
        return output, F.mse_loss(x[: len(pairs)], pairs) if len(pairs) else None


class Learned(Resized):
    """It learns before the classifier does."""

    pretrained = True

    def fit(self, pairs, seed, device):
        images, latents = pairs.draw(4, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.gain.add_(0.01 * (images.float().mean() / 255 - latents.mean() + 1))

    def forward(self, model, images, latents):
        previews = self.draw(latents.latent_LFHW).detach().round().to(torch.uint8)
        return model(torch.cat([images, latents.augment(previews)])), None


class NoAdapter(nn.Module):
    def __init__(self, model, latent, size) -> None:
        super().__init__()


class LearnsNothing(Learned):
    def fit(self, pairs, seed, device):
        pass


class Unrepeatable(Learned):
    calls = 0

    def fit(self, pairs, seed, device):
        super().fit(pairs, seed, device)
        Unrepeatable.calls += 1
        with torch.no_grad():
            self.gain.add_(Unrepeatable.calls)


class GoesOnLearning(Learned):
    def __init__(self, model, latent, size) -> None:
        super().__init__(model, latent, size)
        self.norm = nn.BatchNorm2d(3)

    def draw(self, latents):
        return self.norm(super().draw(latents))


class FloatPreviews(Learned):
    def forward(self, model, images, latents):
        return model(
            torch.cat([images.float(), latents.augment(self.draw(latents.latent_LFHW).detach())])
        ), None


class OutliersAlone(Resized):
    def forward(self, model, images, latents):
        output, own_loss = super().forward(model, images, latents)
        rows = [*range(len(images)), *range(len(images) + len(latents.pair_K3HW), len(output))]
        return Output(logits_BC=output.logits_BC[rows], z_BF=output.z_BF[rows]), own_loss


class LatentsFirst(Resized):
    def forward(self, model, images, latents):
        output, own_loss = super().forward(model, images, latents)
        order = torch.arange(len(output)).roll(3)
        return Output(logits_BC=output.logits_BC[order], z_BF=output.z_BF[order]), own_loss


class LossOfRows(Resized):
    def forward(self, model, images, latents):
        output, _ = super().forward(model, images, latents)
        return output, self.gain.repeat(2)


class NoKnownNoLoss(Resized):
    def forward(self, model, images, latents):
        output, _ = super().forward(model, images, latents)
        n = len(latents.pair_K3HW)
        return output, self.draw(latents.latent_LFHW)[:n].mean()


class LossOfOutliers(Resized):
    def forward(self, model, images, latents):
        output, _ = super().forward(model, images, latents)
        return output, self.draw(latents.latent_LFHW).mean()


class NoGradient(Resized):
    def forward(self, model, images, latents):
        output, own_loss = super().forward(model, images, latents)
        n = len(images)
        parts = [torch.cat([x[:n], x[n:].detach()]) for x in (output.logits_BC, output.z_BF)]
        parts[0] = parts[0] + 0 * parts[0][:n].sum()
        return Output(logits_BC=parts[0], z_BF=parts[1]), own_loss


class NeverLearns(Resized):
    def forward(self, model, images, latents):
        x = self.draw(latents.latent_LFHW).detach()
        return model(torch.cat([images.float(), x])), None


class LeavesEvaluationMode(Resized):
    def forward(self, model, images, latents):
        result = super().forward(model, images, latents)
        model.eval()
        return result


def test_adapters_that_keep_the_rules_pass_by_class_and_by_path():
    check_adapter(Resized)
    check_adapter(Learned)
    check_adapter("tests.testing.test_adapter:Resized", gain=0.5)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (NoAdapter, "subclass of oodream.core.types.LatentAdapter"),
        (LearnsNothing, "A pretrained adapter learns nothing by fit"),
        (Unrepeatable, "same weights for the same seed"),
        (GoesOnLearning, "A pretrained adapter changes in a step"),
        (FloatPreviews, "augment is given torch.float32, not uint8"),
        (OutliersAlone, r"The logits have the shape \(6, 3\), not \(9, 3\)"),
        (LatentsFirst, "The first rows' logits are not those that the network gives the images"),
        (LossOfRows, r"The own loss is a scalar, not of shape \(2,\)"),
        (NoKnownNoLoss, "The own loss is nan for 0 known latents"),
        (LossOfOutliers, "The own loss depends on outliers"),
        (NoGradient, "No gradient of the latents' outputs reaches the network"),
        (NeverLearns, "it would never learn"),
        (LeavesEvaluationMode, "leaves the network in another mode"),
    ],
)
def test_an_adapter_that_breaks_a_rule_is_told_which(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_adapter(broken)


def test_what_an_adapter_raises_is_told_with_its_name_and_type():
    class Lost(Resized):
        def forward(self, model, images, latents):
            return self.nowhere

    with pytest.raises(AssertionError, match=r"^Lost: it raises AttributeError \(.*nowhere"):
        check_adapter(Lost)
    with pytest.raises(AssertionError, match=r"^Resized: it raises TypeError \(.*'gains'"):
        check_adapter(Resized, gains=2.0)
