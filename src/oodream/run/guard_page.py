"""What `oodream guard` has made, on disk: the guard's folder, its report and the same facts as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..core.errors import StoreError, brief
from ..core.files import atomic_folder, encode_json, shown, write_bytes, write_json
from ..core.seeding import generator
from ..core.tensors import load_tensors, save_tensors
from ..core.types import Json
from ..data.images import Images, ImageSet
from ..deploy.accuracy import Accuracy
from ..deploy.guard import Guard
from ..deploy.known import KnownParts
from ..deploy.measured import Measured, Measurements
from ..deploy.stored import code_of, name_of, options_of
from ..detection.choose import Candidate, Choice
from ..models.opened import Opened
from ..report.content import Answer
from ..report.guard import GuardPage, guard_page
from ..runtime.calibration import OtherHalf
from .guard_images import FACTS, facts_in, inputs_of
from .guard_inputs import SUPPOSED, GuardJob

__all__ = [
    "REPORT",
    "SCORES",
    "Guarded",
    "choice_in_words",
    "measured_in",
    "measured_in_words",
    "read_scores",
    "write_guard",
]

REPORT, SCORES = "report.html", "scores.safetensors"
ANSWERS = 8  # known images on the page, and unknown ones of each set
MEASURED = (
    "unknown images", "group", "AUROC, %", "accepted where 95 % of known are, %", "flagged by the guard, %",
    "images",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A guard and what it stands on.

    `scores` are those of the images held out, under "held out", and of the `unknown` sets. `accuracy` is None
    without labels. The detector was chosen on what `about` says in words. `other_half` is how
    many of one half of the held-out images a threshold from the other flags. `notes` are what a person must
    know. `made_from` are the hashes of `guard_made`.
    """

    guard: Guard
    opened: Opened
    parts: KnownParts
    held_out: Images
    scores: Mapping[str, Tensor]
    accuracy: Accuracy | None
    choice: Choice
    about: str
    unknown: Sequence[ImageSet]
    measured: Sequence[Measured]
    other_half: OtherHalf | None
    notes: tuple[str, ...]
    made_from: Json


def choice_in_words(choice: Choice, about: str) -> str:
    """Which detector was chosen, and beside which."""
    lines = [f"detectors by AUROC on {about}:"]
    lines += [f"  {_called(one):40} {one.mean:6.1%}" for one in choice.candidates[:5]]
    if len(choice.candidates) > 5:
        lines.append(f"  … and {len(choice.candidates) - 5} more")
    return "\n".join(lines)


def write_guard(made: Guarded, job: GuardJob) -> None:
    """Writes the guard's folder, whole or not at all."""
    with atomic_folder(job.out) as fresh:
        made.guard.save(fresh)
        write_json(fresh / FACTS, {**facts(made, job), "inputs": inputs_of(job, made.held_out)}, sealed=True)
        save_tensors(fresh / SCORES, {one.name: made.scores[one.name].double() for one in made.unknown})
        write_bytes(fresh / REPORT, guard_page(page(made, job)).encode())


def read_scores(folder: Path) -> dict[str, tuple[str, Tensor]]:
    """The groups of the unknown sets that a guard was tried on, and its scores of them, by name; none where
    the folder says nothing of them, as those that were exported.
    """
    if not (folder / SCORES).is_file():
        return {}
    groups, scores = facts_in(folder).get("unknown", {}), load_tensors(folder / SCORES)
    return {name: (str(group), scores[name]) for name, group in groups.items() if name in scores}


def measured_in(folder: Path) -> Measurements:
    """The numbers of a guard that its folder has of its making; a folder that says nothing of it, as one that
    was exported, has none.

    Raises StoreError where they are damaged or of another version.
    """
    facts = facts_in(folder)
    try:
        accuracy = facts.get("accuracy") or {"value": None, "n": 0}
        return Measurements(
            accuracy=accuracy["value"],
            known=accuracy["n"],
            unknown=tuple(Measured(**one) for one in facts.get("measured", ())),
            supposed=facts.get("supposed", True),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(
            f"{shown(folder / FACTS)} is damaged, or was written by another version ({brief(error)}). Make "
            "the guard again: the command that made it with --redo."
        ) from error


def facts(made: Guarded, job: GuardJob) -> Json:
    """The command and all numbers of a guard's making."""
    accuracy, parts, p = made.accuracy, made.parts, made.opened.preprocessing
    return {
        "command": job.command,
        "network": made.opened.settings["backbone"],
        "classes": len(made.guard.names),
        "preprocessing": asdict(p),
        "images": {key: len(getattr(parts, key).rows) for key in ("fit", "choose", "held_out")},
        "accuracy": None if accuracy is None else {"value": accuracy.value, "n": accuracy.n},
        "detector": {"name": name_of(made.guard.detector), "options": options_of(made.guard.detector)},
        "chosen_on": made.about,
        "aurocs": {one.name: dict(one.aurocs) for one in made.choice.candidates},
        "skipped": dict(made.choice.skipped),
        "measured": [asdict(one) for one in made.measured],
        "unknown": {one.name: one.group for one in made.unknown},
        "other_half": made.other_half and made.other_half.rate,
        "other_half_images": made.other_half and made.other_half.n,
        "notes": list(made.notes),
        "supposed": SUPPOSED in made.notes,
        "made_from": made.made_from,
    }


def page(made: Guarded, job: GuardJob) -> GuardPage:
    """The content of the report."""
    best = made.choice.best
    sets = list(best.aurocs)
    return GuardPage(
        title=shown(job.out.name),
        code=code_of(made.guard),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=job.command,
        guarantee=f"{made.guard.guarantee}",
        threshold=made.guard.threshold,
        facts=_facts_in_words(made),
        notes=made.notes,
        about=made.about,
        head=("detector", "mean", *sets),
        candidates=[
            (_called(one), *(f"{100 * value:.1f}" for value in (one.mean, *(one.aurocs[s] for s in sets))))
            for one in made.choice.candidates
        ],
        skipped=made.choice.skipped,
        scores=made.scores,
        measured_head=MEASURED,
        measured=[
            (m.name, m.group, *map(_percent, (m.auroc, m.fpr95_id, m.flagged)), f"{m.n:,}")
            for m in made.measured
        ],
        answers=_answers(made, job.seed),
        versions={"oodream": __version__, "torch": torch.__version__},
        config=encode_json({key: _plain(value) for key, value in vars(job).items()}, indent=2).decode(),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _plain(value: object) -> object:
    return shown(value) if isinstance(value, Path) else value


def _called(candidate: Candidate) -> str:
    """A detector's name with the options that were chosen for it."""
    options = ", ".join(f"{key} {value}" for key, value in candidate.options.items())
    return f"{candidate.name}, {options}" if options else candidate.name


def _facts_in_words(made: Guarded) -> dict[str, str]:
    p, parts, guard = made.opened.preprocessing, made.parts, made.guard
    middle = f", the middle of a square of {p.resized}" if p.resized > p.size else ""
    values = {"mean": p.mean, "std": p.std}
    pixels = ", ".join(f"{key} {' '.join(f'{v:.4g}' for v in triple)}" for key, triple in values.items())
    return {
        "Network": made.opened.settings["backbone"],
        "Classes": f"{len(guard.names):,}",
        "Its images": f"{p.size} pixels a side{middle}",
        "Its pixels": f"in [0, 1], then {pixels}" if made.opened.network.normalises else "as they are",
        "Images": f"{parts}",
        "Detector": _called(made.choice.best),
        "Threshold": _threshold_in_words(guard),
        **measured_in_words(made),
    }


def measured_in_words(made: Guarded) -> dict[str, str]:
    """What known images that taught no detector say of a guard: how often its network is right, where they
    have labels, and how many a threshold flags that comes from others.
    """
    result, accuracy, half = dict[str, str](), made.accuracy, made.other_half
    if accuracy is not None:
        low, high = accuracy.interval
        result["Accuracy"] = (
            f"{accuracy.value:.1%} of {accuracy.n:,} images (95 % interval {low:.1%} to {high:.1%})"
        )
    what = "one threshold for all" if made.guard.per_class else "a threshold"
    result[f"Seen on one half of the held-out images, at {what} from the other"] = (
        f"{half.rate:.1%} of {half.n:,} flagged" if half else "a half is too few images for a threshold"
    )
    return result


def _threshold_in_words(guard: Guard) -> str:
    common = f"{guard.threshold:.6g}"
    if not guard.per_class:
        return common
    low, high = guard.threshold_C.min(), guard.threshold_C.max()
    return f"by class, {low:.6g} to {high:.6g}; {common} where a class has too few held-out images"


def _answers(made: Guarded, seed: int) -> list[Answer]:
    """What the guard answers to some held-out images and to some of every unknown set, drawn at random."""
    guard, result = made.guard, []
    known = ImageSet(name="held out", group="id", images=made.held_out)
    for one in (known, *made.unknown):
        order = torch.randperm(len(one.images), generator=generator(seed, "answers", one.images.name))
        part = one.images.subset(order[:ANSWERS])
        is_known = one is known
        for i, prediction in enumerate(guard(part, guard.device)):
            truth = guard.names[part.labels[i]] if is_known else one.name
            result.append(
                Answer(
                    image_3HW=part.batch([i])[0],
                    truth=truth,
                    known=is_known,
                    answer=prediction.answer,
                    score=prediction.score,
                    threshold=prediction.threshold,
                )
            )
    return result
