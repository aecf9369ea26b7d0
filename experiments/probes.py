"""What imagined outliers are worth to a network that nobody retrains: the detectors `outlier_probe` and
`energy_probe` on a run's baseline classifiers, beside the run's regularized ones and detectors without
outliers.

python experiments/probes.py RUN [--out FOLDER] [--seeds 3]

The probes learn from outliers and known images as they are, as training shows them, and with reconstructions
of known images among the known ones. Options, and which detector without outliers is best, are chosen on the
first classifier and on classes left out: its outputs are cut to the other classes, detectors learn from four
fifths of the training images, and images of the rest, of the classes left out and of the others, are told
apart. Test images choose nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from oodream.core.options import Option
from oodream.core.registry import make
from oodream.core.seeding import generator
from oodream.core.tensors import load_tensors
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
from oodream.run.sources import shown_sources
from oodream.training.batches import as_shown
from oodream.training.sources import spread

PROBES = ("outlier_probe", "energy_probe")
OTHERS = ("energy", "msp", "max_logit", "gen", "react", "vim", "knn", "fdbd", "nnguide", "mahalanobis",
          "relative_mahalanobis")  # fmt: skip
AS_THEY_ARE, SHOWN, REBUILT = "as they are", "as training shows them", "these, and reconstructions"
HELD_BACK = 0.2  # of the training images, to choose on


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a detector does on the sets that are measured, in percent."""

    near: float
    near_accepted: float
    far_accepted: float
    control: float


class Shown:
    """What probes may learn from, by how it is shown: beside all training images, and beside some."""

    ways = (AS_THEY_ARE, SHOWN, REBUILT)

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


class Bench:
    """One classifier, and all that is measured on it."""

    def __init__(self, job: Job, kind: str, seed: int, shown: Shown, cache: Path) -> None:
        self.job, self.classifier = job, job.run.classifier(kind, seed)
        self.extractor = Extractor(self.classifier.network, loss=self.classifier.loss, cache=cache)
        self.train, self.control = job.inputs.train, job.run.reconstructed("test")
        self.teach = shown.beside(torch.ones(len(self.train), dtype=torch.bool))
        order_N = torch.randperm(len(self.train), generator=generator(job.config.seed, "probes"))
        fitted_N = order_N >= round(HELD_BACK * len(self.train))
        self.part, self.rest = self.train.subset(fitted_N), self.train.subset(~fitted_N)
        self.teach_part = shown.beside(fitted_N)

    def choose(self, name: str, how: str) -> tuple[float, dict[str, Option]]:
        """The options that are best on classes left out, and their AUROC."""
        aurocs: list[tuple[float, dict[str, Option]]] = []
        for options in candidates(name, {}):
            args = name, options, self.extractor, self.part, self.rest, self.teach_part.get(how)
            try:
                aurocs.append(
                    (fmean(left_out_auroc(c, *args) for c in folds_of(len(self.train.classes))), options)
                )
            except ValueError:
                continue  # an option that does not suit this network, as a subspace wider than its features
        return max(aurocs, key=lambda one: one[0])

    def measure(self, name: str, how: str, options: dict[str, Option]) -> Score:
        detector = make("detectors", name, **options)
        training_outputs(self.extractor, [detector], self.train, self.teach.get(how)).fit(detector)

        def scores(images: Images) -> Tensor:
            return detector.score(self.extractor(images, probes_of([detector])))

        known_N, control_M = scores(self.job.inputs.test), scores(self.control)
        sets = [(one.group, scores(one.images)) for one in self.job.inputs.ood]
        near = [scores_M for group, scores_M in sets if group == "near"]
        far = [scores_M for group, scores_M in sets if group == "far"]
        return Score(
            near=100 * fmean(auroc(known_N, scores_M) for scores_M in near),
            near_accepted=100 * fmean(fpr95_id(known_N, scores_M) for scores_M in near),
            far_accepted=100 * fmean(fpr95_id(known_N, scores_M) for scores_M in far),
            control=100 * auroc(known_N, control_M),
        )


def row(name: str, several: list[Score], base: list[Score]) -> str:
    """A line of the table: means and standard deviations over classifiers, and what is won in near AUROC."""

    def cell(field: str) -> str:
        values = [getattr(one, field) for one in several]
        return f"{fmean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"

    less = ""
    if len(several) > 1 and several is not base:
        p = paired([one.near for one in base], [one.near for one in several])
        less = f"{p.value:+.1f} ({p.interval[0]:+.1f} to {p.interval[1]:+.1f})"
    rest = map(cell, ("near_accepted", "far_accepted", "control"))
    return f"| {name} | {' | '.join((cell('near'), less, *rest))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--out", type=Path, help="folder that keeps the networks' outputs (default: RUN/cache)"
    )
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    run = Run.open(args.run)
    job, cache = Job(run.config, args.run), args.out or run.layout.cache
    cache.mkdir(parents=True, exist_ok=True)
    shown = Shown(job)
    seeds = range(min(args.seeds, run.config.seeds))
    benches = [Bench(job, BASELINE, seed, shown, cache) for seed in seeds]
    arms = [(name, "") for name in OTHERS] + [(name, how) for name in PROBES for how in shown.ways]
    chosen = {arm: benches[0].choose(*arm) for arm in arms}
    for (name, how), (value, options) in chosen.items():
        print(
            f"`{name}` {how}: {100 * value:.1f} on classes left out, {options or 'default options'}",
            flush=True,
        )
    base = [bench.measure("energy", "", {}) for bench in benches]
    print("\n| detector | near: AUROC | less energy (95 %) | near: accepted | far: accepted | control |")
    print("|---" * 6 + "|")
    best = max(((value, name) for (name, how), (value, _) in chosen.items() if not how))[1]
    for name, how in arms:
        several = [bench.measure(name, how, chosen[name, how][1]) for bench in benches]
        mark = f"**`{name}`**" if name == best else f"`{name}`" + (f", {how}" if how else "")
        print(row(mark, base if name == "energy" else several, base), flush=True)
    again = [Bench(job, REGULARIZED, seed, shown, cache).measure("energy", "", {}) for seed in seeds]
    print(row("retrained with the outliers, `energy`", again, base))


if __name__ == "__main__":
    main()
