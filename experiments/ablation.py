"""Which options the demo should have, measured without a test set, one option changed at a time.

    python experiments/ablation.py runs/ablation     # about 20 minutes on 2 cores; the same command again resumes

Everything is a run of `oodream run --preset demo --validate dress sneaker`: the two classes are left out and stand for near-OOD,
known training images are held back, and disturbed ones stand for far-OOD (oodream.validation). The first line is the preset.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev

from oodream.config import overlay, to_json
from oodream.pipeline import CHANGED, Pipeline
from oodream.presets import PRESETS
from oodream.store import RunDir, read_json, write_json

COLOUR, EVERY, WARM = {"grey": 0.0}, {"ratio": 1.0}, {"temperature": 0.25}
# The README's rows, ordered so that few stages are made again.
VARIANTS = {
    "as shipped": {},
    "all outliers grey": {"train": {"grey": 1.0}},
    "no outlier grey": {"train": COLOUR},
    "no outlier grey, an outlier for every ID image": {"train": COLOUR | EVERY},
    "no outlier grey, temperature 0.25": {"train": COLOUR, "align": WARM},
    "no outlier grey, temperature 0.25, an outlier for every ID image": {"train": COLOUR | EVERY, "align": WARM},
    "no outlier grey, temperature 0.25, half reconstructed": {"train": COLOUR | {"reconstructed_share": 0.5}, "align": WARM},
    "no outlier grey, temperature 0.5, an outlier for every ID image": {"train": COLOUR | EVERY, "align": {"temperature": 0.5}},
}


def measured(pipeline: Pipeline) -> dict[str, list[float]]:
    """Per seed: both FPRs, accuracy and the control of the regularised classifier, and those of the plain one."""
    found: dict[str, list[float]] = {}
    for line in (pipeline.run / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = {"near": "near", "far": "far"}.get(row["group"]) if row["dataset"] == "mean" else None
        if name:
            found.setdefault(f"{row['classifier']} {name}", []).append(100 * row["fpr95_id"])
            if name == "near":
                found.setdefault(f"{row['classifier']} accuracy", []).append(100 * row["accuracy"])
        if row["dataset"] == "reconstructed":
            found.setdefault(f"{row['classifier']} control", []).append(100 * row["auroc"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    base = overlay(
        PRESETS["demo"].config,
        {"validate": ["dress", "sneaker"], "seeds": args.seeds, "evaluate": {"detectors": ["energy"], "resamples": 20}},
    )
    results = args.out / "ablation.json"
    table = read_json(results) if results.exists() else {}
    for name, changes in VARIANTS.items():
        config = overlay(base, changes)
        key = json.dumps(to_json(config), sort_keys=True)
        if name not in table or table[name]["config"] != key:
            pipeline = Pipeline(config, RunDir(args.out / "run"))
            print(name, flush=True)
            pipeline.go(lambda line: print(line, flush=True), until="scores", redo=[CHANGED])
            table[name] = {"config": key, **measured(pipeline)}
            write_json(results, table)
    columns = ["dream near", "dream far", "dream accuracy", "dream control"]
    plain = {column.removeprefix("plain "): values for column, values in table["as shipped"].items() if column.startswith("plain")}
    print("\n| | near | far | accuracy | control |\n|---|---|---|---|---|")
    for name, row in [("plain classifier", {f"dream {k}": v for k, v in plain.items()}), *table.items()]:
        cells = [f"{fmean(row[c]):.1f} ± {stdev(row[c]):.1f}" if len(row[c]) > 1 else f"{row[c][0]:.1f}" for c in columns]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
