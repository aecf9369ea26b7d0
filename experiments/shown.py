"""The look of a run's imagined outliers, as they were drawn and as training shows them.

python experiments/shown.py RUN...

How well a small classifier tells them from known training images of the same classes by their look alone (see
`audit.look`): as drawn, with the detail of known images, and with both kinds softened. 50 % is best.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from oodream.audit.look import separation
from oodream.core.seeding import generator
from oodream.data.images import Images, from_array
from oodream.run.artifacts import Run
from oodream.run.job import Job
from oodream.run.sources import lost_detail
from oodream.training.augment import soften


def shown(images: Images, pixels: Tensor) -> Images:
    return from_array(images.name, pixels, images.labels, images.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    for folder in parser.parse_args().runs:
        config = Run.open(folder).config
        job = Job(config, folder)
        g, prob = generator(config.seed, "shown"), config.train.soften
        known, drawn = job.inputs.train, job.run.images
        x, k = (images.batch(range(len(images))) for images in (drawn, known))
        detailed = lost_detail(job)(x, g)
        print(f"| {folder} | AUROC, % |\n|---|---|")
        for name, one, other in (
            ("as drawn", k, x),
            ("with detail", k, detailed),
            ("softened", soften(k, prob, g), soften(x, prob, g)),
            ("with detail, softened", soften(k, prob, g), soften(detailed, prob, g)),
        ):
            measured = separation(shown(known, one), shown(drawn, other), config.seed)
            if measured is None:
                raise SystemExit(f"{folder} holds too few images to tell their look.")
            aurocs, (low, high), _ = measured
            print(f"| {name} | {100 * aurocs['together']:.1f} ({100 * low:.1f} to {100 * high:.1f}) |")


if __name__ == "__main__":
    main()
