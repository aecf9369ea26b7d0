from __future__ import annotations

from pathlib import Path

import pytest

from oodream.benchmark.locate import locate
from oodream.benchmark.protocol import load_protocol
from oodream.benchmark.read import load_sets
from oodream.core.errors import DataError
from tests.helpers.protocols import FOLDERS, PLACES, edit, images_of, picture, save, write_list


def list_of(root: Path, place: str) -> Path:
    return root / "benchmark_imglist" / "colours" / f"{place}.txt"


@pytest.mark.parametrize(
    ("end", "start"), [("\r\n", b""), ("\n", b"\xef\xbb\xbf"), ("\r\n", b"\xef\xbb\xbf")]
)
def test_line_ends_and_a_byte_order_mark_make_no_other_list(root: Path, end: str, start: bytes) -> None:
    protocol, file = load_protocol(str(root / "colours.toml")), list_of(root, "near")
    before = locate(protocol, [root])
    write_list(file, file.read_text().splitlines(), end, start)
    located = locate(protocol, [root])
    assert located == before
    assert not any(found.remarks for found in located.found)


def test_another_list_warns(root: Path) -> None:
    protocol, file = load_protocol(str(root / "colours.toml")), list_of(root, "near")
    sha256 = write_list(file, file.read_text().splitlines()[1:])
    expected = next(s.sha256 for s in protocol.sets if s.name == "near-set")
    with pytest.warns(UserWarning, match="another list than the protocol's") as caught:
        assert len(images_of(load_sets(protocol, [root]))["near-set"]) == PLACES["near"] - 1
    assert sha256 in str(caught[0].message)
    assert expected in str(caught[0].message)


@pytest.mark.parametrize("character", "\u2028\u2029\u0085\x1c\x0b\x0c")
def test_other_line_separators_are_part_of_a_file_name(root: Path, character: str) -> None:
    file, name = list_of(root, "near"), f"title{character}part 1.png"
    save(picture(3, 0), root / "images_classic" / "colours" / "near" / name)
    write_list(file, [*file.read_text().splitlines(), f"colours/near/{name} -1"])
    near = next(
        f for f in locate(load_protocol(str(root / "colours.toml")), [root]).found if f.set.group == "near"
    )
    assert near.files[-1].name == name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colours/near/a.png", "line 3: .* is no path and label"),
        ("3", "line 3: .* is no path and label"),
        ("", "line 3: .* is no path and label"),
        ("colours/near/a.png one", "line 3: .* is no path and label"),
        ('colours/near/a.png {"class_label": 0}', "line 3: .* is no path and label"),
        ("colours/ne\x00ar/a.png 0", "line 3: .* is no path and label"),
        ("../secret.png -1", "line 3: .* leads out"),
        ("colours/../../../secret.png -1", "line 3: .* leads out"),
        ("/etc/hosts -1", "line 3: .* leads out"),
        ("colours/near/link.png -1", "line 3: .* outside the root"),
        ("colours/linked/secret.png -1", "line 3: .* outside the root"),
        ("colours/near/none.png -1", "1 of the 11 images"),
    ],
)
def test_bad_lines_are_named_and_no_file_outside_is_read(root: Path, line: str, message: str) -> None:
    save(picture(3, 0), root.parent / "elsewhere" / "secret.png")
    (root / "images_classic" / "colours" / "near" / "link.png").symlink_to(
        root.parent / "elsewhere" / "secret.png"
    )
    (root / "images_classic" / "colours" / "linked").symlink_to(root.parent / "elsewhere")
    file = list_of(root, "near")
    lines = file.read_text().splitlines()
    write_list(file, [*lines[:2], line, *lines[2:]])
    with pytest.raises(DataError, match=rf"(?s)near-set .near, 10 images.\n.*{message}"):
        load_sets(load_protocol(str(root / "colours.toml")), [root])


def test_a_link_into_another_named_root_may_be_followed(root: Path) -> None:
    place = root / "images_classic" / "colours" / "near"
    place.rename(root.parent / "elsewhere")
    place.symlink_to(root.parent / "elsewhere")
    protocol = load_protocol(str(root / "colours.toml"))
    with pytest.raises(DataError, match="outside the root"):
        load_sets(protocol, [root])
    sets = load_sets(protocol, [root, root.parent / "elsewhere"])
    assert len(images_of(sets)["near-set"]) == PLACES["near"]


def test_images_may_lie_below_another_root_than_the_lists(root: Path) -> None:
    (root.parent / "pictures").mkdir()
    (root / "images_classic").rename(root.parent / "pictures" / "images_classic")
    sets = load_sets(load_protocol(str(root / "colours.toml")), [root, root.parent / "pictures"])
    assert [len(s.images) for s in sets] == [*PLACES.values()]


@pytest.mark.parametrize(("label", "allowed"), [("2", True), ("3", False), ("-1", False)])
def test_labels_of_known_images(root: Path, label: str, allowed: bool) -> None:
    file = list_of(root, "test")
    lines = file.read_text().splitlines()
    write_list(file, [lines[0].rpartition(" ")[0] + f" {label}", *lines[1:]])
    located = locate(load_protocol(str(root / "colours.toml")), [root])
    assert bool(located.missing) != allowed
    assert allowed or f"line 1: there is no class {label}" in located.missing[0].reasons[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"\xff\xfe\x00\xd8", "is no text"),
    ],
)
def test_lists_that_are_none(root: Path, data: bytes, message: str) -> None:
    list_of(root, "far").write_bytes(data)
    with pytest.raises(DataError, match=rf"far\.txt {message}"):
        load_sets(load_protocol(str(root / "colours.toml")), [root])


def test_folders_with_other_classes_or_counts(folders: Path) -> None:
    save(picture(0, 9), folders / "photos" / "test" / "ant" / "9.png")
    with pytest.warns(UserWarning, match="has 7 images, the protocol 6"):
        load_sets(load_protocol(str(folders / "mine.toml")), [folders])
    (folders / "mine.toml").write_text('classes = ["ant", "bee"]\n' + FOLDERS)
    with pytest.raises(
        DataError, match=r"(?s)train .*no class folders for bee.*test .*no class folders for bee"
    ):
        load_sets(load_protocol(str(folders / "mine.toml")), [folders])
    (folders / "mine.toml").write_text("classes = 2\n" + FOLDERS)
    assert load_protocol(str(folders / "mine.toml")).classes == ("0", "1")
    with pytest.warns(UserWarning, match="has 7 images"):
        sets = load_sets(load_protocol(str(folders / "mine.toml")), [folders])
    assert images_of(sets)["train"].labels.bincount().tolist() == [4, 4]


def test_links_in_a_loop_and_folders_of_systems_are_no_classes(folders: Path) -> None:
    (folders / "photos" / "train" / "loop").symlink_to("..")
    (folders / "photos" / "train" / "__MACOSX").mkdir()
    sets = images_of(load_sets(load_protocol(str(folders / "mine.toml")), [folders]))
    assert sets["train"].classes == ("ant", "zebra")


@pytest.mark.parametrize("beside", ["photos", "photos/train"])
def test_class_folders_are_called_as_a_run_would_call_them(folders: Path, beside: str) -> None:
    (folders / beside / "classes.toml").write_text('[classes]\nzebra = "striped horse"\n')
    for part in ("train", "test"):
        (folders / "photos" / part / "ant").rename(folders / "photos" / part / "red_ant")
    sets = images_of(load_sets(load_protocol(str(folders / "mine.toml")), [folders]))
    assert sets["train"].classes == sets["test"].classes == ("red ant", "striped horse")
    assert sets["train"].files[-1].endswith("zebra/3.png")
    assert sets["test"].labels.bincount().tolist() == [3, 3]
    (folders / beside / "classes.toml").write_text('[classes]\nzebra = "red ant"\n')
    with pytest.raises(DataError, match=r"Two folders in .*train are the class 'red ant'"):
        locate(load_protocol(str(folders / "mine.toml")), [folders])


def test_a_list_outside_the_root_is_not_read(folders: Path) -> None:
    (folders / "photos" / "classes.toml").write_text('[classes]\nzebra = "striped horse"\n')
    text = FOLDERS.replace('"photos/train"', '"."').replace('"photos/test"', '"."')
    (folders / "mine.toml").write_text(text)
    located = locate(load_protocol(str(folders / "mine.toml")), [folders / "photos" / "train"], ["train"])
    assert located.protocol.classes == ("ant", "zebra")


def test_a_class_list_beside_the_protocol(folders: Path) -> None:
    (folders / "names.toml").write_text('[classes]\nzebra = "striped horse"\nant = "ant"\n')
    (folders / "mine.toml").write_text('classes = "names.toml"\n' + FOLDERS)
    train = images_of(load_sets(load_protocol(str(folders / "mine.toml")), [folders]))["train"]
    assert train.classes == ("striped horse", "ant")
    assert train.files[0].endswith("zebra/0.png")


def test_a_list_is_replaced_by_its_folder_with_a_warning(root: Path) -> None:
    list_of(root, "far").unlink()
    edit(root, 'name = "far-set"', 'name = "far-set"\nfolders = ["images_classic/colours/far"]')
    with pytest.warns(UserWarning, match="stands for the list of far-set"):
        sets = load_sets(load_protocol(str(root / "colours.toml")), [root])
    assert len(images_of(sets)["far-set"]) == PLACES["far"]
