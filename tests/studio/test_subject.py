"""What pictures are tried on, without a run: thresholds of classes, and scores that are no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from oodream.core.errors import DataError
from oodream.data.builtin import digits
from oodream.data.images import Images
from oodream.deploy.guard import Guard
from oodream.studio.subject import Subject
from tests.helpers.guarded import SIZE, clothes, guard

UNKNOWN = digits(SIZE, 100, 0)


class Beside:
    """A guard's scores of digits, and its training images."""

    home, cache = Path("nowhere"), None

    def __init__(self, guard: Guard) -> None:
        self._scores = {"digits": guard.scores(UNKNOWN), "id": guard.scores(clothes()[1])}

    def groups(self) -> dict[str, str]:
        return {"digits": "far"}

    def scores(self) -> dict[str, torch.Tensor]:
        return self._scores

    def images(self, name: str) -> Images:
        if name == "train":
            raise DataError("They are gone.")
        return {"digits": UNKNOWN}[name]


@pytest.fixture(scope="module")
def subject() -> Subject:
    of_classes = guard(alpha=0.1, per_class=True)
    return Subject(of_classes, Beside(of_classes))


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_thresholds_of_classes_are_the_guards(subject, alpha):
    moved, guard = subject.at(alpha), subject.guard.at(alpha)
    assert moved["thresholds"] == dict(zip(guard.names, guard.threshold_C.tolist(), strict=True))
    flagged = [one.flagged for one in guard.predict(UNKNOWN)]
    (digits_,) = moved["unknown"]
    assert (digits_["accepted"], digits_["n"]) == (100 - sum(flagged), 100)
    assert moved["known"]["accepted"] == sum(not one.flagged for one in guard.predict(clothes()[1]))


def test_answers_do_not_need_the_known_images(subject):
    squares = UNKNOWN.batch(range(3)).permute(0, 2, 3, 1).numpy()
    assert subject.answers(squares) == subject.guard.predict(list(squares))
    with pytest.raises(DataError, match="gone"):
        subject.nearest(squares)


def test_scores_that_are_no_numbers_are_named(subject):
    beside = Beside(subject.guard)
    beside.scores()["digits"] = torch.full((4,), np.nan)
    with pytest.raises(ValueError, match="scores of 'digits' are not all finite"):
        Subject(subject.guard, beside).facts()
