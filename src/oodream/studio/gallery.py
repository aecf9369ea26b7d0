"""What the gallery shows of a run's imagined rows: a table of all of them, one row's provenance, pictures,
scores, and what people have decided. No HTTP here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from ..core.device import device_of
from ..core.errors import DataError, StoreError, shown
from ..core.types import Json
from ..report.template import EXACT
from ..run.curation import Curation, decide, read_decisions, undo
from ..run.folder import inputs_hash
from ..run.lacking import imagines_nothing
from ..run.layout import KINDS, REGULARIZED, classifier_stage, imagined_stage
from .studio import Studio
from .tasks import Task

__all__ = ["Action", "Gallery", "encoded"]

SCORED_AT_ONCE = 128
MAX_PIXELS = 50_000_000  # of a picture in a run's folder
QUALITY = 90

Action = Literal["keep", "reject"]


class Gallery:
    """The imagined rows of one run of a studio, as they are now.

    Raises StoreError for a run that has none, and says why.
    """

    def __init__(self, studio: Studio, name: str) -> None:
        self.studio, self.name, self.run = studio, name, studio.run(name)
        if lacking := imagines_nothing(self.run):
            raise StoreError(f"{name} imagines nothing: {lacking}.")
        stamp = self.run.stamp(imagined_stage(self.run.config.decode.output))
        if stamp is None:
            raise StoreError(f"{name} has not imagined its {self.run.kind}s yet: its run must go on first.")
        self.of = inputs_hash(stamp["inputs"])

    def __len__(self) -> int:
        return len(self.run.vectors)

    def check(self, rows: Sequence[int]) -> None:
        """Raises ValueError for a row that there is not."""
        if beyond := [m for m in rows if not 0 <= m < len(self)]:
            raise ValueError(f"There is no row {beyond[0]}: {self.name} has rows 0 to {len(self) - 1}.")

    # What there is

    @property
    def filter_reasons(self) -> list[str]:
        """Why a filter dropped each row; empty for those that all keep, and before there was a filter."""
        filtered = self.run.has_latents or self.run.stamp("filter") is not None
        return self.run.selection.filter_reasons if filtered else [""] * len(self)

    def table(self) -> Json:
        """All rows, column by column: a row's class, nearest word and filter's reason are places in lists of
        these.
        """
        return self.studio.cached(self.name, ("table", self.of), self._table)

    def _table(self) -> Json:
        reasons = self.filter_reasons
        lines = [
            (line["words"][:1], round(line["knn_distance"], 4), round(line["cosine_to_class"], 4))
            for line in self.run.provenance
        ]
        words = sorted({word for nearest, _, _ in lines for word in nearest})
        place = {word: i for i, word in enumerate(words)}
        kinds = list(dict.fromkeys(filter(None, reasons)))
        return {
            "of": self.of,
            "count": len(self),
            "kind": self.run.kind,
            "pictures": not self.run.has_latents,
            "size": self.run.config.size,
            "classes": list(self.run.book.names),
            "words": words,
            "reasons": kinds,
            "class": self.run.vectors.y_M.tolist(),
            "word": [place[nearest[0]] if nearest else -1 for nearest, _, _ in lines],
            "reason": [kinds.index(reason) if reason else -1 for reason in reasons],
            "distance": [distance for _, distance, _ in lines],
            "cosine": [cosine for _, _, cosine in lines],
            "command": self.run.command,
        }

    def details(self, m: int) -> Json:
        """What row m was made from, in words for people."""
        self.check([m])
        line = self.run.provenance[m]
        keys = ("row", "class", "prompt", "knn_distance", "cosine_to_class", "words", "pipeline")
        # JavaScript's numbers are too short for a seed.
        texts = {"seed": str(line["seed"]), "anchor": shown(line["anchor"])}
        return {key: line[key] for key in keys} | texts

    # Pictures

    def picture(self, m: int) -> tuple[bytes, str]:
        """The picture of row m, and its media type."""
        self.check([m])
        if self.run.has_latents:
            raise DataError(f"{self.name} keeps latents, of which there are no pictures.")
        return encoded(_opened(self.studio.inside(self.name, self.run.files.path(m))))

    def anchor(self, m: int) -> tuple[bytes, str]:
        """The known image that row m was sampled around, as training sees it, and its media type.

        Raises DataError or StoreError where the run's data is no longer where it was.
        """
        self.check([m])
        train = self.studio.sets.read(self.run, "train")
        pixels = train.batch([self.run.provenance[m]["anchor_index"]])[0]
        return encoded(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))

    # Scores

    def scores(self) -> Json | None:
        """Each row's score by both classifiers, as far as these are trained (so empty before one is); None
        where it is not computed yet (see `score`).
        """
        if not self.run.classifiers:
            return {}
        return self.studio.remembered(self.name, self._scores_key)

    @property
    def _scores_key(self) -> tuple[Any, ...]:
        return ("scores", self.of, *(bool(self.run.stamp(classifier_stage(kind, 0))) for kind in KINDS))

    def score(self, task: Task) -> Json:
        """Computes them, part by part; what was computed before is read from the run's cache."""
        arms = [kind for kind in KINDS if (kind, 0) in self.run.classifiers]
        if self.run.has_latents:
            raise DataError(f"{self.name} keeps latents: there are no pictures to score.")
        parts = torch.arange(len(self)).split(SCORED_AT_ONCE)
        result: dict[str, Json] = {}
        for i, kind in enumerate(arms):
            classifier = self.run.classifier(kind, 0)
            extractor = classifier.extractor(device_of(self.studio.device), self.run.layout.cache)
            scores: list[float] = []
            likeliest: list[int] = []
            for j, rows in enumerate(parts):
                share = (i + j / len(parts)) / len(arms)
                task.progress(share, f"Scores by the {kind} classifier: {len(scores):,} of {len(self):,}")
                logits_BC = extractor(self.run.images.subset(rows)).logits_BC
                scores += (-logits_BC.logsumexp(1)).tolist()
                likeliest += logits_BC.argmax(1).tolist()
            result[kind] = {
                "threshold": classifier.threshold,
                "score": scores,
                "likeliest": likeliest,
            }
        return self.studio.cached(self.name, self._scores_key, lambda: result)

    # Decisions

    @property
    def file(self) -> Path:
        """Where decisions lie."""
        return self.run.layout.curation

    def curation(self) -> Curation:
        """What people have decided, as the file says now."""
        try:
            stat = self.file.lstat()
        except FileNotFoundError:
            return Curation([], self.of)
        key = ("curation", self.of, stat.st_mtime_ns, stat.st_size)
        return self.studio.cached(self.name, key, lambda: Curation(read_decisions(self.file), self.of))

    def decide(self, rows: Sequence[int], action: Action) -> Curation:
        """Keeps rows or rejects them. To keep what no filter drops is to take its rejection back."""
        self.check(rows)
        reasons = self.filter_reasons
        kept = {m: True if reasons[m] else None for m in rows}
        return decide(self.file, self.of, kept if action == "keep" else dict.fromkeys(rows, False))

    def undo(self) -> tuple[Curation, list[int]]:
        """Takes the last decisions back, whoever made them; also says about which rows these were."""
        return undo(self.file, self.of)

    def decided(self, curation: Curation, since: int = 0) -> Json:
        """Decisions as a page is told of them: the rows that were decided about after the first `since`
        decisions, each with its state now; whether there is a classifier, and whether it was trained with all
        of them.
        """
        changed = dict.fromkeys(d.row for d in curation.decisions[since:])
        stamp = self.run.stamp(classifier_stage(REGULARIZED, 0))
        trained = stamp is not None and stamp["inputs"].get("curation", {}) == curation.inputs
        return {
            "of": self.of,
            "version": len(curation.decisions),
            "states": {row: curation.states.get(row) for row in changed},
            "classifier": stamp is not None,
            "trained": trained,
            "undo": curation.last is not None,
        }


def encoded(picture: Image.Image) -> tuple[bytes, str]:
    """A picture's bytes and their media type: PNG where it is small, WebP above."""
    buffer = io.BytesIO()
    if max(picture.size) <= EXACT:
        picture.save(buffer, "PNG")
        return buffer.getvalue(), "image/png"
    picture.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue(), "image/webp"


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{shown(file.name)} is too large to be shown.")
            return picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{shown(file.name)} is damaged: {error}") from error
