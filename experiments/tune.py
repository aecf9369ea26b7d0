"""Options of detectors chosen on three kinds of validation outliers, and what each choice is worth on the
test sets.

RUN is a finished run on the embedded data. Its baseline and regularized classifiers are measured on the
embedded protocol with every detector: with default options; with options chosen on the run's imagined
outliers, which need nothing real; on pseudo-OOD images, which are known images made unrecognizable (the
protocol's validation sets); and, with --real, on a folder of real unknown images that are in no test set. The
regularized classifiers were trained on the imagined outliers, so there the choice is made on images that they
know.

python experiments/tune.py RUN --out FOLDER [--real FOLDER] [--seeds 3] [--kinds baseline regularized]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from oodream.benchmark.locate import Rooted
from oodream.benchmark.protocol import load_protocol
from oodream.benchmark.run import ALL, Job, run_benchmark
from oodream.core.results import Row, row_from_json
from oodream.run.layout import KINDS, Layout

Measured = dict[
    tuple[str, str, str], list[float]
]  # (kind, detector, choice) -> AUROC of all sets in %, by seed


def rows_by_choice(classifier: Path, choices: dict[str, str], out: Path) -> dict[str, list[Row]]:
    """The rows of one classifier by choice; what was measured before is read. All choices share one cache."""
    rows = {}
    (out / "cache").mkdir(parents=True, exist_ok=True)
    for name, tune in choices.items():
        folder = out / name
        if not (folder / "evaluation.json").exists():
            folder.mkdir(exist_ok=True)
            if not (folder / "cache").is_symlink():
                (folder / "cache").symlink_to((out / "cache").resolve())
            job = Job(detectors=(ALL,), out=folder, tune=tune, resamples=0)
            run_benchmark(Rooted(protocol=load_protocol("embedded")), str(classifier), None, job)
        lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
        rows[name] = [row_from_json(line) for line in lines]
    return rows


def print_table(kind: str, choices: dict[str, str], measured: Measured) -> None:
    """The detectors whose options moved, with the mean AUROC over all sets and seeds for each choice.

    A detector that could not be used for some choice is left out.
    """
    print(f"\n| {kind} | {' | '.join(choices)} |\n|---|{'---|' * len(choices)}")
    means = {
        name: [fmean(measured[kind, name, choice]) for choice in choices]
        for name in sorted({detector for k, detector, _ in measured if k == kind})
        if all((kind, name, choice) in measured for choice in choices)
    }
    moved = {name: values for name, values in means.items() if len({*values}) > 1}
    for name, values in moved.items():
        print(f"| `{name}` | {' | '.join(f'{value:.1f}' for value in values)} |")
    if moved:
        columns = zip(*moved.values(), strict=True)
        print(f"| mean of these | {' | '.join(f'{fmean(column):.1f}' for column in columns)} |")
    best = max(means, key=lambda name: means[name][0])
    print(f"| best by default: `{best}` | {means[best][0]:.1f} |{' |' * (len(choices) - 1)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    run = Layout(args.run)
    choices = {"default": "", "imagined": str(run.imagined("images")), "pseudo-OOD": "val"}
    choices |= {"real": str(args.real)} if args.real else {}
    measured: Measured = {}
    for kind in args.kinds:
        for seed in range(args.seeds):
            rows = rows_by_choice(run.classifier(kind, seed), choices, args.out / f"{kind}-s{seed}")
            for choice, part in rows.items():
                for row in part:
                    if row.group == "all":
                        measured.setdefault((kind, row.detector, choice), []).append(100 * row.auroc)
        print_table(kind, choices, measured)


if __name__ == "__main__":
    main()
