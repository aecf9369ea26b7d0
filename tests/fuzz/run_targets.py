"""Targets: what lies in a run's folder, which may have been shared. Manifests, stamps, decisions, results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from oodream.audit.finding import Audit, Finding
from oodream.core.files import write_json
from oodream.core.results import row_to_json
from oodream.data.stream import list_files
from oodream.deploy.resumed import Tally, score_to
from oodream.deploy.tables import JsonLines, Parquet, read_part, row_of
from oodream.run.added import read_added
from oodream.run.artifacts import Run
from oodream.run.curation import Curation, decide, read_decisions, undo
from oodream.run.folder import RunDir
from oodream.run.process import status
from oodream.studio.jobs import resumed
from tests.helpers.rows import control_row
from tests.helpers.studio import imagined_run

from .mutate import mutate_either, mutate_tensors, mutate_text, prefixed
from .small import SIDE, classifier, images
from .target import Read, target

__all__ = ["RUN_FILES"]

Prepared = tuple[Sequence[bytes], Read]
RUN_FILES = {
    "p": "images/imagined/metadata.jsonl", "c": "classes/classes.json", "s": "images/imagined/stage.json",
    "f": "filter/stage.json", "a": "audit/audit.json", "d": "added/added.jsonl", "u": "curation.jsonl",
}  # fmt: skip
"""files of a run, by the letter that an input of the target begins with"""


@target("manifests")
def _manifests(folder: Path) -> Prepared:
    """A run's run.json."""
    run = imagined_run(folder / "run", 4)

    def read(data: bytes) -> object:
        (run / "run.json").write_bytes(data)
        status(run)
        opened = Run.open(run)
        return opened.kind, opened.has_latents, opened.command

    return [(run / "run.json").read_bytes()], read


@target("processes")
def _processes(folder: Path) -> Prepared:
    """A run's process.json, by which the studio shows it, stops it and goes on with it."""
    run = imagined_run(folder / "run", 2)
    record = {
        "pid": 4_000_000,
        "began": 1.5,
        "arguments": ["run", "--preset=folder", "--data=/a", f"--run={run}"],
    }

    def read(data: bytes) -> object:
        (run / "process.json").write_bytes(data)
        status(run)
        words = resumed(run, changed=False, plugins=False)
        assert words[0] == "run"
        assert f"--run={run}" in words
        assert all(
            word.startswith(("--preset=", "--data=", "--seeds=", "--run=", "--config=", "--redo="))
            for word in words[1:]
        )
        return words

    return [json.dumps(record).encode()], read


@target("run files", prefixed(mutate_text))
def _run_files(folder: Path) -> Prepared:
    """One of `RUN_FILES`, by the first letter; all of the run that depends on it is read."""
    home = imagined_run(folder / "run", 5)
    finding = Finding(
        kind="look", severity="fine", sets=("a",), count=3, message="x", share=0.5, interval=(0.4, 0.6)
    )
    write_json(home / "audit" / "audit.json", Audit(sets={"a": "near"}, findings=(finding,)).to_json())
    line = {
        "number": 1, "file_name": "000001.png", "class": "coat", "prompt": "a", "hash": "", "vector": [0.5],
        "words": [], "recipe": {"seed": 1}, "cosine_to_class": 0.5, "knn_distance": 0.5, "way": "word",
        "pipeline": "",
    }  # fmt: skip
    (home / "added").mkdir()
    (home / "added" / "added.jsonl").write_text(json.dumps(line) + "\n")
    decide(home / "curation.jsonl", "0" * 16, {0: False, 1: True})
    whole = {key: (home / name).read_bytes() for key, name in RUN_FILES.items()}

    def read(data: bytes) -> object:
        key = chr(data[0]) if data and chr(data[0]) in RUN_FILES else "p"
        for other, content in whole.items():
            (home / RUN_FILES[other]).write_bytes(data[1:] if other == key else content)
        run = Run.open(home)
        return {
            "p": lambda: [(one["class"], one["words"]) for one in run.provenance],
            "c": lambda: (run.book, run.tile, run.files.paths),
            "s": lambda: (RunDir(home).stamps(), run.selection.curation),
            "f": lambda: run.drop_reasons,
            "a": run.audit,
            "d": lambda: read_added(home / "added"),
            "u": lambda: run.keep_mask,
        }[key]()

    return [key.encode() + content for key, content in whole.items()], read


@target("run tensors", prefixed(mutate_tensors))
def _run_tensors(folder: Path) -> Prepared:
    """A run's tensors: its vectors, or the filters' mask."""
    home = imagined_run(folder / "run", 5)
    files = {"v": home / "vectors" / "vectors.safetensors", "k": home / "filter" / "keep.safetensors"}
    whole = {key: file.read_bytes() for key, file in files.items()}

    def read(data: bytes) -> object:
        key = "k" if data[:1] == b"k" else "v"
        for other, content in whole.items():
            files[other].write_bytes(data[1:] if other == key else content)
        run = Run.open(home)
        return run.files.paths, run.keep_mask, run.drop_reasons, len(run.provenance)

    return [key.encode() + content for key, content in whole.items()], read


@target("curation")
def _curation(folder: Path) -> Prepared:
    file = folder / "curation.jsonl"
    decide(file, "a" * 16, {3: False, 4: True})
    decide(file, "a" * 16, {3: None})
    undo(file, "a" * 16)
    whole = file.read_bytes()

    def read(data: bytes) -> object:
        file.write_bytes(data)
        now = Curation(read_decisions(file), "a" * 16)
        now.check(1 << 62, file)
        assert decide(file, "a" * 16, {1: False}).states[1] is False
        assert Curation(read_decisions(file), "a" * 16).states == {**now.states, 1: False}, "all else stays"
        return now.inputs, now.last

    return [whole], read


@target("results")
def _results(folder: Path) -> Prepared:
    """A run's results.jsonl."""
    run = imagined_run(folder / "run", 2)

    def read(data: bytes) -> object:
        (run / "results.jsonl").write_bytes(data)
        rows = Run.open(run).rows()
        assert sum(one.auroc + one.n_ood + sum(map(sum, one.intervals.values())) for one in rows) < 1e300
        return [row_to_json(one) for one in rows]

    return [results()], read


def results() -> bytes:
    """Lines as a run writes them."""
    sets = (("a", "near"), ("mean", "near"), ("mean", "all"))
    rows = [
        replace(control_row(kind, 0.9, 0.1), dataset=name, group=group)
        for kind in ("baseline", "regularized")
        for name, group in sets
    ]
    return "".join(f"{row_to_json(one)}\n" for one in rows).encode()


@target("tables", prefixed(mutate_either))
def _tables(folder: Path) -> Prepared:
    """A part of a table of scores, which is taken up again; the first letter says of which kind."""
    answer = next(iter(classifier()(images(3), torch.device("cpu"))))
    rows = [row_of("a.png", answer), row_of("b.png", "cannot be read")]
    kinds = {"j": JsonLines(), "p": Parquet()}

    def read(data: bytes) -> object:
        table = kinds["p" if data[:1] == b"p" else "j"]
        part = folder / f"part{table.suffix}"
        part.write_bytes(data[1:])
        tally = Tally()
        tally.add(read_part(table, part))
        table.join([part], folder / f"whole{table.suffix}", {})
        return str(tally), tally.first_unread

    return [key.encode() + kind.encode(rows) for key, kind in kinds.items()], read


@target("resumed", short=15)
def _resumed(folder: Path) -> Prepared:
    """The file begun.json of scores that are taken up again."""
    picture = folder / "a.png"
    Image.new("RGB", (SIDE, SIDE)).save(picture)
    file, parts = folder / "out.jsonl", folder / "out.jsonl.parts"
    listed = list_files([picture], folder / "listed.txt").identity
    facts = {**classifier().identity(), "pictures": listed, "total": 1, "part": 1024}

    def read(data: bytes) -> object:
        file.unlink(missing_ok=True)
        parts.mkdir(exist_ok=True)
        (parts / "begun.json").write_bytes(data)
        (parts / "pictures.txt").write_text(f"{picture}\n")
        return score_to(file, [str(picture)], classifier())

    return [json.dumps(facts).encode()], read
