from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from oodream.benchmark.protocol import KNOWN, UNKNOWN, least_accuracy, load_protocol, protocol_names
from oodream.core.errors import DataError
from tests.helpers.protocols import edit


@pytest.mark.parametrize("name", protocol_names())
def test_shipped_protocols_are_well_formed(name: str) -> None:
    protocol = load_protocol(name)
    sets = protocol.sets
    assert len({s.name for s in sets}) == len(sets) >= 6
    assert {s.group for s in sets} <= {*KNOWN, *UNKNOWN}
    assert [s.group for s in sets].count("test") == [s.group for s in sets].count("train") == 1
    for s in sets:
        assert s.count > 0 or (name, s.name) == ("openood-imagenet200", "train")
        assert bool(s.sha256) == bool(s.list) or s.group == "train"
        assert s.builtin or s.source
        assert not re.search(r"(^/|\.\.|\\)", " ".join([s.list, s.images, *s.folders]))
    used = {s.source for s in sets} | ({"lists"} if any(s.list for s in sets) else set())
    assert used - {""} == {*protocol.sources}
    for source in protocol.sources.values():
        assert source.url.startswith(("https://", "http://"))
        assert re.fullmatch(r"([0-9a-f]{32})?", source.md5)
    hashes = [s.sha256 for s in sets if s.sha256]
    assert len({*hashes}) == len(hashes)
    assert 0.2 < protocol.least_accuracy < 1
    assert protocol.notes


def test_shipped_numbers_add_up() -> None:
    def count(protocol: str, *sets: str) -> int:
        return sum(s.count for s in load_protocol(protocol).sets if s.name in sets)

    for name, known in (
        ("cifar10", 10_000),
        ("cifar100", 10_000),
        ("imagenet200", 200 * 50),
        ("imagenet1k", 1000 * 50),
    ):
        assert count(f"openood-{name}", "test", "val") == known
    assert count("openood-imagenet1k", "openimage-o", "val-openimage-o") == 17_632
    assert count("openood-cifar10", "train") == count("dreamood-cifar100", "train") == 50_000
    for name, classes in (("cifar10", 10), ("cifar100", 100), ("imagenet200", 200), ("imagenet1k", 1000)):
        assert len(load_protocol(f"openood-{name}").classes) == classes
    assert load_protocol("dreamood-imagenet100").labels["n01498041"] == 0
    assert load_protocol("openood-cifar10").fpr95 == "fpr95_ood"
    assert load_protocol("dreamood-cifar100").fpr95 == "fpr95_id"


def test_the_least_accuracy() -> None:
    protocol = load_protocol("embedded")
    assert least_accuracy(protocol) == 0.5
    for classes, expected in ((2, 0.75), (4, 0.625), (10, 0.3), (1000, 0.003)):
        blank = replace(protocol, least_accuracy=0.0, classes=tuple(map(str, range(classes))))
        assert least_accuracy(blank) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size = 16", "sise = 16", "Did you mean 'size'"),
        ("size = 16", 'size = "16"', "size cannot be '16'"),
        ("size = 16", "size = 16\ncrop = 1.5", "crop a share"),
        ("size = 16", 'size = 16\nfpr95 = "fpr"', "fpr95_id or fpr95_ood"),
        ("size = 16", 'size = 16\nlabels = "x"', "no option 'labels'"),
        ('["red", "green", "blue"]', '["red"]', "classes cannot be"),
        ('["red", "green", "blue"]', '["red", "red"]', "classes cannot be"),
        ('["red", "green", "blue"]', '"cifar11"', "no class list 'cifar11'"),
        ('["red", "green", "blue"]', "1", "classes cannot be 1"),
        ('name = "near-set"', 'name = "far-set"', "Two sets are called 'far-set'"),
        ('name = "near-set"', 'name = "mean"', "cannot be called 'mean'"),
        ('group = "near"', 'group = "nearby"', "'near-set' has group 'nearby'. Did you mean 'near'"),
        ('group = "test"', 'group = "tests"', "has group 'tests'. Did you mean 'test'"),
        ('group = "test"', 'group = "val"', "one set of the group 'test', and there are 0"),
        ('images = "images_classic"', 'images = "../images_classic"', "leads out of the root"),
        ('images = "images_classic"', 'images = "/etc"', "leads out of the root"),
        ('list = "benchmark_imglist/colours/near.txt"', 'builtin = "nothing"', "no built-in set 'nothing'"),
        (
            'list = "benchmark_imglist/colours/near.txt"',
            'data = "fashion"',
            "no data set 'fashion' that a root",
        ),
        ('list = "benchmark_imglist/colours/near.txt"\n', "", "no list, folders, data, hub or builtin"),
        ("count = 10", "count = -10", "cannot have -10 images"),
        ("count = 10", 'count = "many"', "set 3.count cannot be 'many'"),
        ('source = "colours"', 'source = "colors"', "which is no source here"),
        ('sha256 = "', 'sha256 = "z', "64 hexadecimal digits"),
        ("[[sets]]", "[sets", "cannot be read"),
        (
            '[sources.colours]\nurl = "https://example.org/colours"',
            "[sources]\ncolours = 3\n[other]",
            r"\[sources.NAME\]",
        ),
    ],
)
def test_bad_protocols_say_what_is_wrong(root: Path, old: str, new: str, message: str) -> None:
    edit(root, old, new)
    with pytest.raises(DataError, match=message) as caught:
        load_protocol(str(root / "colours.toml"))
    assert "colours.toml" in str(caught.value) or "cifar11" in str(caught.value)


def test_unknown_protocols_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'openood-cifar10'"):
        load_protocol("openood-cifra10")
    with pytest.raises(DataError, match=r"none\.toml cannot be read"):
        load_protocol(str(tmp_path / "none.toml"))


def test_a_byte_order_mark_is_no_part_of_a_protocol(root: Path) -> None:
    file = root / "colours.toml"
    plain = load_protocol(str(file))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    marked = load_protocol(str(file))
    assert marked.digest != plain.digest
    assert replace(marked, digest=plain.digest) == plain
