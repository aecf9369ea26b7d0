"""Decoding on several processes, after damage, and of single rows: always the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from oodream.cli.main import main
from oodream.core.files import read_json, read_json_lines, write_json
from oodream.core.tensors import load_tensors
from tests.helpers.runs import command, images_of


def torchrun(*args: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "oodream"]
    return subprocess.run([*launcher, *args], capture_output=True, text=True, check=False)


def test_two_processes_draw_what_one_does(finished, sampled, shapes, tiny_pipeline):
    done = torchrun("decode", str(sampled))
    assert done.returncode == 0, done.stderr
    assert "12 images decoded (part 0 of 2)" in done.stdout
    assert "12 images decoded (part 1 of 2)" in done.stdout
    assert images_of(sampled) == images_of(finished)
    assert main(command(shapes, tiny_pipeline, sampled, "--until", "images")) == 0
    both = [(run / "images" / "imagined" / "metadata.jsonl").read_text() for run in (finished, sampled)]
    assert both[0] == both[1]


def test_shards_one_after_another(finished, sampled, capsys):
    for i in range(3):
        assert main(["decode", str(sampled), "--shard", f"{i}/3"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["8", "8", "8"]
    assert images_of(sampled) == images_of(finished)
    assert main(["decode", str(sampled), "--shard", "0/3"]) == 0
    assert capsys.readouterr().out.startswith("0 images decoded")


def kill_while_drawing(run: Path, times: int, seed: int) -> None:
    """`oodream decode` begun and killed, each time when a random number of further images have been drawn."""
    random_, args = random.Random(seed), [sys.executable, "-m", "oodream", "decode", str(run)]
    folder, total = (
        run / "images" / "imagined",
        len(load_tensors(run / "vectors" / "vectors.safetensors")["y_M"]),
    )
    for left in range(times, 0, -1):
        drawn = sum(1 for _ in folder.rglob("*.png"))
        stop = drawn + random_.randrange(1, max(2, 2 * (total - drawn) // (left + 1)))
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while (
            sum(1 for _ in folder.rglob("*.png")) < stop
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_drawing_killed_at_random_ends_the_same(finished, sampled):
    kill_while_drawing(sampled, 3, seed=0)
    assert main(["decode", str(sampled)]) == 0
    assert images_of(sampled) == images_of(finished)


@pytest.mark.slow
def test_two_thousand_embedded_images_killed_ten_times(tmp_path):
    args = ["run", "--preset", "demo", "--sample.per-class", "250", "--decode.steps", "2", "--device", "cpu"]
    assert main([*args, "--run", str(tmp_path / "calm"), "--until", "vectors"]) == 0
    shutil.copytree(tmp_path / "calm", tmp_path / "killed")
    assert main([*args, "--run", str(tmp_path / "calm"), "--until", "images/imagined"]) == 0
    kill_while_drawing(tmp_path / "killed", 10, seed=1)
    assert main([*args, "--run", str(tmp_path / "killed"), "--until", "images/imagined"]) == 0
    calm, killed = (images_of(tmp_path / name) for name in ("calm", "killed"))
    assert len(calm) == 2000
    assert calm == killed


def test_verify_mends_what_is_missing_or_damaged(finished, copied, capsys):
    files = sorted((copied / "images" / "imagined").rglob("*.png"))
    files[3].unlink()
    files[5].write_bytes(files[5].read_bytes()[:40])
    Image.new("RGB", (32, 32)).save(files[7])
    stamp = (copied / "images" / "imagined" / "stage.json").read_bytes()
    assert main(["decode", str(copied), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "3 images were missing or damaged" in out
    assert all(str(files[i]) in out for i in (3, 5, 7))
    assert images_of(copied) == images_of(finished)
    assert (copied / "images" / "imagined" / "stage.json").read_bytes() == stamp
    assert main(["decode", str(copied), "--verify"]) == 0
    assert "0 images were" in capsys.readouterr().out


def test_verify_tells_when_other_bytes_come_out(copied, capsys):
    """A recorded hash that this machine does not reproduce stands for images decoded on another processor."""
    file = copied / "images" / "imagined" / "metadata.jsonl"
    lines = read_json_lines(file)
    lines[2]["hash"] = "0" * 32
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["decode", str(copied), "--verify"]) == 2
    assert "metadata.jsonl is missing or damaged" in capsys.readouterr().err
    stamp = read_json(file.with_name("stage.json"))
    write_json(file.with_name("stage.json"), {**stamp, "hashes": {}})  # as if this were what was recorded
    assert main(["decode", str(copied), "--verify"]) == 2
    assert (
        "1 of 1 images came out with other bytes than were recorded (row 2 first)" in capsys.readouterr().err
    )


def test_damage_is_named_before_training(copied, shapes, tiny_pipeline, capsys):
    next((copied / "images" / "imagined").rglob("*.png")).write_bytes(b"")
    assert main(command(shapes, tiny_pipeline, copied, "--redo", "filter")) == 2
    assert f"oodream decode {copied} --verify" in capsys.readouterr().err


def test_a_row_alone_is_the_same_image(finished, tmp_path, capsys):
    assert main(["decode", str(finished), "--row", "4", "17", "--out", str(tmp_path / "again")]) == 0
    stored = {Path(name).name: data for name, data in images_of(finished).items()}
    again = {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    assert again == {name: stored[name] for name in ("000004.png", "000017.png")}
    assert main(["decode", str(finished), "--row", "24"]) == 2
    assert "rows 0 to 23" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["jpg", "webp"])
def test_other_formats(form, shapes, tiny_pipeline, tmp_path):
    run = tmp_path / form
    assert main(command(shapes, tiny_pipeline, run, "--decode.format", form, "--until", "filter")) == 0
    files = sorted((run / "images" / "imagined").rglob(f"*.{form}"))
    assert len(files) == 24
    with Image.open(files[0]) as image:
        assert (image.format, image.size) == ({"jpg": "JPEG", "webp": "WEBP"}[form], (32, 32))


@pytest.mark.parametrize(
    ("make", "args", "message"),
    [
        (False, [], "There is no folder"),
        (True, [], "has no vectors yet"),
        (True, ["--shard", "1of3"], "written i/n"),
        (True, ["--shard", "3/3"], "does not exist"),
    ],
)
def test_what_cannot_be_drawn(make, args, message, finished, tmp_path, capsys):
    run = tmp_path / "run"
    if make:
        shutil.copytree(finished, run)
        if not args:
            (run / "vectors" / "stage.json").unlink()
    assert main(["decode", str(run), *args]) == 2
    assert message in capsys.readouterr().err


def test_environment_of_launchers(monkeypatch):
    from oodream.core.distributed import Shard, current_shard, local_rank

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (current_shard(), local_rank()) == (Shard(0, 1), 0)
    monkeypatch.setitem(os.environ, "RANK", "3")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "4")
    assert current_shard() == Shard(3, 4)
    parts = [Shard(i, 4).rows(70, 16).tolist() for i in range(4)]
    assert sorted(m for part in parts for m in part) == list(range(70))
    assert parts[0] == [*range(16), *range(64, 70)]


def test_a_changed_tile_is_that_of_other_processes_too(copied, shapes, tiny_pipeline):
    """The classes stay as they are then, and with them the tile that was recorded there."""
    from oodream.run.redraw import open_begun

    assert (
        main(
            command(
                shapes, tiny_pipeline, copied, "--decode.tile", "2", "--until", "images", "--redo", "changed"
            )
        )
        == 0
    )
    assert open_begun(copied, "cpu").decoder.tile == 2
