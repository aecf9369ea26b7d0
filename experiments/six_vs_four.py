"""The 6v4 splits of CIFAR-10, each with a decoder that has seen none of its unknown classes.

For each split, in OUT/SPLIT: `world`, the other things beside 2,000 training images of each known class;
`decoder`, fitted to it from a decoder that has seen no class of CIFAR-10; and `compare`, the comparison. The
same call again goes on. OTHERS is a captioned folder without CIFAR-10's classes, whose captions of another
look than CIFAR-10's are prompts of their own, "a snapshot of a {bear}"; BASE is a decoder that was fitted to
it (docs/photographs.md), and REAL a folder of real other things, as CIFAR-10 looks, for the oracle.

    python experiments/six_vs_four.py cifar others base-decoder real out
    python experiments/six_vs_four.py cifar others base-decoder real out --splits 1 2 --only decoder
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from oodream.comparisons import COMPARISONS
from oodream.config import Config
from oodream.data.inputs import DataInputs
from oodream.presets import PRESETS

PER_CLASS = 2000
"""pictures of each known class that a decoder sees"""
ARMS = (
    "imagined", "imagined, as drawn", "with names", "real things", "known, varied", "vos", "npos",
    "known, attributed", "known, mixed",
)  # fmt: skip
FIT = "--batch 1024 --unet-lr 7e-4 --ema 0.999 --unet-steps 200000 --save-every 2000".split()
COMPARE = (
    "--max-per-class 1000 --shift.n-corrupted 0 --evaluate.n-far 500 --evaluate.detectors energy "
    "--report.strips 1 --report.features 12"
).split()


def write_world(folder: Path, others: Path, root: Path, unknown: tuple[str, ...]) -> None:
    """The others' pictures, linked, and the known classes' beside them, in one captioned folder."""
    images = DataInputs(
        Config(data="cifar10", root=str(root), unknown=unknown, max_per_class=PER_CLASS)
    ).train
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in (others / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        if not (link := folder / line["file_name"]).exists():
            link.hardlink_to(others / line["file_name"])
    for i, label in enumerate(images.labels.tolist()):
        name = f"images/known-{i:05}.png"
        Image.fromarray(images.batch([i])[0].permute(1, 2, 0).numpy()).save(folder / name)
        lines.append({"file_name": name, "text": images.classes[label]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("root", "others", "base", "real", "out"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--splits", nargs="*", default=["1", "2", "3", "4", "5"], help="cifar10-6v4-N")
    parser.add_argument("--seconds", type=float, default=200, help="of fitting each decoder")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--arms", nargs="*", default=ARMS, help="of the comparison `study`")
    parser.add_argument("--only", choices=("decoder", "compare"))
    args, more = parser.parse_known_args()
    arms = {name: COMPARISONS["study"].arms[name] for name in args.arms}
    if "real things" in arms:
        arms["real things"]["regularize"]["real"] = str(args.real)
    for split in args.splits:
        preset, out = f"cifar10-6v4-{split}", args.out / split
        world, decoder = out / "world", out / "decoder"
        if args.only != "compare" and not decoder.exists():
            if not (world / "metadata.jsonl").exists():
                write_world(world, args.others, args.root, PRESETS[preset].config.unknown)
            begun = ["--start", str(args.base), "--unet-seconds", str(args.seconds)]
            oodream("fit-decoder", str(world), "--out", str(decoder), *begun, *FIT)
        if args.only != "decoder":
            (out / "arms.json").write_text(json.dumps(arms))
            options = ["--preset", preset, "--arms", str(out / "arms.json"), "--run", str(out / "compare")]
            places = ["--root", str(args.root), "--decode.source", str(decoder)]
            oodream("compare", *options, *places, "--seeds", args.seeds, *COMPARE, *more)


def oodream(*words: str) -> None:
    """One of the project's commands."""
    subprocess.run([sys.executable, "-m", "oodream", *words], check=True)


main()
