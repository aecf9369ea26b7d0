"""A guard of clothes in a folder, for the tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.guarded import guard


@pytest.fixture(scope="module")
def guard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    guard().save(folder)
    return folder
