"""Whatever is a picture is found, and what is there and not read is counted and named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from oodream.core.errors import DataError
from oodream.data import scan as scanning
from oodream.data.folders import list_folder, list_ood
from oodream.data.scan import image_files, is_run_folder, scan, walk
from tests.helpers.pictures import class_folder, save

HEIC = b"\0\0\0\x18ftypheic" + bytes(200)


def names(files) -> list[str]:
    return [file.name for file in files]


def test_pictures_are_known_by_content_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("hash0123", "photo.jpg?w=640", "phone.heic"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    for name, data in {
        "notes.txt": b"a circle", "README": b"# Shapes", "empty": b"", "box.xml": b"<box/>",
        "latin.txt": b"gr\xfcn", "utf16.txt": "x".encode("utf-16"),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    found = scan(tmp_path)
    assert names(found.files) == ["a.png", "hash0123", "phone.heic", "photo.jpg?w=640"]
    assert (found.unread, found.pictures) == ({}, 0)


def test_formats_without_a_reader_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name, data in {
        "IMG.HEIC": HEIC, "no-suffix": HEIC, "b.cr2": b"II*\0" + bytes(50), "c.svg": b"<svg/>",
        "d.jxl": b"\xff\x0a" + bytes(9), "e.dcm": bytes(128) + b"DICM", "f.npy": b"\x93NUMPY\1\0v\0",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    found = scan(tmp_path)
    assert {reason.partition(":")[0]: names(files) for reason, files in found.unread.items()} == {
        "HEIC": ["IMG.HEIC", "no-suffix"],
        "camera raw": ["b.cr2"],
        "SVG": ["c.svg"],
        "JPEG XL": ["d.jxl"],
        "DICOM": ["e.dcm"],
        "no picture by its content (.npy)": ["f.npy"],
    }
    assert (len(found.files), found.pictures) == (1, 6)


def test_folders_that_link_to_each_other_are_no_runs(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "other").symlink_to(tmp_path / other)
    assert not is_run_folder(tmp_path / "a")
    assert scan(tmp_path).files == ()


def test_links_are_followed_and_every_folder_once(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "data", cat=2, dog=3) / "cat"
    class_folder(tmp_path / "store", more=2, old=1)
    (folder / "more").symlink_to(tmp_path / "store" / "more")
    (folder / "again").symlink_to(tmp_path / "store" / "more")
    (folder / "link.png").symlink_to(tmp_path / "store" / "old" / "000.png")
    (folder / "self").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path / "data")
    (tmp_path / "store" / "more" / "back").symlink_to(folder)
    (folder / "circle").symlink_to(folder / "circle")
    found = scan(folder)
    assert names(found.files) == ["000.png", "001.png", "000.png", "001.png", "link.png"]
    assert [names(files) for files in found.unread.values()] == [["circle"]]


def test_a_walk_goes_folder_after_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/x.png", "b/a/y.png", "a/z.png", "c.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "t.heic").write_bytes(HEIC)
    (tmp_path / "a" / "u.npy").write_bytes(b"\x93NUMPY\1\0v\0")
    (tmp_path / "notes.txt").write_text("a circle")
    found = [(str(path.relative_to(tmp_path)), reason and reason[:4], is_picture)
             for path, reason, is_picture in walk(tmp_path)]  # fmt: skip
    assert found == [
        ("c.png", None, True),
        ("a/t.heic", "HEIC", True),
        ("a/u.npy", "no p", False),
        ("a/z.png", None, True),
        ("b/x.png", None, True),
        ("b/a/y.png", None, True),
    ]


def test_links_to_nothing_are_counted(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=20)
    (tmp_path / "cat" / "lost.png").symlink_to("/nowhere/0")
    with pytest.warns(
        UserWarning,
        match=r"1 file is there and not read:\n  1 × link to nothing.*lost\.png\n  It is left out\.",
    ):
        assert len(list_ood(tmp_path).rows) == 20
    (tmp_path / "cat" / "gone.png").symlink_to("/nowhere/1")
    with pytest.raises(DataError, match=r"2 × link to nothing(.|\n)*more than 5% of the pictures"):
        list_ood(tmp_path)


def test_what_may_not_be_opened_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folder(tmp_path, cat=2, closed=2)
    real = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(scanning.os, "scandir", closed)
    found = scan(tmp_path)
    assert len(found.files) == 2
    assert list(found.unread) == ["folder that cannot be opened (Permission denied)"]


def test_what_is_no_picture_is_named_and_no_error(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=2)
    for i in range(9):
        (tmp_path / "cat" / f"{i}.npy").write_bytes(b"\x93NUMPY\1\0v\0")
    with pytest.warns(UserWarning, match=r"9 × no picture by its content \(\.npy\)"):
        assert len(list_ood(tmp_path).rows) == 2


def test_class_folders_of_phone_pictures_are_refused(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=6, dog=6)
    for i in range(4):
        (tmp_path / "dog" / f"IMG_{i}.HEIC").write_bytes(HEIC)
    with pytest.raises(DataError, match=r"4 × HEIC: convert to JPEG(.|\n)*more than 5%"):
        list_folder(tmp_path)


def test_an_ood_folder_of_links(tmp_path: Path) -> None:
    class_folder(tmp_path / "elsewhere", cross=3)
    (tmp_path / "ood").mkdir()
    (tmp_path / "ood" / "texture").symlink_to(tmp_path / "elsewhere" / "cross")
    assert len(list_ood(tmp_path / "ood").rows) == 3


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("__MACOSX/a.png", "@eaDir/a.png", "$RECYCLE.BIN/a.png", ".ipynb_checkpoints/a.png"):
        save(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(bytes(99))
    assert scan(tmp_path).files == (tmp_path / "a.png",)
    assert scan(tmp_path).unread == {}


def run_folder(folder: Path) -> Path:
    save(folder / "images" / "imagined" / "cat-0" / "000000.png")
    (folder / "run.json").write_text(json.dumps({"config": {}}))
    return folder


def test_run_folders_are_known(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "runs" / "one")
    assert is_run_folder(run)
    assert is_run_folder(tmp_path / "runs")
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / ".lock").touch()
    assert is_run_folder(tmp_path / "runs")
    save(tmp_path / "a.png")
    assert not is_run_folder(tmp_path), "pictures lie beside the runs"
    assert scan(tmp_path).files == (tmp_path / "a.png",)
    assert len(scan(run).files) == 1, "asked for by name, a run is read"
    (run / "run.json").write_text('{"speed": 3}')
    assert not is_run_folder(run), "somebody else's run.json"


def test_image_files_warn_of_what_they_leave_out(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=1)
    (tmp_path / "dog.heic").write_bytes(HEIC)
    with pytest.warns(UserWarning, match="1 × HEIC"):
        assert names(image_files(tmp_path)) == ["000.png"]
