"""A finding in few words."""

from __future__ import annotations

import pytest

from oodream.audit.finding import Finding


@pytest.mark.parametrize(
    ("kind", "sets", "brief"),
    [
        ("duplicates", ("ID/train", "it"), "63.3 % of “it” show the same as images of “ID/train”"),
        ("labels", ("ID/train",), "63.3 % of “ID/train” have an equal image with another label"),
        (
            "files",
            ("ID/test", "{near}"),
            "the files' format, size and compression alone separate “{near}” from “ID/test” (AUROC 63.3 %)",
        ),
        (
            "control",
            ("regularized",),
            "regularized takes reconstructed known images for others than untouched ones (AUROC 63.3 %)",
        ),
        ("names", ("it",), "{all} of it"),
    ],
)
def test_what_may_be_a_problem_is_said_briefly(kind, sets, brief):
    message = "{all} of it"
    finding = Finding(kind=kind, sets=sets, count=38, share=0.633, severity="problem", message=message)
    assert finding.brief.replace("\u00a0", " ") == brief
