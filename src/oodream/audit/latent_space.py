"""Whether the latent space can be drawn: known images' embeddings, decoded as they are, should show their
class.

Where they do not, a vector beside an embedding is not beside its class, and the distance at which outliers
are sampled means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ..core.types import Json
from ..runtime.tails import wilson
from .finding import Finding, percent

__all__ = ["DRAWABLE", "drawability"]

DRAWABLE = 0.8
"""share of embeddings that should show their class"""
CLASSES = 3
ADVICE = (
    "What is sampled around them is not around their classes. Raise align.pull, or use a decoder that "
    "knows the class words."
)


def drawability(hits_N: Tensor, y_N: Tensor, names: Sequence[str], accuracy: float) -> Iterator[Finding]:
    """Whether N decoded embeddings (bool: the baseline classifier names their class, `y_N`) show their
    classes.

    `accuracy` is that classifier's on real test images. Nothing is found of no images.
    """
    if not len(hits_N):
        return
    share = hits_N.double().mean().item()
    low, high = wilson(int(hits_N.sum()), len(hits_N))
    by_class = {y: hits_N[y_N == y].double().mean().item() for y in y_N.unique().tolist()}
    worst = [y for y in sorted(by_class, key=lambda y: by_class[y]) if by_class[y] < DRAWABLE][:CLASSES]
    examples: tuple[Json, ...] = tuple({"class": names[y], "share": round(by_class[y], 4)} for y in worst)
    advice = "" if share >= DRAWABLE else f" {ADVICE}"
    yield Finding(
        kind="latent space",
        sets=("ID/train",),
        count=len(hits_N),
        share=share,
        severity="fine" if share >= DRAWABLE else "warning",
        message=f"Of {len(hits_N)} embeddings of known images, decoded without noise, {percent(share)} "
        f"({percent(low)} to {percent(high)}) show their class to the baseline classifier, which names "
        f"{percent(accuracy)} of real test images.{advice}",
        examples=examples,
    )
