"""What a comparison takes of an arm's run."""

from __future__ import annotations

import pytest

from oodream.config import Config, EvaluateConfig
from oodream.core.results import row_to_json
from oodream.run.compare import measured_arm
from oodream.run.layout import REGULARIZED
from tests.helpers.begun import begin_run
from tests.helpers.rows import control_row


def test_an_arm_whose_first_detector_was_left_out_says_so(tmp_path):
    run = begin_run(tmp_path, Config(evaluate=EvaluateConfig(detectors=("msp", "energy"))))
    run.layout.results.write_text(row_to_json(control_row(REGULARIZED, 0.5, 0.1)) + "\n")
    with pytest.raises(ValueError, match=r"first of --evaluate\.detectors, and 'msp' was left out"):
        measured_arm("a", run, REGULARIZED)
