"""Whether the latent space can be drawn: which share of known images' embeddings show their class, decoded as
they are, in the papers' space (pull 0) and in ours.

python experiments/latent_space.py OUT [--preset demo doodles] [--root FOLDER] [--source DECODER]

For every preset: embeddings of training images, neighbours of theirs (a cosine of 0.97) and DREAM-ID's
inliers are drawn and judged by a classifier of the real images, which is judged on real test images, too. A
class is drawn with one noise, so that pictures differ by their vectors alone: how often is a neighbour's
picture nearer, by its pixels, than that of another image of the class? Writes OUT/latent-space.md, and for
every preset a sheet of known images, their embeddings, outliers and inliers.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from oodream.config import Config, SampleConfig
from oodream.core.seeding import generator
from oodream.core.types import ClassBook, Features, SampledVectors
from oodream.data.inputs import DataInputs
from oodream.functional.slerp import away
from oodream.models.inference import Extractor
from oodream.presets import PRESETS
from oodream.runtime.tails import wilson
from oodream.synthesis.align import align, embed
from oodream.synthesis.decode import make_decoder
from oodream.synthesis.sample import sample
from oodream.training.sources import Source
from oodream.training.train import make_loss, train

CPU = torch.device("cpu")
N, SHOWN, NEIGHBOUR = 126, 12, 0.97
PULLS = (0.0, Config().align.pull)
HEAD = (
    "data", "align.pull", "cosine to T(y)", "test images right, by their embeddings", "embeddings drawn",
    "neighbours drawn", "neighbour's picture nearer than another's", "inliers drawn",
    "real test images", 
)  # fmt: skip


def balanced(labels: Tensor, n: int, seed: int) -> Tensor:
    """n rows, as many of every class."""
    g, classes = generator(seed, "latent-space"), labels.unique().tolist()
    of_class = [(labels == y).nonzero()[:, 0] for y in classes]
    each = -(-n // len(classes))
    rows = torch.stack([rows[torch.randint(len(rows), (each,), generator=g)] for rows in of_class], 1)
    return rows.flatten()[:n]


def percent(hits_N: Tensor) -> str:
    low, high = wilson(int(hits_N.sum()), len(hits_N))
    return f"{100 * hits_N.double().mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def smoothness(pictures: Tensor, neighbours: Tensor, y_N: Tensor) -> Tensor:
    """Whether each picture is nearer, by its pixels, to its neighbour's than to the next one of its class."""
    a, b = (x.float().flatten(1) for x in (pictures, neighbours))
    next_N = torch.empty_like(y_N)
    for y in y_N.unique():
        rows = (y_N == y).nonzero()[:, 0]
        next_N[rows] = rows.roll(-1)
    return (a - b).norm(dim=1) < (a - a[next_N]).norm(dim=1)


def measured(name: str, config: Config, out: Path) -> list[tuple[str, ...]]:
    inputs, seed = DataInputs(config), config.seed
    known, test = inputs.train, inputs.test
    names = known.classes
    decoder = make_decoder(
        config.decode, names, inputs.prompts(names), config.size, CPU, inputs.prompt_spans(names)
    )
    state = out / f"{name}.state"
    cross_entropy = make_loss(("cross_entropy",))
    judge = train(
        [Source(role="known", data=known)], config.train, seed, CPU, state, "judge", loss=cross_entropy
    )
    state.unlink()
    real = Extractor(judge.network)(test).logits_BC.argmax(1) == test.labels
    rows, lines = balanced(known.labels, N, seed), []
    y = known.labels[rows]

    def shows(images: Tensor, y_N: Tensor) -> Tensor:
        with torch.no_grad():
            return judge.network.eval()(images).logits_BC.argmax(1) == y_N

    for pull in PULLS:
        encoder, _ = align(known, decoder.book, replace(config.align, pull=pull), seed, CPU, state)
        state.unlink()
        features = embed(encoder, known, CPU)
        right = Extractor(encoder)(test).logits_BC.argmax(1) == test.labels
        cosine = torch.cosine_similarity(features.z_ND, decoder.book.tokens_CD[features.y_N], dim=1).mean()
        z = features.z_ND[rows]
        beside = torch.stack([away(z[i], i, (NEIGHBOUR,))[0] for i in range(N)])
        drawn, near = (decoder(v, y, y).images_B3HW for v in (z, beside))
        likely, unlikely = (vectors(features, config, decoder.book, kind) for kind in ("inlier", "outlier"))
        inliers, outliers = (decoder(v.z_MD, v.y_M, v.seed_M).images_B3HW for v in (likely, unlikely))
        shares = (right, shows(drawn, y), shows(near, y), smoothness(drawn, near, y))
        shares += (shows(inliers, likely.y_M), real)
        lines.append((name, f"{pull:g}", f"{cosine:.2f}", *map(percent, shares)))
        print(" | ".join(lines[-1]), flush=True)
        sheet = torch.stack([known.batch(rows[:SHOWN]), drawn[:SHOWN], outliers[:SHOWN], inliers[:SHOWN]])
        pixels = sheet.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
        picture = Image.fromarray(pixels)
        picture.resize((3 * picture.width, 3 * picture.height), 0).save(out / f"{name}-pull-{pull:g}.png")
    return lines


def vectors(features: Features, config: Config, book: ClassBook, kind: str) -> SampledVectors:
    """As many vectors for every class as make N."""
    inlier = {"kind": kind, "boundary": 1.0, "cosine": 0.96, "kept": 1}
    options = inlier if kind == "inlier" else config.sample.options
    per_class = -(-N // len(book.names))
    return sample(features, book, SampleConfig(options=options, per_class=per_class), config.seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", nargs="+", default=["demo", "doodles"])
    parser.add_argument("--root", default="")
    parser.add_argument("--source", default="embedded")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in args.preset:
        config = PRESETS[name].config
        config = replace(config, root=args.root, decode=replace(config.decode, source=args.source))
        lines += measured(name, config, args.out)
    rows = [HEAD, ["---"] * len(HEAD), *lines]
    (args.out / "latent-space.md").write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


if __name__ == "__main__":
    main()
