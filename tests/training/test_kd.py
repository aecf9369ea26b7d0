"""Distillation: both divergences as formulas, in their direction, and what is held constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.helpers.training import built, output, step


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """The mean over rows of KL(softmax p || softmax q), in double precision."""
    p, q = (np.exp(x.detach().double().numpy()) for x in (p, q))
    p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
    return float((p * np.log(p / q)).sum(1).mean())


def peaked_step():
    """A step whose features make unlike distributions: a divergence is far from the one turned round."""
    told = step()
    peaked = {
        name: output(x.logits_BC, 3 * x.z_BF) for name, x in (("id", told.id), ("teacher", told.teacher))
    }
    return step(**peaked)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_are_distilled_by_the_formula(temperature):
    told = step()
    expected = temperature**2 * kl(told.teacher.logits_BC / temperature, told.id.logits_BC / temperature)
    assert built("kd", temperature=temperature)(told).total.item() == pytest.approx(expected, rel=1e-5)


def test_features_are_distilled_from_the_teacher_to_the_mapped_students():
    told, loss = peaked_step(), built("kd", logit=0.5, feature=2.0)
    mapped = told.id.z_BF @ loss.map.weight.T + loss.map.bias
    expected = kl(told.teacher.z_BF, mapped)
    assert kl(mapped, told.teacher.z_BF) != pytest.approx(expected, rel=0.05), (
        "the test tells directions apart"
    )
    terms = loss(told)
    assert terms.parts["kd_feature"].item() == pytest.approx(expected, rel=1e-4)
    logits = kl(told.teacher.logits_BC, told.id.logits_BC)
    assert terms.total.item() == pytest.approx(0.5 * logits + 2.0 * expected, rel=1e-4)


def test_joint_maps_the_teachers_features_to_the_students():
    told, loss = peaked_step(), built("kd", feature=1.0, joint=True)
    norm1, linear, _, norm2 = loss.map
    mapped = F.batch_norm(told.teacher.z_BF, None, None, norm1.weight, norm1.bias, training=True)
    mapped = F.batch_norm(linear(mapped).relu(), None, None, norm2.weight, norm2.bias, training=True)
    expected = kl(mapped, told.id.z_BF)
    assert kl(told.id.z_BF, mapped) != pytest.approx(expected, rel=0.05), "the test tells directions apart"
    assert loss(told).parts["kd_feature"].item() == pytest.approx(expected, rel=1e-4)


def test_the_teacher_is_held_constant_and_joint_does_not_hold_its_map():
    g = torch.randn(12, 7)
    told = step(teacher=output(torch.randn(12, 3), g))
    built("kd", feature=1.0)(told).total.backward()
    assert told.id.z_BF.grad.norm() > 0
    joint = built("kd", feature=1.0, joint=True)
    joint(step(teacher=output(torch.randn(12, 3), g))).total.backward()
    assert joint.map[1].weight.grad.norm() > 0


def test_a_teacher_may_know_only_the_images_of_a_step():
    """Rows of latents follow those of images; the teacher is asked about images alone."""
    told = step(teacher=output(torch.randn(5, 3), torch.randn(5, 7)))
    (grad,) = torch.autograd.grad(built("kd")(told).total, told.id.logits_BC)
    assert (grad[:5] != 0).any(1).all()
    assert (grad[5:] == 0).all()


def test_refusals():
    with pytest.raises(ValueError, match="kd needs a teacher"):
        built("kd")(step(teacher=None))
    for wrong in ({"temperature": 0.0}, {"logit": -1.0}, {"feature": -0.1}):
        with pytest.raises(ValueError, match="temperature is above 0, logit and feature are 0 or more"):
            built("kd", **wrong)
