"""Pictures in order: of folders, lists and data sets of the hub, and what changes their identity."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from oodream.core.errors import DataError, StoreError
from oodream.data.preprocess import read_image
from oodream.data.stream import FileList, list_files, open_pictures
from tests.helpers.pictures import class_folder, picture, save


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "photos", cat=2, owl=2)
    return tmp_path


def listed(*places: str) -> FileList:
    return list_files([Path(place) for place in places], Path("work/pictures.txt"))


def names(*places: str) -> list[str]:
    return [name for name, _ in listed(*places).read()]


def test_folders_lists_and_single_pictures_in_the_order_given(here: Path) -> None:
    cats = ["photos/cat/000.png", "photos/cat/001.png"]
    (here / "list.txt").write_bytes(b"\xef\xbb\xbfphotos/owl/001.png\r\n\n" + f"{here}/x y.png".encode())
    assert names("photos") == [*cats, "photos/owl/000.png", "photos/owl/001.png"]
    save(here / "one.png")
    assert names("one.png", "list.txt", "photos/cat") == [
        "one.png", "photos/owl/001.png", f"{here}/x y.png", *cats,
    ]  # fmt: skip
    (here / "list.txt").write_text("photos/owl/001.png\r\nphotos/cat/000.png\r\n", encoding="utf-16")
    assert names("list.txt") == ["photos/owl/001.png", "photos/cat/000.png"]


def test_a_line_is_a_path_with_spaces_or_quotes_around_it(here: Path) -> None:
    """As file managers copy paths; but what a file is called counts first."""
    odd = here / "photos" / '"odd" .png '
    save(here / "x.png").rename(odd)
    lines = [" photos/cat/000.png\t", f'"{here}/x y.png"\r', str(odd), ' "s3://bucket/a.png"', " ", '"']
    (here / "list.txt").write_text("\n".join(lines))
    assert names("list.txt") == ["photos/cat/000.png", f"{here}/x y.png", str(odd), "s3://bucket/a.png", '"']


def test_a_place_that_is_not_there_is_refused_before_anything_is_written(here: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no file or folder phots\. Did you mean photos\?"):
        listed("photos", "phots")
    assert not (here / "work").exists()


def test_a_place_that_is_given_twice_counts_once(here: Path) -> None:
    assert listed("photos", "photos/", str(here / "photos")).total == 4
    with pytest.warns(UserWarning, match="photos/cat lies in photos, which is given, too"):
        assert listed("photos", "photos/cat").total == 6


def test_a_name_with_a_line_break_leads_back_to_its_file(here: Path) -> None:
    save(here / "photos" / "two\nlines.png")
    sources = dict(listed("photos").read())
    assert len(sources) == 5
    assert sources["photos/two\nlines.png"].is_file()


def test_a_list_of_what_was_listed_is_the_same(here: Path) -> None:
    first = listed("photos")
    (here / "work" / "pictures.txt").rename(here / "kept.txt")
    assert listed("kept.txt").identity == first.identity
    assert listed("photos/owl", "photos/cat").identity != first.identity
    save(here / "photos" / "cat" / "new.png")
    again = listed("photos")
    assert (again.total, first.total) == (5, 4)
    assert again.identity != first.identity


def test_a_picture_that_has_changed_under_its_name_is_another(here: Path) -> None:
    owl, first = here / "photos" / "owl" / "000.png", listed("photos").identity
    data, status = owl.read_bytes(), owl.stat()
    os.utime(owl, (status.st_atime, status.st_mtime + 2))
    assert listed("photos").identity != first, "of the same length"
    owl.write_bytes(data + b" ")
    os.utime(owl, (status.st_atime, status.st_mtime))
    assert listed("photos").identity != first, "of the same time"
    owl.write_bytes(data)
    os.utime(owl, (status.st_atime, status.st_mtime))
    assert listed("photos").identity == first
    owl.unlink()
    (here / "list.txt").write_text("\n".join(sorted(map(str, (here / "photos").rglob("*.png")))) + f"\n{owl}")
    gone = listed("list.txt").identity
    owl.write_bytes(data)
    assert listed("list.txt").identity != gone, "one that was missing"


def test_reading_begins_anywhere(here: Path) -> None:
    pictures = listed("photos")
    every = list(pictures.read())
    assert [list(pictures.read(start)) for start in range(6)] == [every[start:] for start in range(6)]


def test_what_is_a_picture_and_cannot_be_read_is_in_the_list(here: Path) -> None:
    (here / "photos" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (here / "photos" / "b.npy").write_bytes(b"\x93NUMPY\1\0v\0")
    (here / "photos" / "c.md").write_text("# Photos")
    assert names("photos")[0] == "photos/a.heic"
    assert len(names("photos")) == 5


def test_names_that_are_no_utf8_lead_back_to_their_files(here: Path) -> None:
    name = os.fsdecode(b"gr\xfcn.png")
    save(here / "photos" / name)
    assert f"photos/{name}" in names("photos")
    (here / "work" / "pictures.txt").rename(here / "list.txt")
    sources = dict(listed("list.txt").read())
    assert sources[f"photos/{name}"].is_file()


def test_what_cannot_be_listed_says_why(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "blank.txt").write_text("\n\n")
    for place in ("empty", "blank.txt"):
        with pytest.raises(DataError, match=f"no picture to read in {place}"):
            listed(place)
    with pytest.raises(StoreError, match=r"no file or folder gone\.txt"):
        listed("gone.txt")
    (here / "photo.txt").write_bytes((here / "photos" / "cat" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"photo\.txt is no list: it should be text, with the path"):
        listed("photo.txt")


def test_a_long_list_takes_no_memory(here: Path) -> None:
    # One name, since the interpreter's table of path names never shrinks and would be measured, too.
    (here / "long.txt").write_text("pictures/of/a/longer/path/picture.png\n" * 50_000)
    size = (here / "long.txt").stat().st_size
    tracemalloc.start()
    pictures = listed("long.txt")
    assert sum(1 for _ in pictures.read()) == pictures.total == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


def test_a_data_set_of_the_hub(here: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [picture((i, 0, 99), 8, 8) for i in range(5)]

    def split(rows: list[int]) -> object:
        features = datasets.Features({"id": datasets.Value("int64"), "photo": datasets.Image()})
        table = {"id": rows, "photo": [images[row] for row in rows]}
        return datasets.Dataset.from_dict(table, features=features)

    datasets.disable_progress_bars()
    datasets.DatasetDict(train=split([0, 1, 2]), test=split([3, 4])).save_to_disk("copy")
    pictures = open_pictures(["hub:copy"], here / "list")
    every = list(pictures.read())
    assert [name for name, _ in every] == [
        "copy/train[0]", "copy/train[1]", "copy/train[2]", "copy/test[0]", "copy/test[1]",
    ]  # fmt: skip
    assert [int(read_image(source, 8)[0, 0, 0]) for _, source in every] == [0, 1, 2, 3, 4]
    assert pictures.total == 5
    for start in range(7):
        assert [name for name, _ in pictures.read(start)] == [name for name, _ in every][start:]
    assert open_pictures(["hub:copy"], here / "list").identity == pictures.identity
    datasets.DatasetDict(train=split([0, 1, 2]), test=split([4, 3])).save_to_disk("other")
    assert open_pictures(["hub:other"], here / "list").identity != pictures.identity
    with pytest.raises(DataError, match="scored by itself: give hub:NAME alone"):
        open_pictures(["photos", "hub:copy"], here / "list")
    split([0]).remove_columns("photo").save_to_disk("words")
    with pytest.raises(DataError, match="hub:words has no column of images, only id"):
        open_pictures(["hub:words"], here / "list")
