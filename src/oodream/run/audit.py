"""Audits of a run, or of folders without one; and an audit as lines for a terminal."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..audit.audit import audit
from ..audit.finding import Audit, Finding
from ..audit.latent_space import drawability
from ..config import Config
from ..core.errors import shown
from ..core.results import Row
from ..data.builtin import FAR_SETS
from ..data.images import Images, ImageSet, from_array
from ..data.inputs import CONTROL, DataInputs
from ..data.sets import SETS
from ..models.inference import Extractor
from .artifacts import Run
from .lacking import lacks_outlier_images
from .layout import BASELINE, classifier_stage
from .reading import read_tensors

__all__ = ["audit_folders", "audit_run", "audited_sets", "drawn_features", "lines"]

TRAIN, TEST = "ID/train", "ID/test"  # no folder has a slash in its name
IMAGINED, REAL = "run/imagined", "run/real"
LISTED = 3  # examples of a finding that are printed
WIDTH, INDENT = 110, 9


def audit_run(run: Run) -> Audit:
    """The audit of a run, finished or begun, with what it has imagined and measured so far."""
    inputs = run.inputs
    _warn_of_other_images(run)
    return audit(
        audited_sets(inputs, run),
        inputs.train.classes,
        words=inputs.source.other_names(),
        control=_control(run),
        drawn=_drawn(run),
        seed=run.config.seed,
    )


def _warn_of_other_images(run: Run) -> None:
    """Warns where the known images are no longer those that a stage of the run was made from."""
    now = {"images": run.inputs.train.fingerprint(), "test": run.inputs.test.fingerprint()}
    for stage, stamp in run.folder.stamps().items():
        if any(stamp["inputs"].get(part, hashed) != hashed for part, hashed in now.items()):
            warnings.warn(
                f"The known images have changed since {stage} was made of them: what is said of them here is "
                "not of that run.",
                stacklevel=2,
            )
            return


def audit_folders(config: Config) -> Audit:
    """The audit of the images, OOD sets and shifted sets that a configuration names, without a run.

    Built-in OOD sets are audited beside the images of named data sets alone.
    """
    builtin = config.data in SETS
    inputs = DataInputs(config if builtin else replace(config, evaluate=replace(config.evaluate, n_far=1)))
    sets = [s for s in audited_sets(inputs) if builtin or s.name not in FAR_SETS]
    return audit(sets, inputs.train.classes, words=inputs.source.other_names(), seed=config.seed)


def audited_sets(inputs: DataInputs, run: Run | None = None) -> list[ImageSet]:
    """The image sets of a configuration, and those that a run has made of them, with the audit's groups.

    A run's are the outliers that it trains on, imagined or real, and reconstructed ID images. Those under
    shift are the user's folders: corruptions are made of the test images.
    """
    sets = [
        ImageSet(name=TRAIN, group="train", images=inputs.train),
        ImageSet(name=TEST, group="test", images=inputs.test),
    ]
    if run and (outliers := _outliers(run)):
        sets.append(ImageSet(name=IMAGINED, group="outliers", images=outliers))
    if inputs.real:
        sets.append(ImageSet(name=REAL, group="outliers", images=inputs.real.as_ood()))
    if run and run.layout.reconstructed("test").exists():
        sets.append(ImageSet(name=CONTROL, group="control", images=run.reconstructed("test")))
    return [*sets, *inputs.shifted, *inputs.ood]


def _outliers(run: Run) -> Images | None:
    """The imagined outliers that training uses; None where there are none, or where they stay latents."""
    if lacks_outlier_images(run, imagined=True) or not run.layout.provenance("images").exists():
        return None
    filtered = run.layout.keep_mask.exists()
    images = run.images.subset(run.keep_mask if filtered else torch.arange(len(run.images)), "imagined")
    if len(run.added):
        images = images.joined(run.added.images)
    return images if len(images) else None


def _control(run: Run) -> list[Row]:
    """The headline's detector on reconstructed ID images, as far as measured."""
    rows = run.rows() if run.layout.results.exists() else []
    return [r for r in rows if r.group == "control" and r.detector == run.config.evaluate.detectors[0]]


def drawn_features(run: Run) -> tuple[Images, Tensor]:
    """What the decoder makes of some known images' features without noise, and their rows in `features`."""
    drawn = read_tensors(run.layout.drawn_features, "strips", "images", "rows")
    labels = run.features.y_N[drawn["rows"]]
    return from_array("features", drawn["images"], labels, run.book.names), drawn["rows"]


def _drawn(run: Run) -> list[Finding]:
    """Whether known images' features, decoded without noise, show their class; nothing before that is
    known."""
    stamp = run.stamp(classifier_stage(BASELINE, 0))
    if not stamp or not run.layout.drawn_features.exists():
        return []
    images, _ = drawn_features(run)
    if not len(images):
        return []
    predicted_N = Extractor(run.classifier(BASELINE, 0).network)(images).logits_BC.argmax(1)
    hits_N, accuracy = predicted_N == images.labels, stamp["summary"]["accuracy"]
    return list(drawability(hits_N, images.labels, run.book.names, accuracy))


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
