from __future__ import annotations

import os
from pathlib import Path

import pytest

from oodream.benchmark.explain import explain, overview
from oodream.benchmark.locate import Rooted, locate
from oodream.benchmark.protocol import MEASURED, load_protocol
from oodream.cli.main import main
from tests.helpers.protocols import evaluate, write_list


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", "--protocol", "openood-cifar10", "--root", str(tmp_path), "--model", "nothing"]
    assert main(args) == 2
    message, protocol = capsys.readouterr().err, load_protocol("openood-cifar10")
    assert str(tmp_path) in message
    for s in protocol.sets:
        if s.group in MEASURED:
            assert f"{s.name} ({s.group}" in message
            assert s.list in message
            assert s.sha256 in message
            assert protocol.sources[s.source].url in message
    assert protocol.sources["lists"].url in message
    assert main([*args, "--dry-run"]) == 0
    assert "val-tin (val-ood, 1,000 images)" in capsys.readouterr().out


def test_only_what_is_missing_is_to_be_got(tmp_path: Path) -> None:
    protocol = load_protocol("openood-cifar10")
    for s in protocol.sets:
        (tmp_path / protocol.sources[s.source].into).mkdir(parents=True, exist_ok=True)
    message = explain(locate(protocol, [tmp_path]))
    assert protocol.sources["lists"].url in message
    assert protocol.sources["tin"].url not in message


def test_every_reason_stands_on_a_line_of_its_own(root: Path) -> None:
    """What is there and what is missing are two blocks; a set's reasons are indented below its name."""
    near = root / "benchmark_imglist" / "colours" / "near.txt"
    near.unlink()
    protocol = load_protocol(str(root / "colours.toml"))
    sha256 = next(s.sha256 for s in protocol.sets if s.name == "near-set")
    lists = near.parent
    assert overview(Rooted(protocol=protocol, roots=(root,))).splitlines() == [
        "colours: three colours",
        "16 x 16 pixels, 3 classes",
        "",
        "Found: 3 of 4 image sets",
        f"  train-set (train, 24 images): {lists / 'train.txt'}",
        f"  test-set (test, 18 images): {lists / 'test.txt'}",
        f"  far-set (far, 12 images): {lists / 'far.txt'}",
        "",
        f"colours: 1 of 4 image sets are missing, below {root}.",
        "  near-set (near, 10 images)",
        f"      no list benchmark_imglist/colours/near.txt (sha256 {sha256})",
        "",
        "Where to get it (ROOT is the folder that --root names):",
        "  lists: images into ROOT",
        "      https://example.org/lists",
    ]
    write_list(near, ["colours/near/none.png -1"])
    reasons = overview(Rooted(protocol=protocol, roots=(root,))).splitlines()
    assert reasons[10].startswith("      1 of the 1 images in the list ")
    assert f"  colours: colours.zip (md5 {'0' * 32}) into ROOT/images_classic/colours" in reasons


def test_dry_run_reads_no_image_and_writes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import oodream.data.images as image_sets

    monkeypatch.setattr(image_sets, "read_image", lambda *_: pytest.fail("read an image"))
    monkeypatch.chdir(root.parent)
    before = sorted(os.listdir(root.parent))
    assert evaluate(root, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "near-set (near, 10 images)" in printed
    assert printed.rstrip().endswith("Nothing is missing.")
    assert sorted(os.listdir(root.parent)) == before
