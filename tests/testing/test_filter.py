"""The public check for filters: every registered one passes, and every broken rule is caught."""

from __future__ import annotations

import pytest
import torch

from oodream.core.registry import names
from oodream.testing.filter import check_filter


@pytest.mark.parametrize("name", names("filters"))
def test_registered_filters_keep_the_rules(name):
    check_filter(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"threshold": x}) for name in ("class_drift", "id_leak") for x in (0.0, 0.4, 1.0)),
        ("confident", {"low": 0.0, "high": 0.6}),
        ("confident", {"low": 0.3, "high": 1.0}),
        ("blank", {"contrast": 74.0}),
        ("duplicate", {"distance": 105.0}),
    ],
)
def test_their_options_keep_them_too(name, options):
    check_filter(name, **options)


class Sure:
    """A filter that keeps the rules, for others to break them one by one."""

    reason = "the baseline is not sure"

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold

    def __call__(self, images_B3HW, y_B, baseline):
        with torch.no_grad():
            return baseline(images_B3HW).logits_BC.softmax(1).amax(1) > self.threshold


def test_a_filter_of_ones_own_keeps_the_rules():
    check_filter(Sure)
    check_filter(f"{__name__}:Sure", threshold=0.7)


class Even(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        return images_B3HW.float().flatten(1).std(1) > self.threshold


def test_what_pytorch_says_of_no_image_is_not_passed_on(recwarn):
    """The standard deviation over the pixels of no image is a warning to PyTorch."""
    check_filter(Even)
    assert not [str(warning.message) for warning in recwarn]


class NoReason(Sure):
    reason = ""


class OneWord(Sure):
    reason = "unsure"


class Numbers(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        return super().__call__(images_B3HW, y_B, baseline).float()


class OneAnswer(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        return super().__call__(images_B3HW, y_B, baseline).all()


class TopHalf(Sure):
    """Looks at the whole batch."""

    def __call__(self, images_B3HW, y_B, baseline):
        p = baseline(images_B3HW).logits_BC.softmax(1).amax(1)
        return p >= (p.median() if len(p) else 0)


class Beside(Sure):
    """Compares, and looks at images of other classes, too."""

    compares = True

    def __call__(self, images_B3HW, y_B, baseline):
        bright_B = images_B3HW.float().flatten(1).mean(1)
        return torch.tensor(
            [bool((bright_B[:i] < x).all()) for i, x in enumerate(bright_B)], dtype=torch.bool
        )


class Ahead(Beside):
    """Compares, and looks at images of the class that come after one."""

    def __call__(self, images_B3HW, y_B, baseline):
        bright_B = images_B3HW.float().flatten(1).mean(1)
        return torch.tensor(
            [bool((bright_B[y_B == y] <= x).all()) for x, y in zip(bright_B, y_B, strict=True)]
        ).bool()


class ByPlace(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        return torch.arange(len(y_B)) % 2 == 0


class Dice(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        return torch.rand(len(y_B)) < 0.5


class Moody(Sure):
    """Answers otherwise at every second call."""

    calls = 0

    def __call__(self, images_B3HW, y_B, baseline):
        self.calls += 1
        return torch.full((len(y_B),), self.calls % 2 == 0)


class Scribbler(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        images_B3HW[:] = 0
        return super().__call__(images_B3HW, y_B, baseline)


class Trainer(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        with torch.no_grad():
            baseline.weight_PC += 0.01
        return super().__call__(images_B3HW, y_B, baseline)


class NeedsImages(Sure):
    def __call__(self, images_B3HW, y_B, baseline):
        return super().__call__(images_B3HW, y_B, baseline) & (images_B3HW.amax() > 0)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (NoReason, "reason says in a sentence"),
        (OneWord, "reason says in a sentence"),
        (Numbers, "a boolean tensor of shape"),
        (OneAnswer, "a boolean tensor of shape"),
        (TopHalf, "the images beside it"),
        (Beside, "the images of its class before it"),
        (Ahead, "the images of its class before it"),
        (ByPlace, "the images beside it"),
        (Dice, "generators of its own"),
        (Moody, "the same the next time"),
        (Scribbler, "leave the tensors"),
        (Trainer, "leave the tensors"),
        (NeedsImages, "it raises"),
    ],
)
def test_what_breaks_a_rule_is_caught(broken, rule):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{rule}"):
        check_filter(broken)
