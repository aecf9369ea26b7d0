"""What imagined outliers are worth to a network that nobody retrains: the detectors `outlier_probe` and
`energy_probe` on a run's baseline classifiers, beside the run's regularized ones and detectors without
outliers.

python experiments/probes.py RUN [--out FOLDER]

The probes learn from outliers and known images as they are, as training shows them, and with reconstructions
of known images among the known ones. Which of these, which `l2`, and which detector without outliers is best
is chosen for each classifier on classes left out: the outputs are cut to the other classes, detectors learn
from four fifths of the training images, and images of the rest, of the classes left out and of the others,
are told apart. Test images choose nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch

from oodream.core.registry import make
from oodream.core.seeding import generator
from oodream.core.tensors import load_tensors
from oodream.core.types import Detector
from oodream.data.images import Images
from oodream.detection.choose import folds_of, left_out_auroc
from oodream.detection.detectors import probes_of
from oodream.detection.fit import Lesson, training_outputs
from oodream.detection.tune import candidates
from oodream.functional.metrics import auroc, fpr95_id
from oodream.functional.uncertainty import paired
from oodream.models.inference import Extractor
from oodream.run.artifacts import Run
from oodream.run.job import Job
from oodream.run.layout import BASELINE, REGULARIZED
from oodream.run.lessons import held
from oodream.run.stages.classifiers import shown_sources
from oodream.training.batches import as_shown
from oodream.training.sources import spread

PROBES = ("outlier_probe", "energy_probe")
OTHERS = ("energy", "msp", "max_logit", "gen", "react", "vim", "knn", "fdbd", "nnguide", "mahalanobis",
          "relative_mahalanobis")  # fmt: skip
AS_THEY_ARE, SHOWN, REBUILT = "as they are", "as training shows them", "these, and reconstructions"
HELD_BACK = 0.2  # of the training images, to choose on
CHOSEN = "the best without outliers, chosen on classes left out"


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a detector does: on classes left out, and on the sets that are measured, by name; in percent."""

    chosen_on: float
    near: float
    near_accepted: float
    far_accepted: float
    control: float


class Shown:
    """What probes may learn from, by how it is shown: beside all training images, and beside some."""

    def __init__(self, job: Job) -> None:
        known, rebuilt, beside = shown_sources(job)
        size, seed = job.config.size, job.config.seed
        self.known, self.rebuilt, self.outliers = (
            held(as_shown(source, seed), size) for source in (known, rebuilt, beside)
        )
        self.rebuilt_rows = load_tensors(job.layout.reconstructed("train"))["rows"]
        self.frac, self.drawn = job.config.reconstruct.frac, beside.data

    def beside(self, some_N: torch.Tensor) -> dict[str, Images | Lesson]:
        known, rebuilt = self.known.subset(some_N), self.rebuilt.subset(some_N[self.rebuilt_rows])
        rebuilt = rebuilt.subset(spread(round(self.frac * len(known)), rebuilt))
        return {
            AS_THEY_ARE: self.drawn,
            SHOWN: Lesson(outliers=self.outliers, known=[known]),
            REBUILT: Lesson(outliers=self.outliers, known=[known, rebuilt]),
        }


def measure(job: Job, kind: str, seed: int, shown: Shown, cache: Path) -> dict[str, Score]:
    """All detectors on one classifier, by name."""
    classifier = job.run.classifier(kind, seed)
    extractor = Extractor(classifier.network, loss=classifier.loss, cache=cache)
    train = job.inputs.train
    order_N = torch.randperm(len(train), generator=generator(job.config.seed, "probes"))
    fitted_N = order_N >= round(HELD_BACK * len(train))
    fit, choose = train.subset(fitted_N), train.subset(~fitted_N)
    in_part, in_all = shown.beside(fitted_N), shown.beside(torch.ones_like(fitted_N))
    folds = folds_of(len(classifier.names))
    sets = [(one.group, one.images) for one in job.inputs.ood]
    control = job.run.reconstructed("test")
    scores = {}

    def score(name: str, how: str = "") -> Score:
        tried: dict[float, Detector] = {}
        for options in candidates(name, {}):
            try:
                values = [
                    left_out_auroc(c, name, options, extractor, fit, choose, in_part.get(how)) for c in folds
                ]
            except ValueError:
                continue  # an option that does not suit this network, as a subspace wider than its features
            tried.setdefault(fmean(values), make("detectors", name, **options))
        best = tried[max(tried)]
        training_outputs(extractor, [best], train, in_all.get(how)).fit(best)
        probes = probes_of([best])
        known_N = best.score(extractor(job.inputs.test, probes))
        unknown = [(group, best.score(extractor(images, probes))) for group, images in sets]
        near = [s for group, s in unknown if group == "near"]
        return Score(
            chosen_on=100 * max(tried),
            near=100 * fmean(auroc(known_N, s) for s in near),
            near_accepted=100 * fmean(fpr95_id(known_N, s) for s in near),
            far_accepted=100 * fmean(fpr95_id(known_N, s) for group, s in unknown if group == "far"),
            control=100 * auroc(known_N, best.score(extractor(control, probes))),
        )  # fmt: skip

    for name in OTHERS if kind == BASELINE else ("energy",):
        scores[f"`{name}`"] = score(name)
    if kind == BASELINE:
        scores[CHOSEN] = max(scores.values(), key=lambda one: one.chosen_on)
        for name in PROBES:
            scores |= {f"`{name}`, {how}": score(name, how) for how in in_all}
    return scores


def row(name: str, several: list[Score], base: list[Score]) -> str:
    """A line of the table: means and standard deviations over classifiers, and what is won in near AUROC."""

    def cell(field: str) -> str:
        values = [getattr(one, field) for one in several]
        return f"{fmean(values):.1f} ± {stdev(values) if len(values) > 1 else 0:.1f}"

    less = ""
    if len(several) > 1 and several is not base:
        p = paired([one.near for one in base], [one.near for one in several])
        less = f"{p.value:+.1f} ({p.interval[0]:+.1f} to {p.interval[1]:+.1f})"
    cells = [
        cell("chosen_on"),
        cell("near"),
        less,
        *(cell(f) for f in ("near_accepted", "far_accepted", "control")),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--out", type=Path, help="folder that keeps the networks' outputs (default: RUN/cache)"
    )
    args = parser.parse_args()
    run = Run.open(args.run)
    job = Job(run.config, args.run)
    shown = Shown(job)
    cache = args.out or job.layout.cache
    cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Score]] = {}
    for kind, seed in job.run.classifiers:
        for name, one in measure(job, kind, seed, shown, cache).items():
            found.setdefault(f"{name} on {kind}" if kind == REGULARIZED else name, []).append(one)
    base = found["`energy`"]
    heads = ("detector", "chosen on", "near: AUROC", "less energy (95 %)", "near: accepted", "far: accepted")
    print(f"| {' | '.join((*heads, 'control'))} |\n" + "|---" * 7 + "|")
    for name, several in found.items():
        print(row(name, several, base))


if __name__ == "__main__":
    main()
