"""Knowledge distillation from a frozen teacher: its logits (Hinton et al. 2015) and its features, as OAL weighs them."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms


@register("losses", "kd")
class KD(Loss):
    """logit * T^2 KL(teacher || student) at temperature T + feature * KL(softmax(g) || softmax(map f)), means over known images.

    g are the teacher's features, f the student's; the map is linear and learned. The teacher's side is constant. With `joint` it is
    as in OAL's code: the map is on the teacher's side, learns along, and so may come towards the student.
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
        a, b = sizes.teacher, sizes.features
        if self.feature and self.joint:
            self.map: nn.Module = nn.Sequential(
                nn.BatchNorm1d(a), nn.Linear(a, b), nn.ReLU(), nn.BatchNorm1d(b)
            )
        elif self.feature:
            self.map = nn.Linear(b, a)

    def forward(self, step: Step) -> Terms:
        if step.teacher is None:
            raise ValueError("kd needs a teacher.")
        t, n = self.temperature, len(step.teacher)
        student, teacher = (x.logits_BC[:n] / t for x in (step.id, step.teacher))
        parts = {
            "kd": t
            * t
            * F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
        }
        total = self.logit * parts["kd"]
        if self.feature:
            f, g = step.id.z_BF[:n], step.teacher.z_BF
            f, g = (f, self.map(g)) if self.joint else (self.map(f), g)
            parts["kd_feature"] = F.kl_div(
                f.log_softmax(1), g.log_softmax(1), reduction="batchmean", log_target=True
            )
            total = total + self.feature * parts["kd_feature"]
        return Terms(total=total, parts=parts)
