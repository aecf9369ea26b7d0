"""A run's folder: stamps, locks, and runs of another format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from oodream.core.errors import StoreError
from oodream.core.files import read_json, write_json
from oodream.run.artifacts import Run
from oodream.run.changes import differences, in_words
from oodream.run.folder import RunDir, StageChanged, read_manifest


def test_a_file_where_the_run_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(StoreError, match="run is a file, and no folder"), RunDir(tmp_path / "run").locked():
        pass


def test_stamps(tmp_path):
    run = RunDir(tmp_path / "run")
    inputs = {"k": 3, "after": {"align": "abc"}}
    assert not run.is_done("sample", inputs)
    run.begin("sample", inputs)
    assert not run.is_done("sample", inputs)
    with pytest.raises(StageChanged, match=r"k: 3 -> 4"):
        run.is_done("sample", {**inputs, "k": 4})
    run.finish("sample", inputs, 1.23, {"outliers": 7})
    assert run.is_done("sample", inputs)
    assert run.stamp("sample")["summary"] == {"outliers": 7}
    with pytest.raises(StageChanged, match=r"--redo changed to make sample"):
        run.is_done("sample", {"k": 3, "after": {"align": "xyz"}})
    run.remove("sample")
    assert not run.is_done("sample", {"k": 4})


def test_differences_names_the_path():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: 2 -> 3"]
    assert differences({"a": 1}, {"a": 1}) == []
    assert differences({}, {"a": 1}) == ["a: unset -> 1"]
    one, other = "9a0a020b12c4e5f6", "32d1110c9a0a020b"
    hashes = {"a": one, "b": one, "c": other}, {"a": other, "c": other, "d": one}
    assert differences(*hashes) == ["a: not the same", "b: gone", "d: new"]


def test_differences_of_images_are_told_in_words():
    one, other = "9a0a020b12c4e5f6", "32d1110c9a0a020b"
    old = {
        "images": one,
        "sets": {"a: b": ["far", one], "digits": ["far", one], "x": one},
        "k": "images: new",
    }
    new = {"images": other, "sets": {"digits": ["far", other], "street": ["near", one], "x": one}, "k": "new"}
    assert [*map(in_words, differences(old, new))] == [
        "the training images are not the same",
        "k: images: new -> new",
        "the image set a: b was given before, and is not now",
        "the image set digits is not the same",
        "the image set street is new",
    ]


def test_long_values_are_cut_short():
    """One class more among a thousand is one line, and not a thousand names."""
    names = [f"class {i}" for i in range(1000)]
    (line,) = differences({"names": names}, {"names": [*names, "one more"]})
    assert line == "names: a list of 1000 -> a list of 1001"
    (line,) = differences({"prompt": "a" * 500}, {"prompt": "b"})
    assert len(line) < 120
    assert "(500 characters)" in line


def test_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from oodream.run.folder import RunDir\n"
        "with RunDir(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="Another oodream process"), RunDir(tmp_path / "run").locked():
            pass
    finally:
        holder.kill()
        holder.wait()
    with RunDir(tmp_path / "run").locked():
        pass


@pytest.mark.parametrize("stamp", ["{}", "[]", "null", "", '{"inputs": {}, "seconds": 1}'])
def test_a_torn_stamp_is_named(stamp, tmp_path):
    (tmp_path / "align").mkdir()
    (tmp_path / "align" / "stage.json").write_text(stamp)
    with pytest.raises(StoreError, match=r"align/stage\.json is missing or damaged.*--redo align"):
        RunDir(tmp_path).stamp("align")


def test_a_run_of_the_former_layout_is_refused_with_one_line(tmp_path):
    manifest = {"command": "oodream demo", "config": {"data": "fashion"}, "versions": {"oodream": "0.1.0"}}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    for look in (read_manifest, Run.open):
        with pytest.raises(
            StoreError, match=r"is a run of format 1 \(oodream 0\.1\.0\), and this version reads format 2"
        ) as e:
            look(tmp_path)
        assert "\n" not in str(e.value)


def test_a_folder_without_a_run(tmp_path):
    assert read_manifest(tmp_path) is None
    with pytest.raises(StoreError, match=r"is not a run folder: it has no run\.json"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(StoreError, match=r"run\.json is damaged"):
        Run.open(tmp_path)


def test_a_finished_stage_that_lost_a_file_is_named(tmp_path):
    run = RunDir(tmp_path)
    (tmp_path / "align").mkdir()
    (tmp_path / "align" / "encoder.safetensors").write_bytes(b"weights")
    run.finish("align", {}, 1.0, {})
    run.check_whole("align")
    run.check_whole("never begun")
    (tmp_path / "align" / "encoder.safetensors").write_bytes(b"weig")
    with pytest.raises(StoreError, match=r"encoder\.safetensors is missing or damaged.*--redo align"):
        run.check_whole("align")


def test_all_files_of_a_stage_that_are_not_as_they_were_are_counted(tmp_path):
    """Those that were lost, that are shorter, and that have other bytes."""
    run, names = RunDir(tmp_path), [f"{i:02}.bin" for i in range(12)]
    (tmp_path / "align").mkdir()
    for name in names:
        (tmp_path / "align" / name).write_bytes(b"weights")
    run.finish("align", {}, 1.0, {})
    (tmp_path / "align" / "00.bin").unlink()
    (tmp_path / "align" / "01.bin").write_bytes(b"weig")
    for name in names[2:]:
        (tmp_path / "align" / name).write_bytes(b"weighty")
    with pytest.raises(
        StoreError,
        match=r"^12 files \(.*/00\.bin, .*/09\.bin, … and 2 more\) are missing or damaged\.",
    ):
        run.check_whole("align")


def test_images_are_counted(tmp_path):
    run = RunDir(tmp_path)
    for i in range(3):
        path = tmp_path / "images" / "imagined" / "circle-0" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
    run.finish("images/imagined", {}, 1.0, {})
    run.check_whole("images/imagined")
    path.unlink()
    with pytest.raises(StoreError, match=r"has 2 of 3 images\. Mend them with: oodream decode .* --verify"):
        run.check_whole("images/imagined")


def test_a_flipped_bit_of_a_finished_stage_is_named(tmp_path):
    run, file = RunDir(tmp_path), tmp_path / "align" / "encoder.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    run.finish("align", {}, 1.0, {})
    file.write_bytes(b"weighty")
    for check in (lambda: run.check_whole("align"), lambda: run.check_file(file)):
        with pytest.raises(StoreError, match=r"encoder\.safetensors is missing or damaged.*--redo align"):
            check()
    stamp = read_json(file.with_name("stage.json"))
    write_json(file.with_name("stage.json"), {key: stamp[key] for key in stamp if key != "hashes"})
    run.check_whole("align")  # of an earlier version: sizes alone


def test_a_record_that_is_damaged_costs_no_image(tmp_path):
    run, record = RunDir(tmp_path), tmp_path / "images" / "imagined" / "metadata.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text("{}\n")
    run.finish("images/imagined", {}, 1.0, {})
    record.write_text("{ }\n")
    with pytest.raises(StoreError, match=r"metadata\.jsonl is missing or damaged.*its images are kept"):
        run.check_whole("images/imagined")


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    half = [tmp_path / "images" / ".000000.png.0badcafe", tmp_path / ".run.json.0badcafe"]
    half[0].parent.mkdir()
    for file in half:
        file.touch()
    with RunDir(tmp_path).locked():
        assert not any(file.exists() for file in half)


def test_a_stamp_that_is_seen_late_is_waited_for(tmp_path):
    run = RunDir(tmp_path)
    (tmp_path / "align").mkdir()
    writer = threading.Timer(0.2, run.finish, ("align", {}, 1.0, {}))
    writer.start()
    run.wait_for("align")
    writer.join()
    with pytest.raises(StoreError, match=r"vectors is finished on another machine, and not to be seen here"):
        run.wait_for("vectors", seconds=0.1)


def test_a_stage_that_was_stopped_and_goes_on_counts_what_it_took_before(tmp_path):
    run, inputs = RunDir(tmp_path / "run"), {"k": 3}
    folder = tmp_path / "run" / "sample"

    def worked(seconds: float) -> None:
        """Something is put into the stage's folder so long after its mark, and then the process is killed."""
        mark = (folder / "begun.json").stat().st_mtime
        (folder / "images").mkdir(exist_ok=True)
        for path in (folder, folder / "images"):
            os.utime(path, (mark, mark + seconds))

    assert run.begin("sample", inputs) == 0
    worked(100)
    assert run.begin("sample", inputs) == pytest.approx(100, abs=0.1)
    worked(130)  # of which a hundred were before
    assert run.begin("sample", inputs) == pytest.approx(130, abs=0.1)
    worked(-50)  # the clock was set back
    assert run.begin("sample", inputs) == 0
