"""Distillation from a frozen teacher: its logits (Hinton et al. 2015) and its features, as in OAL."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms

__all__ = ["KD", "divergence"]


@register("losses", "kd")
class KD(Loss):
    """logit * T^2 KL(teacher || student) + feature * KL(softmax(g) || softmax(map f)).

    Both are means over known images. The first divergence is that of the predictions at temperature T. g are
    the teacher's features, f the student's; the map is linear and learned. The teacher's side is constant.
    With `joint` it is as in OAL's code: the map is on the teacher's side, learns along, and so may come
    towards the student.
    """

    teacher = True

    def __init__(
        self, logit: float = 1.0, feature: float = 0.0, temperature: float = 1.0, joint: bool = False
    ) -> None:
        super().__init__()
        if temperature <= 0 or min(logit, feature) < 0:
            raise ValueError("kd: temperature is above 0, logit and feature are 0 or more.")
        self.logit, self.feature, self.temperature, self.joint = logit, feature, temperature, joint

    def build(self, sizes: Sizes) -> None:
        theirs, ours = sizes.teacher, sizes.features
        if self.feature and self.joint:
            self.map: nn.Module = nn.Sequential(
                nn.BatchNorm1d(theirs), nn.Linear(theirs, ours), nn.ReLU(), nn.BatchNorm1d(ours)
            )
        elif self.feature:
            self.map = nn.Linear(ours, theirs)

    def forward(self, step: Step) -> Terms:
        if step.teacher is None:
            raise ValueError("kd needs a teacher.")
        t, n = self.temperature, len(step.teacher)
        parts = {"kd": t**2 * divergence(step.teacher.logits_BC / t, step.id.logits_BC[:n] / t)}
        total = self.logit * parts["kd"]
        if self.feature:
            f, g = step.id.z_BF[:n], step.teacher.z_BF
            if self.joint:
                self.map.train(n > 1)  # one row has no statistics: those of the steps before stand in
                g = self.map(g)
            else:
                f = self.map(f)
            parts["kd_feature"] = divergence(g, f)
            total = total + self.feature * parts["kd_feature"]
        return Terms(total=total, parts=parts)


def divergence(p_BC: Tensor, q_BC: Tensor) -> Tensor:
    """KL(softmax(p) || softmax(q)) in nats, the mean over rows: a scalar."""
    return F.kl_div(q_BC.log_softmax(1), p_BC.log_softmax(1), reduction="batchmean", log_target=True)
