"""Progress lines where there is no terminal."""

from __future__ import annotations

import time

from oodream.core.progress import EVERY, progress


def lines(capsys) -> int:
    """The lines of ten steps of a tenth of a second."""
    for _ in progress(range(10), total=10, what="work", unit="step"):
        time.sleep(0.1)
    return capsys.readouterr().err.count("work:")


def test_lines_come_as_often_as_the_variable_says(monkeypatch, capsys):
    monkeypatch.delenv(EVERY, raising=False)
    seldom = lines(capsys)
    monkeypatch.setenv(EVERY, "0.15")
    assert seldom <= 2 < lines(capsys)
