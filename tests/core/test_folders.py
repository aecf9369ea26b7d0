"""Whether a folder is there."""

from __future__ import annotations

import pytest

from oodream.core.errors import StoreError
from oodream.core.folders import check_is_there


def test_a_folder_that_is_not_there_is_named_with_one_called_alike(tmp_path):
    (tmp_path / "photos").mkdir()
    check_is_there(tmp_path / "photos")
    with pytest.raises(StoreError) as error:
        check_is_there(tmp_path / "photo")
    assert str(error.value) == f"There is no folder {tmp_path}/photo. Did you mean {tmp_path}/photos?"
    with pytest.raises(StoreError, match=r"There is no folder .*nowhere/else\.$"):
        check_is_there(tmp_path / "nowhere" / "else")
