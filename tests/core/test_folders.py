"""Whether a folder is there, and whether one can be made."""

from __future__ import annotations

import pytest

from oodream.core.errors import StoreError
from oodream.core.files import check_way, make_folder
from oodream.core.folders import check_is_there


def test_a_folder_that_is_not_there_is_named_with_one_called_alike(tmp_path):
    (tmp_path / "photos").mkdir()
    check_is_there(tmp_path / "photos")
    with pytest.raises(StoreError) as error:
        check_is_there(tmp_path / "photo")
    assert str(error.value) == f"There is no folder {tmp_path}/photo. Did you mean {tmp_path}/photos?"
    with pytest.raises(StoreError, match=r"There is no folder .*nowhere/else\.$"):
        check_is_there(tmp_path / "nowhere" / "else")


@pytest.mark.parametrize("call", [check_way, make_folder])
@pytest.mark.parametrize("name", ["/proc/folder/below", "file/folder", "to-nothing"])
def test_a_folder_that_cannot_be_made_is_named(name, call, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "to-nothing").symlink_to("/proc/nothing")
    with pytest.raises(StoreError, match=r"Choose another (place|folder)") as caught:
        call(tmp_path / name)
    assert "Errno" not in str(caught.value)


def test_a_name_that_is_too_long_is_said_to_be(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be written .*too long.* Choose another folder"):
        make_folder(tmp_path / ("a" * 300))


def test_looking_whether_a_folder_can_be_made_leaves_no_trace(tmp_path):
    check_way(tmp_path / "new" / "folder")
    assert not [*tmp_path.iterdir()]
