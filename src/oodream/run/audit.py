"""`oodream audit`: the image sets of a run, or of folders without one, brought before the audit; and its
findings as lines.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..audit.audit import audit
from ..audit.finding import Audit
from ..config import Config
from ..core.errors import StoreError
from ..core.files import load_tensors, read_json
from ..core.options import overlay
from ..core.results import Row, row_from_json
from ..data.builtin import FAR_SETS
from ..data.classes import find, read
from ..data.images import Images, from_array, from_files
from ..data.inputs import CONTROL, FASHION_DATA, DataInputs
from .folder import RunDir
from .generated import imagined

TRAIN, TEST, IMAGINED = "ID/train", "ID/test", "run/imagined"  # no folder has a slash in its name
LISTED = 3  # examples in a line


def of_run(path: Path) -> Audit:
    """The audit of a run, finished or begun, with what it has imagined and measured so far. StoreError where
    there is no run.
    """
    run = RunDir(path)
    if not (run / "run.json").is_file():
        raise StoreError(
            f"{path} is not a run folder: it has no run.json. Audit folders with: oodream audit --data FOLDER --ood …"
        )
    return audited(DataInputs(overlay(Config(), read_json(run / "run.json")["config"])), run)


def of_folders(config: Config) -> Audit:
    """The audit of the data and OOD sets that a configuration names; of the built-in OOD sets beside built-in
    data alone.
    """
    if config.data in FASHION_DATA:
        return audited(DataInputs(config))
    given = DataInputs(replace(config, evaluate=replace(config.evaluate, n_far=1)))
    given.ood = {name: found for name, found in given.ood.items() if name not in FAR_SETS}
    return audited(given)


def audited(given: DataInputs, run: RunDir | None = None) -> Audit:
    """The audit of `audited_sets`, with what a run has measured on reconstructed ID images."""
    config, control = given.config, _control(run, given.config) if run else []
    return audit(
        audited_sets(given, run),
        given.data[1].classes,
        words=_words(config),
        control=control,
        seed=config.seed,
    )


def audited_sets(given: DataInputs, run: RunDir | None = None) -> dict[str, tuple[str, Images]]:
    """All sets given, by name with their group, and those that a run has made: outliers to train on,
    reconstructed ID images.
    """
    train, test = given.data
    sets: dict[str, tuple[str, Images]] = {TRAIN: ("train", train), TEST: ("test", test)}
    if run:
        if (outliers := _outliers(run, given.config, train)) is not None:
            sets[IMAGINED] = ("outliers", outliers)
        file = run / "images" / "reconstructed" / "reconstructed-test.safetensors"
        if file.exists():
            t = load_tensors(file)
            sets[CONTROL] = ("control", from_array(CONTROL, t["images"], t["labels"], train.classes))
    return {**sets, **given.ood}


def _outliers(run: RunDir, config: Config, train: Images) -> Images | None:
    """The imagined outliers that training uses; None where there are none, or where they stay latents."""
    folder = run / imagined(config.decode)
    if config.decode.output != "images" or not (folder / "metadata.jsonl").exists():
        return None
    lines = [
        json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    filtered = run / "filter" / "kept.safetensors"
    kept = load_tensors(filtered)["kept"].tolist() if filtered.exists() else [True] * len(lines)
    lines = [line for line in lines if line["kind"] == "outlier" and kept[line["row"]]]
    labels = [train.classes.index(line["class"]) for line in lines]
    return (
        from_files(
            "imagined", [folder / line["file_name"] for line in lines], labels, train.classes, train.size
        )
        if lines
        else None
    )


def _control(run: RunDir, config: Config) -> list[Row]:
    """The headline's detector on reconstructed ID images, as far as measured."""
    if not (run / "results.jsonl").exists():
        return []
    rows = map(row_from_json, (run / "results.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row.group == "control" and row.detector == config.evaluate.detectors[0]]


def _words(config: Config) -> dict[str, list[str]]:
    """What else the class list calls the classes: their folders, aliases and the words of their prompts."""
    source = find(config.classes) if config.classes else Path(config.data) / "classes.toml"
    if not source.is_file():
        return {}
    by_folder, words, by_alias = read(source)
    found = {name: [text] for name, text in words.items()}
    for other, name in (*by_folder.items(), *by_alias.items()):
        found.setdefault(name, []).append(other)
    return found


def lines(done: Audit) -> Iterator[str]:
    """Findings for a terminal, worst first, with some examples, and how many there are of each kind of
    severity.
    """
    for f in done.findings:
        yield f"{f.severity:8} {f.kind}: {', '.join(f.sets)}"
        yield textwrap.indent(textwrap.fill(f.message, 110), " " * 9)
        for example in f.examples[:LISTED]:
            if "file" in example:
                yield f"           {example['class']}: {example['file']}"
            elif "files" in example:
                yield f"           {' and '.join(example['files'])} (apart {example['apart']:.3f})"
    yield f"Problems: {len(done['problem'])}. Warnings: {len(done['warning'])}."
