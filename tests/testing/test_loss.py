"""The public check for losses: every registered one passes, and every rule catches a loss that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.core.registry import names
from oodream.core.types import Loss, Terms
from oodream.testing.loss import SIZES, check_loss, random_step
from oodream.training.terms import build_loss, terms_of
from oodream.training.train import make_loss


@pytest.mark.parametrize("name", names("losses"))
def test_registered_losses_keep_the_rules(name):
    check_loss(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("club", {"of": "vectors"}),
        ("club_joint", {"reduction": "column"}),
        ("energy_logistic", {"weighted": True}),
        ("kd", {"feature": 2.0}),
        ("kd", {"feature": 2.0, "joint": True}),
    ],
)
def test_their_options_keep_them_too(name, options):
    check_loss(name, **options)


class Margin(Loss):
    """A loss that keeps the rules, with a network of its own, for others to break them one by one."""

    outliers = True

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def build(self, sizes):
        self.map = nn.Linear(sizes.features, 1)

    def forward(self, step):
        if step.ood is None:
            raise ValueError("margin needs outliers.")
        ce = F.cross_entropy(step.id.logits_BC, step.y_B)
        apart = F.softplus(self.map(step.ood.z_BF)).mean() + F.softplus(-self.map(step.id.z_BF)).mean()
        return Terms(total=ce + self.scale * apart, parts={"ce": ce, "apart": apart})


class NoModule:
    def __init__(self) -> None:
        pass


class OneNumberARow(Margin):
    def forward(self, step):
        return Terms(total=super().forward(step).total.repeat(len(step.y_B)))


class NotANumber(Margin):
    def forward(self, step):
        total = super().forward(step).total
        return Terms(total=total * float("nan") if len(step.y_B) == 1 else total)


class Unnamed(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total, parts={"": terms.total})


class Reserved(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total, parts={"accuracy": terms.total})


class PartOfRows(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total, parts={"rows": terms.total.repeat(2)})


class Bare(Margin):
    def forward(self, step):
        return super().forward(step).total


class Detached(Margin):
    def forward(self, step):
        x = self.map(step.ood.z_BF if step.ood is not None else self.refuse())
        return Terms(total=F.softplus(x.mean()) + F.softplus(-self.map(step.id.z_BF.detach()).mean()))

    def refuse(self):
        raise ValueError("no outliers.")


class Constant(Margin):
    def forward(self, step):
        return Terms(total=super().forward(step).total.detach())


class FloatPart(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total, parts={"ce": terms.parts["ce"].item()})


class ListedParts(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total, parts=[terms.total])


class Forgetful(Margin):
    def __init__(self) -> None:
        self.scale = 1.0


class Lost(Margin):
    def forward(self, step):
        return self.nowhere


class IdleWeights(Margin):
    def build(self, sizes):
        super().build(sizes)
        self.idle = nn.Linear(3, 3)


class FixedSizes(Margin):
    def build(self, sizes):
        self.map = nn.Linear(6, 1)


class TakesAnything(Margin):
    def forward(self, step):
        if step.ood is None:
            return Terms(total=F.cross_entropy(step.id.logits_BC, step.y_B))
        return super().forward(step)


class SaysNothing(Margin):
    def forward(self, step):
        if step.ood is None:
            raise ValueError("Something is missing.")
        return super().forward(step)


class IgnoresOutliers(Margin):
    def forward(self, step):
        if step.ood is None:
            raise ValueError("No outliers.")
        return Terms(
            total=F.cross_entropy(step.id.logits_BC, step.y_B) + self.map(step.id.z_BF).square().mean()
        )


class NeedsNoHeadAfterAll(Margin):
    needs_head = True


class NeedsAHeadWithoutSaying(Margin):
    def forward(self, step):
        return super().forward(replace(step, y_B=step.y_B * step.head.bias_C.ndim))


class NeedsWithoutSaying(Margin):
    outliers = False


class NeedsATeacherWithoutSaying(Margin):
    def forward(self, step):
        return Terms(total=super().forward(step).total + step.teacher.logits_BC.mean())


class LateRefusal(Margin):
    def forward(self, step):
        if step.latent_OFHW is None and step.ood is not None:
            raise ValueError("No latents.")
        return super().forward(step)


class NeedsVectors(Margin):
    def forward(self, step):
        total = super().forward(step).total
        return Terms(total=total + step.vector_OD.square().mean())


class FirstRowWeighsMore(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total + step.id.logits_BC[0].square().sum())


class ChangesTheStep(Margin):
    def forward(self, step):
        terms = super().forward(step)
        step.tokens_CD.mul_(2)
        return terms


class CannotBeReadBack(Margin):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total + self.slope.square())


class MadeInForward(Margin):
    def build(self, sizes):
        pass

    def forward(self, step):
        if not hasattr(self, "map"):
            self.map = nn.Linear(step.id.z_BF.shape[1], 1)
        return super().forward(step)


class Noisy(Margin):
    def forward(self, step):
        terms = super().forward(step)
        noise_B = torch.randn(len(step.y_B))
        return Terms(total=terms.total + (noise_B * step.id.logits_BC.logsumexp(1)).mean())


class NoisyByItself(Margin):
    def forward(self, step):
        terms = super().forward(step)
        return Terms(total=terms.total * torch.rand(1, generator=DRAWS)[0])


DRAWS = torch.Generator().manual_seed(0)


def test_a_loss_that_keeps_the_rules_passes_by_class_and_by_path():
    check_loss(Margin)
    check_loss("tests.testing.test_loss:Margin", scale=0.5)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (NoModule, "subclass of oodream.core.types.Loss"),
        (Bare, r"returns Terms\(total, parts\), not Tensor"),
        (Forgetful, r"Its __init__ does not call super\(\)\.__init__\(\)"),
        (Constant, "The total carries no gradient"),
        (FloatPart, r"The part 'ce' is a tensor, not \d\.\d+"),
        (ListedParts, r"Parts are named in a dictionary, not \["),
        (Lost, "The loss fails for 6 known images and 6 outliers: AttributeError: .*nowhere"),
        (OneNumberARow, r"The total is a scalar, not of shape \(6,\)"),
        (NotANumber, "The total is nan for 1 known images and 1 outliers"),
        (Unnamed, "A part has no name"),
        (Reserved, "called 'accuracy', a column of every training log"),
        (PartOfRows, r"The part 'rows' is a scalar, not of shape \(2,\)"),
        (Detached, "No gradient reaches the network"),
        (IdleWeights, "No gradient reaches the loss's own idle.weight"),
        (FixedSizes, "The loss fails for 6 known images and 6 outliers: RuntimeError: .*mat1 and mat2"),
        (TakesAnything, "says that it needs outliers, and takes a step without"),
        (SaysNothing, "refusal of a step without outliers does not say so: Something is missing"),
        (IgnoresOutliers, "needs outliers, and its total is the same with others"),
        (NeedsWithoutSaying, "fails for a step without outliers, which it does not need"),
        (NeedsATeacherWithoutSaying, "fails for a step without teacher, which it does not need"),
        (NeedsNoHeadAfterAll, "says that it needs head, and takes a step without"),
        (NeedsAHeadWithoutSaying, "fails for a step without head, which it does not need"),
        (LateRefusal, "outliers without latents, which build must refuse"),
        (NeedsVectors, "outliers without vectors, which build must refuse"),
        (FirstRowWeighsMore, "for the same rows in another order"),
        (MadeInForward, r"makes map.bias, map.weight in forward, .* Make it in build\(sizes\)"),
        (Noisy, "The loss is random: the total is .* for the same rows at another time"),
        (NoisyByItself, "The loss is random: the total is .* for the same rows at another time"),
        (ChangesTheStep, "changes the step's tokens_CD in place"),
        (CannotBeReadBack, "cannot be loaded by one that was not"),
    ],
)
def test_a_loss_that_breaks_a_rule_is_told_which(broken, sentence):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{sentence}"):
        check_loss(broken)


def test_an_option_that_a_loss_does_not_have_is_named():
    with pytest.raises(AssertionError, match=r"^kd: it raises ValueError \(The loss 'kd' has no"):
        check_loss("kd", logits=2.0)
    with pytest.raises(AssertionError, match=r"^Margin: it raises TypeError \(.*'scales'"):
        check_loss(Margin, scales=2.0)


# In a training


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Bare, r"A loss returns Terms\(total, parts\), not Tensor"),
        (OneNumberARow, r"The total is a scalar, not of shape \(6,\)"),
        (Constant, "The total carries no gradient"),
        (FloatPart, r"The part 'ce' is a tensor, not \d\.\d+"),
        (Lost, r"AttributeError: .*nowhere.* \(.*test_loss\.py, line \d+\)\.$"),
    ],
)
def test_a_training_names_the_loss_that_is_at_fault(broken, sentence):
    step = random_step(SIZES[0], 6, 6)
    loss = broken()
    build_loss(loss, SIZES[0])
    with pytest.raises(ValueError, match=f"^The loss {__name__}:{broken.__name__}: {sentence}"):
        terms_of(loss, step)
    both = make_loss(("cross_entropy", f"{__name__}:{broken.__name__}"))
    build_loss(both, SIZES[0])
    with pytest.raises(ValueError, match=f"^The loss {__name__}:{broken.__name__}: {sentence}"):
        terms_of(both, step)


@pytest.mark.parametrize(
    ("wrong", "sentence"), [("Forgetful", "Its __init__ does not"), ("NoModule", "subclass")]
)
def test_what_is_no_loss_is_refused_when_it_is_made(wrong, sentence):
    with pytest.raises(ValueError, match=f"^The loss {__name__}:{wrong}: .*{sentence}"):
        make_loss((f"{__name__}:{wrong}",))
