"""Single pictures that a person asks for: a recipe, the vector that it means, and the picture that the run's
decoder draws of it.

A recipe is all that it takes to draw the same picture again. Each picture is drawn alone (a tile of one).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ..config.types import Fraction, Seed
from ..core.errors import DataError
from ..core.options import ConfigError, Range, Section, to_json
from ..core.types import Decoder, Json
from ..core.words import Words
from ..data.images import from_array
from ..functional.knn import kth_distance
from ..functional.slerp import along, away
from ..models.classifier import Classifier
from ..synthesis.names import disjoint, hidden
from ..synthesis.samplers._classes import neighbour
from .added import add_picture
from .artifacts import Run
from .generated import image_file
from .lacking import lacks_outlier_images

__all__ = [
    "MOST_MOVES",
    "Drawing",
    "End",
    "Move",
    "Recipe",
    "add_drawing",
    "class_shown",
    "draw",
    "drawable_words",
    "opinion",
    "vector_of",
    "way",
]  # fmt: skip

MOST_MOVES = 16
Watch = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class End(Section):
    """A direction of the text's space: a class's T(y), a word's T(word), or that of a row of the run's
    vectors.
    """

    kind: Literal["class", "word", "row"]
    value: str


@dataclass(frozen=True, kw_only=True)
class Move(Section):
    """A step along the arc towards another end, by a share of the way; or, with none, in a direction that
    `seed` draws, by a share of a right angle: 0 stays, and 1 has nothing in common with where it came from.
    """

    toward: End | None = None
    seed: Seed = 0
    share: Fraction


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """A vector in the place of a class's word in its prompt, and how it is drawn.

    The vector begins at `start` and takes the `moves`, one after another. Raises ConfigError for what is out
    of range.
    """

    name: str
    """the class whose prompt is used"""
    start: End
    moves: tuple[Move, ...] = ()
    seed: Seed = 0
    """of the noise that the picture begins with"""
    steps: Annotated[int, Range(1, 200)] = 10
    guidance: Annotated[float, Range(0, 50)] = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.moves) > MOST_MOVES:
            raise ConfigError(f"moves are at most {MOST_MOVES}, not {len(self.moves)}. Begin anew.")

    @property
    def ends(self) -> list[End]:
        """All ends that the vector depends on."""
        return [self.start, *(move.toward for move in self.moves if move.toward is not None)]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture as a PNG file, with its recipe, its unit vector (D,), and what a person may ask of it."""

    recipe: Recipe
    png: bytes
    vector_D: Tensor
    facts: Json


def vector_of(recipe: Recipe, run: Run, decoder: Decoder) -> Tensor:
    """The recipe's unit vector (D,).

    Raises ValueError for a class, word or row that there is not.
    """
    _class(recipe.name, run)
    z_D = _direction(recipe.start, run, decoder)
    for move in recipe.moves:
        if move.toward is None:
            z_D = away(z_D, move.seed, [math.cos(move.share * math.pi / 2)])[0]
        else:
            end_D = _direction(move.toward, run, decoder)
            z_D = along(z_D[None], end_D[None], torch.tensor([move.share]))[0]
    return normalize(z_D, dim=0)


def draw(recipe: Recipe, run: Run, decoder: Decoder, watch: Watch | None = None) -> Drawing:
    """The recipe's picture. `watch` is told after each step how many are done, and of how many, if the
    decoder tells; what it raises ends the drawing.

    Raises what `vector_of` does; ConfigError for steps and guidance that a decoder cannot change; and what
    the decoder raises.
    """
    z_D, y = vector_of(recipe, run, decoder), _class(recipe.name, run)
    decoder = _changed(decoder, recipe, run)
    watching = getattr(decoder, "watching", None)
    with watching(watch) if watch and watching else nullcontext():
        images = decoder(z_D[None], torch.tensor([y]), torch.tensor([recipe.seed])).images_B3HW
    assert images is not None
    facts = {
        "class": recipe.name,
        "prompt": run.book.prompts[y],
        "way": way(recipe),
        "words": decoder.neighbours(z_D[None])[0],
        "cosine_to_class": round(float(cosine_similarity(z_D, run.book.tokens_CD[y], dim=0)), 6),
        "knn_distance": _distance(z_D, y, run),
        "pipeline": decoder.fingerprint,
    }
    return Drawing(recipe=recipe, png=image_file(images[0]), vector_D=z_D, facts=facts)


def opinion(png: bytes, classifier: Classifier) -> Json:
    """What a classifier of the run says of a picture: its likeliest class with the share of the softmax, the
    score (the energy, higher for OOD) and whether it is flagged.
    """
    pixels = torch.frombuffer(bytearray(Image.open(io.BytesIO(png)).tobytes()), dtype=torch.uint8)
    size = classifier.size
    images = from_array("drawn", pixels.view(1, size, size, 3).permute(0, 3, 1, 2), torch.tensor([-1]), ())
    logits_C = classifier.extractor()(images).logits_BC[0]
    score, best = -float(logits_C.logsumexp(0)), int(logits_C.argmax())
    return {
        "likeliest": classifier.names[best],
        "probability": round(float(logits_C.softmax(0)[best]), 4),
        "score": score,
        "threshold": classifier.threshold,
        "flagged": score > classifier.threshold,
    }


def add_drawing(drawing: Drawing, run: Run) -> Json:
    """Adds a drawing to the run's outliers, and returns its line (see `AddedPictures`).

    Raises ValueError, which says why, for a run that takes none, and for a word that shows a known or unknown
    class.
    """
    if lacking := lacks_outlier_images(run, imagined=True):
        raise ValueError(f"Nothing can be added: {lacking}.")
    recipe = drawing.recipe
    for word in (end.value for end in recipe.ends if end.kind == "word"):
        if shown := class_shown(word, run):
            raise ValueError(
                f"The word {word!r} shows the class {shown!r}. As an outlier it would teach the classifier "
                "to flag what it knows, or make the numbers for what it does not know too good."
            )
    line = {**drawing.facts, "vector": drawing.vector_D.tolist(), "recipe": to_json(recipe)}
    return add_picture(run.layout.added, drawing.png, line)


def drawable_words(run: Run, decoder: Decoder) -> list[str]:
    """The words that a decoder lists, without those that show a known or an unknown class.

    A decoder that lists no words has none.
    """
    list_words: Callable[[], Words] | None = getattr(decoder, "words", None)
    if list_words is None:
        return []
    names, synonyms = _classes(run)
    return disjoint(list_words().names, names, synonyms)


def class_shown(word: str, run: Run) -> str:
    """The known or unknown class that a word holds or is a part of; empty where there is none."""
    names, synonyms = _classes(run)
    if held := hidden([word], names, synonyms):
        return held[word]
    return next((name for name in names if not disjoint([word], [name], synonyms)), "")


def way(recipe: Recipe) -> str:
    """How the vector is found, in words."""
    moves = [
        f"{100 * move.share:.0f} % of the way to {_named(move.toward)}"
        if move.toward
        else f"{100 * move.share:.0f} % of a right angle off (direction {move.seed})"
        for move in recipe.moves
    ]
    return ", then ".join([f"from {_named(recipe.start)}", *moves])


def _named(end: End) -> str:
    return f"row {end.value}" if end.kind == "row" else f"the {end.kind} “{end.value}”"


def _direction(end: End, run: Run, decoder: Decoder) -> Tensor:
    """An end's unit vector (D,)."""
    if end.kind == "class":
        return normalize(run.book.tokens_CD[_class(end.value, run)], dim=0)
    if end.kind == "row":
        rows = len(run.vectors) if run.imagines and run.stamp("vectors") else 0
        if not end.value.isascii() or not end.value.isdigit() or int(end.value) >= rows:
            raise ValueError(f"There is no row {end.value!r}: the run has {rows} vectors, counted from 0.")
        return normalize(run.vectors.z_MD[int(end.value)], dim=0)
    list_words: Any = getattr(decoder, "words", None)
    if list_words is None:
        raise ValueError(f"The decoder {run.config.decode.decoder!r} lists no words.")
    z_D: Tensor = list_words([end.value]).z_VD[0]
    return z_D


def _class(name: str, run: Run) -> int:
    if name not in run.book.names:
        raise ValueError(f"There is no class {name!r}. There are: {', '.join(run.book.names)}.")
    return run.book.names.index(name)


def _changed(decoder: Decoder, recipe: Recipe, run: Run) -> Decoder:
    """The decoder with the recipe's options, drawing one picture at a time."""
    changed: Callable[..., Decoder] | None = getattr(decoder, "changed", None)
    if changed is not None:
        return changed(steps=recipe.steps, guidance=recipe.guidance, tile=1)
    c = run.config.decode
    if (recipe.steps, recipe.guidance) != (c.steps, c.guidance):
        raise ConfigError(
            f"The decoder {c.decoder!r} draws with the run's own {c.steps} steps and guidance {c.guidance:g}."
        )
    return decoder


def _distance(z_D: Tensor, y: int, run: Run) -> float | None:
    """The distance to the class's k-th nearest feature, as that of sampled vectors; None before there are
    features.
    """
    if not run.imagines or run.stamp("features") is None:
        return None
    of_class = run.features.z_ND[run.features.y_N == y]
    return round(float(kth_distance(z_D[None], of_class, neighbour(len(of_class)))), 6)


def _classes(run: Run) -> tuple[tuple[str, ...], Any]:
    """The names of known and unknown classes, and the other names that the data has for them."""
    inputs = run.inputs
    try:
        return (*run.book.names, *inputs.unknown), inputs.source.other_names()
    except (DataError, OSError):  # the images lie elsewhere, or are gone
        return (*run.book.names, *run.config.unknown, *run.config.validate), {}
