"""Progress lines where there is no terminal."""

from __future__ import annotations

import gc
import sys
import time

import pytest

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


def test_a_line_that_is_interrupted_while_it_is_made_says_nothing(monkeypatch):
    """Ctrl-C may come at any moment: what is left of the line is not closed as though it were whole."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    complained: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complained.append)
    monkeypatch.setattr("tqdm.std.tqdm._get_free_pos", interrupted)
    with pytest.raises(KeyboardInterrupt):
        progress(range(3), total=3, what="work", unit="step")
    gc.collect()
    assert not complained
