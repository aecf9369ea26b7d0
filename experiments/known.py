"""A control for OAL: varied known images in place of imagined outliers, all else equal. What is left is what imagination adds.

python experiments/known.py --run FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor

from oodream.cli.main import main
from oodream.run.pipeline import Pipeline
from oodream.training.batches import LatentBank

OPTIONS = "--preset fashion-oal --seeds 3 --train.varied 1 --train.loss energy_logistic kd --evaluate.n-corrupted 300"
imagined = Pipeline._bank


def known(self: Pipeline, kept: Tensor) -> LatentBank:
    """The bank with latents of as many known images, spread over the training set."""
    bank = imagined(self, kept)
    rows = torch.arange(len(kept)) * len(self.given.data[0]) // max(1, len(kept))
    return replace(bank, ood_MFHW=bank.known(rows) if len(kept) else bank.ood_MFHW)


if __name__ == "__main__":
    Pipeline._bank = known  # type: ignore[method-assign]
    sys.exit(main(["run", *OPTIONS.split(), *sys.argv[1:]]))
