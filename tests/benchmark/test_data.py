"""A protocol reads parts of a named data set from a root, in whatever form it lies there."""

from __future__ import annotations

from pathlib import Path

import pytest

from oodream.benchmark.explain import explain
from oodream.benchmark.locate import locate
from oodream.benchmark.protocol import load_protocol
from oodream.benchmark.read import load_sets
from oodream.core.errors import DataError
from oodream.presets import PRESETS
from tests.helpers.cifar import CLASSES, FORMS, binary
from tests.helpers.protocols import images_of

NAME = "cifar10-6v4"


@pytest.mark.parametrize("form", FORMS)
def test_known_and_unknown_classes_come_from_any_form(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    FORMS[form](tmp_path)
    protocol = load_protocol(NAME)
    with pytest.warns(UserWarning, match="has 24 images, the protocol 30000"):
        images = images_of(load_sets(protocol, [tmp_path], groups=("train", "test", "near")))
    assert {name: len(x) for name, x in images.items()} == {"train": 24, "test": 12, "unknown": 8}
    assert images["train"].classes == images["test"].classes == protocol.classes
    assert images["test"].labels.bincount().tolist() == [2] * 6
    assert images["unknown"].labels.tolist() == [-1] * 8


def test_the_protocol_is_the_preset() -> None:
    protocol, config = load_protocol(NAME), PRESETS[NAME].config
    (unknown,) = (s for s in protocol.sets if s.group == "near")
    assert unknown.of == config.unknown
    assert {*protocol.classes, *unknown.of} == {*CLASSES}
    assert (protocol.size, unknown.data) == (config.size, config.data)


def test_where_it_was_looked_for_is_said(tmp_path: Path) -> None:
    protocol = load_protocol(NAME)
    without, with_root = (explain(locate(protocol, roots)) for roots in ([], [tmp_path]))
    assert "no root that holds CIFAR-10" in without
    assert f"There is no CIFAR-10 in {tmp_path}" in with_root
    assert "cifar-10-binary.tar.gz (md5 c32a1d4ab5d03f1284b67883e8d87530) into ROOT" in with_root


def test_it_stays_inside_the_root(tmp_path: Path) -> None:
    file = binary(tmp_path / "elsewhere") / "test_batch.bin"
    folder = binary(tmp_path / "root")
    (folder / "test_batch.bin").unlink()
    (folder / "test_batch.bin").symlink_to(file)
    protocol = load_protocol(NAME)
    with pytest.raises(DataError, match=r"test_batch\.bin leads to .*outside the root"):
        load_sets(protocol, [tmp_path / "root"], groups=("near",))


def test_classes_that_it_lacks_are_named(tmp_path: Path) -> None:
    binary(tmp_path)
    text = (Path(__file__).parents[2] / f"src/oodream/assets/protocols/{NAME}.toml").read_text()
    (tmp_path / "own.toml").write_text(text.replace('"deer", "horse"', '"deer", "unicorn"'))
    located = locate(load_protocol(str(tmp_path / "own.toml")), [tmp_path], groups=("near",))
    assert located.missing[0].reasons == ("cifar10 has no classes called unicorn",)


def test_the_whole_training_set_needs_no_list(tmp_path: Path) -> None:
    binary(tmp_path)
    located = locate(load_protocol("openood-cifar10"), [tmp_path], groups=("train",))
    assert located.found[0].place == f"cifar10 below {tmp_path}"
