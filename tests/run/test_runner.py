"""What is said of a finished stage."""

from __future__ import annotations

from oodream.run.runner import in_words


def test_a_stages_line_leaves_out_what_is_not_there():
    summary = {"threshold": 1.5, "guarantee": "at most 5 %", "other_half": None, "skipped": {}, "bytes": 0}
    assert in_words(summary) == "threshold 1.5, guarantee at most 5 %, bytes 0"
