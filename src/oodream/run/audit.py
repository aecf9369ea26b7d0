"""Audits of a run, or of folders without one; and an audit as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..audit.audit import audit
from ..audit.finding import Audit
from ..config import Config
from ..core.files import shown
from ..core.results import Row
from ..data.builtin import FAR_SETS
from ..data.classes import find, read
from ..data.images import Images, ImageSet
from ..data.inputs import CONTROL, FASHION_DATA, DataInputs
from .artifacts import Run

__all__ = ["audit_folders", "audit_run", "audited_sets", "lines"]

TRAIN, TEST = "ID/train", "ID/test"  # no folder has a slash in its name
IMAGINED, REAL = "run/imagined", "run/real"
LISTED = 3  # examples of a finding that are printed
WIDTH, INDENT = 110, 9


def audit_run(run: Run, inputs: DataInputs | None = None) -> Audit:
    """The audit of a run, finished or begun, with what it has imagined and measured so far.

    `inputs` are its image sets, if they are at hand.
    """
    inputs = inputs or DataInputs(run.config)
    return audit(
        audited_sets(inputs, run),
        inputs.train.classes,
        words=_words(run.config),
        control=_control(run),
        seed=run.config.seed,
    )


def audit_folders(config: Config) -> Audit:
    """The audit of the images and OOD sets that a configuration names, without a run.

    Built-in OOD sets are audited beside built-in images alone.
    """
    builtin = config.data in FASHION_DATA
    inputs = DataInputs(config if builtin else replace(config, evaluate=replace(config.evaluate, n_far=1)))
    sets = [s for s in audited_sets(inputs) if builtin or s.name not in FAR_SETS]
    return audit(sets, inputs.train.classes, words=_words(config), seed=config.seed)


def audited_sets(inputs: DataInputs, run: Run | None = None) -> list[ImageSet]:
    """The image sets of a configuration, and those that a run has made of them, with the audit's groups.

    A run's are the outliers that it trains on, imagined or real, and reconstructed ID images.
    """
    sets = [
        ImageSet(name=TRAIN, group="train", images=inputs.train),
        ImageSet(name=TEST, group="test", images=inputs.test),
    ]
    if run and (outliers := _outliers(run)):
        sets.append(ImageSet(name=IMAGINED, group="outliers", images=outliers))
    if inputs.real:
        sets.append(ImageSet(name=REAL, group="outliers", images=inputs.real))
    if run and run.layout.reconstructed("test").exists():
        sets.append(ImageSet(name=CONTROL, group="control", images=run.reconstructed("test")))
    return [*sets, *inputs.ood]


def _outliers(run: Run) -> Images | None:
    """The imagined outliers that training uses; None where there are none, or where they stay latents."""
    trains_on_images = run.config.regularize.outliers == "imagined" and not run.has_latents
    if not trains_on_images or run.kind != "outlier" or not run.layout.provenance("images").exists():
        return None
    filtered = run.layout.keep_mask.exists()
    images = run.images.subset(run.keep_mask if filtered else torch.arange(len(run.images)), "imagined")
    return images if len(images) else None


def _control(run: Run) -> list[Row]:
    """The headline's detector on reconstructed ID images, as far as measured."""
    rows = run.rows() if run.layout.results.exists() else []
    return [r for r in rows if r.group == "control" and r.detector == run.config.evaluate.detectors[0]]


def _words(config: Config) -> dict[str, list[str]]:
    """Other names of the classes in their list: folders, aliases and the words of prompts."""
    source = find(config.classes) if config.classes else Path(config.data) / "classes.toml"
    if not source.is_file():
        return {}
    by_folder, words, by_alias = read(source)
    names = {name: [text] for name, text in words.items()}
    for other, name in (*by_folder.items(), *by_alias.items()):
        names.setdefault(name, []).append(other)
    return names


def lines(audit: Audit) -> Iterator[str]:
    """Findings for a terminal, worst first, with some examples, and the numbers of problems and warnings."""
    for finding in audit.findings:
        yield shown(f"{finding.severity:8} {finding.kind}: {', '.join(finding.sets)}")
        message = finding.message.encode("utf-8", "backslashreplace").decode()
        yield textwrap.indent(textwrap.fill(message, WIDTH), " " * INDENT)
        for example in finding.examples[:LISTED]:
            if "file" in example:
                text = f"{example['class']}: {example['file']}"
            elif "files" in example:
                text = f"{' and '.join(example['files'])} (apart {example['apart']:.3f})"
            else:
                continue
            yield textwrap.indent(shown(text), " " * (INDENT + 2))
    yield f"Problems: {len(audit['problem'])}. Warnings: {len(audit['warning'])}."
