"""The short form: a few kills, full disks and races of whole tiny runs, by a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    """What came of the faults of each campaign."""
    command = [sys.executable, "-m", "tests.faults", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            found.setdefault(row.pop("campaign"), []).append(row)
    assert found, done.stderr
    return found


CAMPAIGNS = (
    "kill -9", "kill -9, latents", "Ctrl-C", "kill -9, two at work", "full disk, each stage", "two processes",
)  # fmt: skip


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_a_run_survives(rows, campaign):
    """It ends as an undisturbed one, with nothing half-written, and nothing finished is done again."""
    assert rows[campaign]
    assert [row for row in rows[campaign] if not row["good"]] == []


def test_the_faults_did_happen(rows):
    killing = {"kill -9": -9, "kill -9, latents": -9, "Ctrl-C": 130, "kill -9, two at work": -9}
    for campaign, code in killing.items():
        codes = [end["ended"] for row in rows[campaign] for end in row["ends"]]
        assert codes.count(code) > 1
        assert {*codes} <= {code, 0}, "the last ones may come too late"
    assert all("disk is full" in row["said"] for row in rows["full disk, each stage"][:-1])
    assert [row["ended"] for row in rows["two processes"]] == [[0, 2]]
