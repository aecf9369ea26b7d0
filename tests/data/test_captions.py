"""Captions from indexes, from texts beside the pictures, and from folder names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oodream.core.errors import DataError
from oodream.data.captions import captioned_folder
from tests.helpers.pictures import class_folder, save


def captions(folder: Path, *lines: object) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def test_captions_from_metadata_and_from_folders(tmp_path: Path) -> None:
    class_folder(tmp_path, red_fox=2, owl=1)
    images, texts, weights = captioned_folder(tmp_path, 8)
    assert (texts, images.classes) == (["owl", "red fox", "red fox"], ("owl", "red fox"))
    assert (images.labels.tolist(), weights.tolist()) == ([0, 1, 1], [1, 1, 1])
    same = {"file_name": "owl/000.png", "text": "a bird"}
    captions(
        tmp_path,
        same,
        {"file_name": "red_fox/001.png", "text": "a föx", "weight": 0.5},
        {**same, "text": "an owl"},
    )
    with pytest.warns(UserWarning, match=r"1 pictures have no caption .*red_fox/000\.png"):
        images, texts, weights = captioned_folder(tmp_path, 8)
    assert texts == ["a bird", "a föx", "an owl"]
    assert [images.classes[i] for i in images.labels] == texts
    assert weights.tolist() == [1, 0.5, 1]


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hosts", "in/../../outside.png", "link.png"])
def test_metadata_may_not_leave_its_folder(tmp_path: Path, path: str) -> None:
    save(tmp_path / "outside.png")
    folder = tmp_path / "data"
    (folder / "in").mkdir(parents=True)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    captions(folder, {"file_name": path, "text": "x"})
    with pytest.raises(DataError, match=r"line 1: .* lies outside"):
        captioned_folder(folder, 8)


@pytest.mark.parametrize(
    "line",
    [{"file_name": "a.png"}, {"text": "x"}, {"file_name": "a.png", "text": "x", "weight": "much"}, 3, []],
)
def test_metadata_lines_are_checked(tmp_path: Path, line: object) -> None:
    save(tmp_path / "a.png")
    captions(tmp_path, {"file_name": "a.png", "text": "x"}, line)
    with pytest.raises(DataError, match=r"line 2: .*file_name, text"):
        captioned_folder(tmp_path, 8)


def shapes(folder: Path) -> Path:
    for name in ("circle0", "circle1", "star0"):
        save(folder / f"{name}.png")
    return folder


def test_captions_from_a_table_with_a_byte_order_mark(tmp_path: Path) -> None:
    (shapes(tmp_path) / "metadata.csv").write_bytes(
        b"\xef\xbb\xbffile_name,text,weight\r\ncircle0.png,a circle,2\r\n"
        b'circle1.png,"round, and\nred",\r\nstar0.png,"a star",0.5\r\n'
    )
    _, texts, weights = captioned_folder(tmp_path, 8)
    assert (texts, weights.tolist()) == (["a circle", "round, and\nred", "a star"], [2, 1, 0.5])
    (tmp_path / "metadata.csv").write_text("file_name,text,weight\ncircle0.png,x,much\n")
    with pytest.raises(DataError, match=r"line 2: .*file_name, text"):
        captioned_folder(tmp_path, 8)


def test_captions_from_indexes_in_folders_below(tmp_path: Path) -> None:
    captions(shapes(tmp_path / "a"), *({"file_name": f"{n}.png", "caption": n} for n in ("circle0", "star0")))
    (shapes(tmp_path / "b") / "metadata.csv").write_text("file_name,caption\ncircle1.png,one\n")
    with pytest.warns(UserWarning, match="3 pictures have no caption"):
        _, texts, _ = captioned_folder(tmp_path, 8)
    assert texts == ["circle0", "star0", "one"]


def test_a_caption_with_a_separator_of_lines_is_one_line(tmp_path: Path) -> None:
    texts = [f"by night{c}in rain" for c in ("\u2028", "\u2029", "\u0085")]
    lines = [
        json.dumps({"file_name": f"{name}.png", "text": text}, ensure_ascii=False)
        for name, text in zip(("circle0", "circle1", "star0"), texts, strict=True)
    ]
    (shapes(tmp_path) / "metadata.jsonl").write_bytes("\r\n".join(["", *lines, ""]).encode("utf-8-sig"))
    assert captioned_folder(tmp_path, 8)[1] == texts


def test_captions_from_texts_beside_the_pictures(tmp_path: Path) -> None:
    shapes(tmp_path)
    for name, text in {"circle0": "a red\ncircle\n", "circle1": "föx", "star0": "a star"}.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8-sig")
    images, texts, _ = captioned_folder(tmp_path, 8)
    assert texts == ["a red circle", "föx", "a star"]
    assert [images.classes[i] for i in images.labels] == texts
    (tmp_path / "star0.txt").write_text("0 0.5 0.5 0.2 0.3")
    with pytest.raises(DataError, match="1 of 3 pictures have no text beside them"):
        captioned_folder(tmp_path, 8)


def test_texts_without_letters_are_no_captions(tmp_path: Path) -> None:
    shapes(tmp_path / "fox")
    (tmp_path / "fox" / "star0.txt").write_text("0 0.5 0.5 0.2 0.3")
    with pytest.warns(UserWarning, match=r"captions are those of the names of the folders.*fox/star0\.txt"):
        assert captioned_folder(tmp_path, 8)[1] == ["fox"] * 3


@pytest.mark.parametrize("name", ["captions.json", "metadata.parquet", "star0.caption"])
def test_what_looks_like_captions_is_named_where_it_is_not_read(tmp_path: Path, name: str) -> None:
    (shapes(tmp_path) / name).write_text("{}")
    with pytest.warns(UserWarning, match=f"1 files look like captions and are not read: {name}"):
        captioned_folder(tmp_path, 8)


def test_a_text_that_leads_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    (shapes(tmp_path / "data") / "star0.txt").symlink_to(tmp_path / "secret")
    with pytest.warns(UserWarning, match=r"star0\.txt"):
        assert captioned_folder(tmp_path / "data", 8)[1] == ["data"] * 3
