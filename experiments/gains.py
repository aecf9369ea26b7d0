"""What imagined outliers win near the known classes, over all else: the figure in the results.

The numbers are those of docs/results.md and its parts, as they stand there; a difference that is not there
any more is an error.

python experiments/gains.py --out docs/gains.png
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PAGES = sorted((Path(__file__).resolve().parent.parent / "docs").glob("results*.md"))
RESULTS = " ".join(" ".join(page.read_text() for page in PAGES).split())
# By world: over what, and the difference in near AUROC with its 95 % interval.
GAINS = {
    "Garments\nsix trainings": {
        "known garments, varied": "+2.2 points (95 % interval +0.7 to +3.7",
        "Mahalanobis distance": "+4.6 (+3.2 to +6.1)",
        "the same, standardised features": "higher by 0.7, -0.9 to +2.3",
    },
    "Photographs\nsix choices of four unknown classes": {
        "no outliers": "+2.5 (+1.0 to +4.0)",
        "NPOS": "+2.4 (+1.0 to +3.8)",
        "VOS": "+2.7 (+1.3 to +4.1)",
        "perturbed (ASCOOD)": "+3.9 (+1.8 to +6.1)",
        "known photographs, varied": "+6.1 (-0.0 to +12.2)",
        "known photographs, mixed": "+8.1 (+4.8 to +11.5)",
        "real other photographs": "-4.7 (-6.6 to -2.8)",
    },
    "Drawings, relatives unknown\nsix trainings, plain features": {
        "no outliers": "-0.4 (-1.2 to +0.4)",
        "NPOS": "-0.1 (-0.6 to +0.4)",
        "VOS": "-0.3 (-0.8 to +0.2)",
        "perturbed (ASCOOD)": "-0.6 (-1.2 to +0.0)",
        "known drawings, varied": "+2.7 (+1.8 to +3.5)",
        "known drawings, mixed": "+2.1 (+1.1 to +3.1)",
        "real other drawings": "-2.1 (-2.7 to -1.6)",
    },
    "Drawings, relatives unknown\nsix trainings, standardised features": {
        "no outliers": "near nothing that shows (-0.1, -0.6 to +0.3)",
        "NPOS": "+0.2 (-0.1 to +0.4)",
        "VOS": "+0.2 (-0.1 to +0.5)",
        "known drawings, edited (SONA)": "+0.5 (+0.4 to +0.6)",
        "known drawings, varied": "+1.1 (+0.9 to +1.3)",
        "known drawings, mixed with fractals": "+1.5 (+0.9 to +2.1)",
        "known drawings, mixed": "+1.6 (+1.0 to +2.1)",
        "real other drawings": "-1.2 (-1.6 to -0.8)",
    },
    "Drawings, classes left out\nfour groups, standardised features": {
        "no outliers, first": "+1.9 (+1.5 to +2.4)",
        "no outliers, second": "+1.8 (+1.1 to +2.4)",
        "no outliers, third": "+1.7 (-0.3 to +3.6)",
        "no outliers, fourth": "+3.1 (+1.9 to +4.3)",
        "known drawings, varied, first": "3.0 points (+0.5 to +5.5)",
        "known drawings, varied, second": "2.7 (+0.4 to +5.1)",
        "known drawings, varied, third": "2.1 (+0.9 to +3.3)",
        "known drawings, varied, fourth": "4.7 (+2.0 to +7.3)",
    },
}


def numbers(text: str) -> tuple[float, float, float]:
    """The difference and the ends of its interval; ValueError where the results say otherwise."""
    if text not in RESULTS:
        raise ValueError(f"The results have no {text!r}.")
    value, low, high = map(float, re.findall(r"[-+]?\d+\.\d+", text))
    return value, low, high


def figure() -> plt.Figure:
    """A panel for each world; a line right of zero is won."""
    heights = [len(rows) for rows in GAINS.values()]
    fig, panels = plt.subplots(
        len(GAINS),
        sharex=True,
        figsize=(7.5, 0.27 * sum(heights) + 2.6),
        height_ratios=heights,
        layout="constrained",
    )
    for panel, (world, rows) in zip(panels, GAINS.items(), strict=True):
        for y, text in enumerate(rows.values()):
            value, low, high = numbers(text)
            colour = "#1a7f4b" if low > 0 else "#b3261e" if high < 0 else "#6b6b6b"
            panel.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            panel.plot(value, y, "o", color=colour, markersize=5)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(rows)), list(rows), fontsize=8)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_title(world.replace("\n", ": "), fontsize=9, loc="left", fontweight="bold")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False, labelsize=8)
        panel.grid(axis="x", color="#e4e4e4")
        panel.set_axisbelow(True)
    panels[-1].set_xlabel(
        "near AUROC of imagined outliers less that of …, points (95 % interval)", fontsize=8
    )
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    figure().savefig(parser.parse_args().out, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
