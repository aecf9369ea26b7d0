"""Options of detectors chosen on three kinds of validation outliers, and what each choice is worth on the test sets.

python experiments/search.py RUN --out FOLDER [--real FOLDER] [--seeds 3] [--kinds plain dream]

RUN is a finished run on the embedded data. Its plain and regularised classifiers are measured on the embedded protocol with every
detector: by default; with options searched on the run's imagined outliers, which cost nothing real; on known images disturbed
(the protocol's own); and, with --real, on a folder of real unknown images that are in no test set. The regularised classifiers
were trained on the imagined outliers: there the search looks at what they know already.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

from oodream.benchmark import protocol as protocols
from oodream.benchmark.run import ALL, Job, measure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["plain", "dream"])
    args = parser.parse_args()
    benchmark = protocols.load("embedded")
    searches = {"default": "", "imagined": str(args.run / "images" / "imagined"), "disturbed": "val"}
    searches |= {"real": str(args.real)} if args.real else {}
    found: dict[tuple[str, str, str], list[float]] = {}
    for kind in args.kinds:
        for seed in range(args.seeds):
            for name, where in searches.items():
                out = args.out / f"{kind}-s{seed}" / name
                out.mkdir(parents=True, exist_ok=True)
                cache, shared = out / "cache", args.out / f"{kind}-s{seed}" / "cache"
                if not cache.is_symlink():
                    shared.mkdir(exist_ok=True)
                    cache.symlink_to(shared.resolve())
                job = Job(detectors=(ALL,), out=out, search=where, resamples=0)
                if not (out / "evaluation.json").exists():
                    measure(benchmark, str(args.run / "classifier" / f"{kind}-s{seed}"), None, job)
                for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines():
                    row = json.loads(line)
                    if row["group"] == "all":
                        found.setdefault((kind, row["detector"], name), []).append(100 * row["auroc"])
    for kind in args.kinds:
        print(f"\n| {kind} | {' | '.join(searches)} |\n|---|{'---|' * len(searches)}")
        names = sorted({detector for k, detector, _ in found if k == kind})
        moved = [d for d in names if any(found[kind, d, s] != found[kind, d, "default"] for s in searches)]
        for detector in moved:
            print(
                f"| `{detector}` | {' | '.join(f'{fmean(found[kind, detector, s]):.1f}' for s in searches)} |"
            )
        print(
            f"| mean of these | {' | '.join(f'{fmean(fmean(found[kind, d, s]) for d in moved):.1f}' for s in searches)} |"
        )
        print(f"| best, not searched | {max((fmean(found[kind, d, 'default']), d) for d in names)} |")


if __name__ == "__main__":
    main()
