"""Vectors of words that no class has: other things, by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.options import Range, Section
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Features, SampledVectors
from ...core.words import Lookup, Words
from ._classes import Classes

__all__ = ["WordVectors"]


@register("samplers", "words")
@dataclass(frozen=True, kw_only=True)
class WordVectors(Section):
    """The vectors T(word) of words that no known or unknown class has in its name, with noise: other things
    by name (`words=star,moon`), with nothing sampled around a class.

    `words` are names with commas between them: "star,hot dog" are two, "star moon" is one thing of this name.
    "world" stands for the things in the data set's own world, and "" for all that the decoder lists as
    learnt, or else the things that its vocabulary names, in both cases without the classes. Each
    class has all words in an order of its own, again and again. `cosine` is the mean cosine of a vector to
    its word; 1 is the word itself. What unknown images show that have no class names is not known here, and
    is not left out.

    A vector's class only says which prompt its word stands in; its anchor is the feature of that class that
    is nearest.

    Raises ConfigError, with the option's name, for an option out of its range.
    """

    words: str = ""
    cosine: Annotated[float, Range(0, 1, "low")] = 0.95
    kind: str = field(default="outlier", init=False)
    chosen: Words | None = field(default=None, init=False, repr=False, compare=False)

    def with_words(self, lookup: Lookup) -> WordVectors:
        """The sampler with its words.

        Raises ValueError where there is none, and where `lookup` does.
        """
        chosen = lookup([name for part in self.words.split(",") if (name := part.strip())])
        if not chosen.names:
            raise ValueError("The decoder lists no word that no class has. Name some: words=moon,river.")
        sampler = copy.copy(self)
        object.__setattr__(sampler, "chosen", chosen)
        return sampler

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Any labels will do."""

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` unit vectors for every label in `features`, classes interleaved: row m is of class m
        mod C.

        Raises ValueError for words of another width than the features, and if it was not given words.
        """
        if self.chosen is None:
            raise ValueError(
                "The sampler 'words' has no words yet: give it some by with_words(decoder.words)."
            )
        word_VD, width = self.chosen.z_VD, features.z_ND.shape[1]
        if word_VD.shape[1] != width:
            raise ValueError(
                f"The words have width {word_VD.shape[1]} and the features {width}: they are not of one "
                f"space."
            )
        classes = Classes.of(features)
        sigma = math.sqrt((1 / self.cosine**2 - 1) / width)

        names = list[Tensor]()

        def draw(i: int) -> tuple[Tensor, Tensor]:
            g = generator(seed, "words", classes.labels[i])
            row_M = torch.randperm(len(word_VD), generator=g).repeat(-(-per_class // len(word_VD)))[
                :per_class
            ]
            names.append(row_M)
            noise_MD = torch.randn(per_class, width, generator=g)
            v_MD = normalize(word_VD[row_M] + sigma * noise_MD, dim=1)
            return v_MD, (v_MD @ classes.z[i].T).argmax(1)

        vectors = classes.sample(draw, self.kind, seed, space)
        return replace(vectors, name_M=torch.stack(names, dim=1).flatten())
