"""Which options the demo should have, measured without a test set, one option changed at a time.

    python experiments/ablation.py runs/ablation     # about half an hour on 2 cores; the same command again resumes

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

# Ordered so that as few stages as possible are made again.
VARIANTS = {
    "preset": {},
    "outlier ratio 0.25": {"train": {"outlier_ratio": 0.25}},
    "outlier ratio 1": {"train": {"outlier_ratio": 1.0}},
    "no outlier turned grey": {"train": {"grey": 0.0}},
    "all outliers grey": {"train": {"grey": 1.0}},
    "no leak filter": {"train": {"leak_threshold": 1.0}},
    "nothing reconstructed": {"train": {"reconstructed_share": 0.0}},
    "half reconstructed": {"train": {"reconstructed_share": 0.5}},
    "cosine 0.95": {"sample": {"options": {"cosine": 0.95}}},
    "cosine 0.6": {"sample": {"options": {"cosine": 0.6}}},
    "random selection": {"sample": {"options": {"select": "random"}}},
    "temperature 0.25": {"align": {"temperature": 0.25}},
    "temperature 0.5": {"align": {"temperature": 0.5}},
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
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args()
    base = overlay(
        PRESETS["demo"].config,
        {"validate": ["dress", "sneaker"], "seeds": args.seeds, "evaluate": {"detectors": ["energy"], "resamples": 20}},
    )
    results = args.out / "ablation.json"
    table = read_json(results) if results.exists() else {}
    for name in args.only:
        config = overlay(base, VARIANTS[name])
        key = json.dumps(to_json(config), sort_keys=True)
        if name not in table or table[name]["config"] != key:
            pipeline = Pipeline(config, RunDir(args.out / "run"))
            print(name, flush=True)
            pipeline.go(lambda line: print(line, flush=True), until="scores", redo=[CHANGED])
            table[name] = {"config": key, **measured(pipeline)}
            write_json(results, table)
    columns = ["dream near", "dream far", "dream accuracy", "dream control"]
    plain = {column.removeprefix("plain "): values for column, values in table["preset"].items() if column.startswith("plain")}
    print("\n| | near | far | accuracy | control |\n|---|---|---|---|---|")
    for name, row in [("plain classifier", {f"dream {k}": v for k, v in plain.items()}), *table.items()]:
        cells = [f"{fmean(row[c]):.1f} ± {stdev(row[c]):.1f}" if len(row[c]) > 1 else f"{row[c][0]:.1f}" for c in columns]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
