"""The verb `align`: an image encoder whose embedding lives in the text's token space (DREAM-OOD, section
3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import AlignConfig, Optimisation
from ..core.seeding import generator, seeded
from ..core.threads import MAKING
from ..core.types import ClassBook, Features, Loss, Output, Step, Terms
from ..data.images import Images
from ..models.factory import SCRATCH, backbone, load_weights
from ..models.inference import Extractor
from ..training.augment import augment
from ..training.loop import fit
from ..training.losses.cross_entropy import cross_entropy
from ..training.sources import Source

__all__ = ["AlignedEncoder", "Pulled", "align", "augmented_views", "embed", "untrained_encoder"]


class AlignedEncoder(nn.Module):
    """h(x) in the text's token space (DREAM-OOD, equation 2).

    Logits are cos(h(x), T(y)) / temperature, and z is h(x) / ||h(x)||. The temperature is that of the
    softmax: a lower one lets an image count as learnt while its angle to its class vector is still larger.
    """

    tokens_CD: Tensor

    def __init__(self, name: str, book: ClassBook, temperature: float, pretrained: bool = False) -> None:
        super().__init__()
        self.network = backbone(name, book.tokens_CD.shape[1], pretrained)
        self.temperature = temperature
        self.register_buffer("tokens_CD", F.normalize(book.tokens_CD, dim=1))

    def forward(self, images_B3HW: Tensor) -> Output:
        z = F.normalize(self.network(images_B3HW).logits_BC, dim=1)
        return Output(logits_BC=z @ self.tokens_CD.T / self.temperature, z_BF=z)


class Pulled(Loss):
    """Cross-entropy of cosine logits, plus `pull` times the mean of 1 - cosine to the own class vector.

    Cross-entropy alone (DREAM-OOD, equation 2; pull 0) keeps only what tells the classes apart. What their
    vectors share costs it nothing to lose, and it pushes embeddings away from it: such an embedding is
    nearest to its own class vector, and yet the decoder, which reads the shared part too, draws other things.
    The pull keeps that part.
    """

    def __init__(self, pull: float, temperature: float) -> None:
        super().__init__()
        self.pull, self.temperature = pull, temperature

    def forward(self, step: Step) -> Terms:
        logits_BC = step.id.logits_BC
        cosine_B = self.temperature * logits_BC.gather(1, step.y_B[:, None])[:, 0]
        parts = {"cross_entropy": cross_entropy(logits_BC, step), "pull": self.pull * (1 - cosine_B).mean()}
        return Terms(total=parts["cross_entropy"] + parts["pull"], parts=parts)


def untrained_encoder(
    book: ClassBook, config: AlignConfig, seed: int, pretrained: bool = False
) -> AlignedEncoder:
    """The encoder before training.

    Its weights depend on the seed and, if `pretrained`, on the published weights of the backbone's name.
    """
    with MAKING, seeded(seed, "align"):
        return AlignedEncoder(config.backbone, book, config.temperature, pretrained)


def align(
    images: Images, book: ClassBook, config: AlignConfig, seed: int, device: torch.device, state: Path
) -> tuple[AlignedEncoder, list[dict[str, float]]]:
    """Trains h so that cos(h(x), T(y)) / temperature classifies the images, and is large for its own class;
    returns h and its log.

    `state` is the file from which a second call with the same arguments goes on. Raises ValueError when the
    weights `config.init` cannot be read or do not fit.
    """
    model = untrained_encoder(book, config, seed, pretrained=not config.init)
    if config.init and config.init != SCRATCH:
        load_weights(model.network, Path(config.init), new_head=True)
    log = fit(
        model,
        Pulled(config.pull, config.temperature),
        [Source(role="known", data=images)],
        config.optimisation,
        seed,
        device,
        state,
        "align",
    )
    return model, log


def embed(model: AlignedEncoder, images: Images, device: torch.device) -> Features:
    """Unit-norm embeddings (N, D) of all images, as they are, with their labels and rows."""
    extractor = Extractor(model, device=device)
    rows_N = torch.arange(len(images))
    return Features(
        z_ND=extractor(images).z_BF, y_N=images.labels, index_N=rows_N, encoder=extractor.weights_hash
    )


def augmented_views(images: Images, optimisation: Optimisation, seed: int) -> Images:
    """The same images, each in one random augmentation of training, which depends on the seed and its row."""

    def read(index: Sequence[int]) -> Tensor:
        return augment(images.batch(index), optimisation, generator(seed, "view", *index[:1]))

    return replace(images, read=read)
