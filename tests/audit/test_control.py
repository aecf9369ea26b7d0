"""The control is judged by its distance from 50 % and its interval."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oodream.audit.control import reconstruction_control
from oodream.audit.finding import percent
from tests.helpers.rows import control_row


@pytest.mark.parametrize(
    ("auroc", "half", "severity"),
    [
        (0.5, 0.02, "fine"),
        (0.53, 0.01, "fine"),
        (0.57, 0.02, "warning"),
        (0.38, 0.02, "problem"),
        (0.65, 0.2, "fine"),
    ],
)
def test_the_control_is_judged_by_its_distance_and_interval(auroc, half, severity):
    rows = [control_row("regularized", auroc + sign * 0.01, half, seed=sign) for sign in (-1, 1)]
    (finding,) = reconstruction_control(rows)
    assert finding.severity == severity
    assert finding.share == pytest.approx(auroc)
    assert ("sign of known images" in finding.message) == (severity == "problem")
    assert percent(auroc - half) in finding.message


def test_each_classifier_is_judged_by_its_first_detector():
    rows = [control_row("baseline", 0.5, 0.01), control_row("regularized", 0.7, 0.01)]
    other = [replace(row, detector="msp", auroc=0.9) for row in rows]
    findings = [*reconstruction_control([*rows, *other])]
    assert [(f.sets, f.share, f.severity) for f in findings] == [
        (("baseline",), 0.5, "fine"),
        (("regularized",), 0.7, "problem"),
    ]
    assert "sign of unknown images" in findings[1].message
    assert findings[1].message.startswith("By energy, regularized separates"), "the report shows others, too"
