"""`Run`: all that a run has made, and the images that it was made of, read when first asked for, without
decoder or network in hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..audit.finding import Audit
from ..config import Config
from ..core.errors import StoreError, brief, shown
from ..core.files import parse_json, read_json
from ..core.folders import check_is_there
from ..core.options import overlay
from ..core.results import Row, ShiftRow, row_from_json, shift_row_from_json
from ..core.types import ClassBook, Features, Json, SampledVectors
from ..data.images import Images, from_array
from ..data.inputs import DataInputs
from ..deploy.guard import Guard
from ..models.classifier import Classifier, check_plugin, load_classifier
from ..synthesis.align import AlignedEncoder, untrained_encoder
from ..training.sources import Kind
from .added import added_outliers
from .beside import Beside, beside_of, kind_of
from .folder import RunDir, read_manifest
from .generated import ImageFiles, LatentShards, imagined_images, latent_reader
from .lacking import IMAGINING, check_imagined, check_imagines, check_latents, check_scores
from .layout import BASELINE, REGULARIZED, classifier_stage, imagined_stage
from .reading import Lines, again, read_lines, read_object, read_tensors
from .selection import Selection

__all__ = ["Run", "named_extensions"]


def inputs_of(run: Run) -> DataInputs:
    """The images that a run's options name, as they are now: `train`, `test`, `ood` and `shifted`."""
    return DataInputs(run.config)


class Run:
    """A run's folder, opened. What is asked for is read once; StoreError names a file that is missing or
    damaged, and the stage to make again. DataError says of what such a run does not have why that is so.
    """

    def __init__(self, folder: Path, config: Config, command: str = "", plugins: bool = True) -> None:
        self.folder, self.config, self.command, self.plugins = RunDir(folder), config, command, plugins
        self.layout = self.folder.layout

    @classmethod
    def open(cls, folder: Path | str, plugins: bool = False) -> Run:
        """The run in a folder, finished or begun.

        Raises StoreError for a folder without a run, or with one of another format; and, without
        `plugins`, for a run that names extensions by their modules, whose code would run.
        """
        path = Path(folder)
        manifest, config = _described(path)
        for name in named_extensions(config):
            check_plugin(name, path, plugins)
        return cls(path, config, str(manifest.get("command", "oodream run …")), plugins)

    @cached_property
    def book(self) -> ClassBook:
        """The classes: names, prompts and class vectors."""
        c, tokens_CD = self._classes, self._tensors(self.layout.class_vectors, "tokens_CD")["tokens_CD"]
        if not len(c["names"]) == len(c["prompts"]) == len(tokens_CD):
            raise StoreError(
                f"{shown(self.layout.classes)} has other classes than its vectors. {again('classes')}"
            )
        return ClassBook(
            names=tuple(c["names"]), prompts=tuple(c["prompts"]), tokens_CD=tokens_CD, space=c["space"]
        )

    @cached_property
    def _classes(self) -> Json:
        self.folder.check_file(self.layout.classes)
        c = read_object(self.layout.classes, "classes", names=list, prompts=list, space=str, tile=int)
        if not all(isinstance(text, str) for text in (*c["names"], *c["prompts"])):
            raise StoreError(f"{shown(self.layout.classes)} is damaged. {again('classes')}")
        return c

    @property
    def tile(self) -> int:
        """Images that were decoded together."""
        return int(self._classes["tile"])

    @cached_property
    def encoder(self) -> AlignedEncoder:
        """The image encoder into the text's token space, on the CPU."""
        model = untrained_encoder(self.book, self.config.align, self.config.seed)
        return _filled(model, self._tensors(self.layout.encoder), self.layout.encoder)

    @cached_property
    def features(self) -> Features:
        """Embeddings of the ID training images."""
        return Features(**self._tensors(self.layout.features, "z_ND", "y_N", "index_N"), encoder="")

    @cached_property
    def vectors(self) -> SampledVectors:
        """What was sampled around them, outliers or inliers."""
        t = self._tensors(self.layout.vectors)
        if not _are_vectors(t, len(self.book.names)):
            raise StoreError(f"{shown(self.layout.vectors)} is damaged. {again('vectors')}")
        return SampledVectors(**t, kind=self.kind, space=self.book.space)

    @cached_property
    def beside(self) -> Beside:
        """What training shows beside known images: what is imagined, or what stands in its place."""
        return beside_of(self.config)

    @property
    def imagines(self) -> bool:
        """Whether the run samples and decodes anything: where its training shows it."""
        return self.beside == "imagined"

    @cached_property
    def kind(self) -> Kind:
        """What the run imagines, "outlier" or "inlier"; images in their place are outliers, too."""
        return kind_of(self.config)

    @property
    def has_latents(self) -> bool:
        """Whether outliers, imagined or known in their place, are latents."""
        return self.beside in ("imagined", "known") and self.config.decode.output == "latents"

    inputs = cached_property(inputs_of)
    added = cached_property(added_outliers)

    @property
    def files(self) -> ImageFiles | LatentShards:
        """The files of what is imagined."""
        folder = self.layout.imagined(self.config.decode.output)
        if self.has_latents:
            return LatentShards(folder=folder, vectors=self.vectors)
        kind = self.config.decode.format
        return ImageFiles(folder=folder, vectors=self.vectors, names=self.book.names, format=kind)

    images = cached_property(imagined_images)

    @cached_property
    def latents(self) -> Callable[[Tensor], Tensor]:
        """The imagined latents by row: rows (B,) to float16 (B, F, h, w); DataError where there are none."""
        check_imagined(self, "latents")
        return latent_reader([file for file, _ in groupby(map(self.files.path, range(len(self.vectors))))])

    @cached_property
    def known_latents(self) -> Callable[[Tensor], Tensor]:
        """The ID training images' latents by row; DataError where the run has none."""
        check_latents(self)
        return latent_reader(self.layout.latent_shards())

    @cached_property
    def provenance(self) -> Lines:
        """What each imagined row was made from: class, prompt, anchor, seed, distance, hash of its file."""
        output = self.config.decode.output
        file, stage = self.layout.provenance(output), imagined_stage(output)
        check_imagines(self, file)
        self.folder.check_file(file)
        lines = Lines(file, stage, _provenance)
        if len(lines) != len(self.vectors):
            raise StoreError(f"{file} is cut short. {again(stage)}")
        return lines

    @cached_property
    def selection(self) -> Selection:
        """Which imagined rows stay, by filters and by people."""
        return Selection(self)

    @property
    def keep_mask(self) -> Tensor:
        """True (M,) for imagined rows that stay."""
        return self.selection.keep_mask

    @property
    def drop_reasons(self) -> list[str]:
        """Why each imagined row was dropped, by a filter or by a person; empty for those that stay."""
        return self.selection.drop_reasons

    def reconstructed(self, part: str) -> Images:
        """VAE reconstructions of a share of the "train" images, or the control's of "test" images."""
        t = self._tensors(self.layout.reconstructed(part), "images", "labels")
        return from_array(f"reconstructed-{part}", t["images"], t["labels"], self.book.names)

    @property
    def samples(self) -> Tensor:
        """K images of each reported class's plain prompt: uint8 (C, K, 3, H, W)."""
        return self._tensors(self.layout.samples, "images")["images"]

    @property
    def strips(self) -> dict[str, Tensor]:
        """Images (N, 3, H, W) along arcs of vectors, by "between-CLASS" and "away-CLASS"."""
        return self._tensors(self.layout.strips) if self.config.report.strips else {}

    def classifier(self, kind: str = REGULARIZED, seed: int = 0) -> Classifier:
        """A trained classifier, "baseline" or "regularized", on the CPU."""
        return load_classifier(self.layout.classifier(kind, seed), self.plugins)

    @property
    def classifiers(self) -> list[tuple[str, int]]:
        """Kind and seed of all classifiers that are trained."""
        arms = [(kind, seed) for kind in (BASELINE, REGULARIZED) for seed in range(self.config.seeds)]
        return [arm for arm in arms if self.stamp(classifier_stage(*arm))]

    def scores(self, kind: str = REGULARIZED, seed: int = 0, detector: str = "") -> dict[str, Tensor]:
        """A detector's scores (by default the first's) by image set, "id" the test images; higher = OOD.
        ValueError names those that there are.
        """
        detector = detector or self.config.evaluate.detectors[0]
        check_scores(self, kind, seed, detector)
        return self._tensors(self.layout.scores(kind, seed, detector))

    def rows(self) -> list[Row]:
        """All that was measured of the detectors."""
        self.folder.check_file(self.layout.results)
        return read_lines(self.layout.results, "scores", row_from_json)

    def shift_rows(self) -> list[ShiftRow]:
        """All that was measured on shifted sets."""
        self.folder.check_file(self.layout.shift_rows)
        return read_lines(self.layout.shift_rows, "shift", shift_row_from_json, least=0)

    def guard(self, device: str = "cpu") -> Guard:
        """The run's guard."""
        return Guard.load(self.folder.path, device, self.plugins)

    def audit(self) -> Audit:
        """What makes this run's numbers doubtful."""
        self.folder.check_file(self.layout.audit)
        return _read_audit(self.layout.audit)

    def _tensors(self, file: Path, *names: str) -> dict[str, Tensor]:
        stage = str(file.parent.relative_to(self.folder.path))
        if stage in IMAGINING:
            check_imagines(self, file)
        return read_tensors(file, stage, *names)

    def stamp(self, stage: str) -> Json | None:
        """A finished stage's seconds, summary and inputs; None where it is not finished."""
        return self.folder.stamp(stage)


def _are_vectors(t: dict[str, Tensor], classes: int) -> bool:
    """Whether tensors are vectors, each of a class, with whole numbers where these are to be."""
    columns = {"z_MD", "y_M", "anchor_M", "knn_M", "seed_M"}
    if not columns <= t.keys() <= columns | {"name_M"}:
        return False
    shapes = {x.shape for name, x in t.items() if name != "z_MD"}
    whole = all(x.dtype == torch.int64 for name, x in t.items() if name not in ("z_MD", "knn_M"))
    return (
        t["z_MD"].ndim == 2 and shapes == {t["z_MD"].shape[:1]} and whole
        and bool(((t["y_M"] >= 0) & (t["y_M"] < classes)).all())
    )  # fmt: skip


def _provenance(text: str) -> Json:
    """What a row was made from; ValueError for a line that does not say all of it."""
    line = parse_json(text)
    kinds: dict[str, Any] = {
        "class": str, "prompt": str, "anchor": str, "pipeline": str, "anchor_index": int, "seed": int,
        "knn_distance": (int, float), "cosine_to_class": (int, float), "words": list,
    }  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(line, dict) or not isinstance(line.get(key), kind):
            raise ValueError(f"a line has no {key!r}, or another one than a row has: {brief(line)}")
    if not all(isinstance(word, str) for word in line["words"]):
        raise ValueError(f"a line's words are {brief(line['words'])}")
    return cast(Json, line)


def _described(folder: Path) -> tuple[Json, Config]:
    """The `run.json` of a folder, and the configuration in it."""
    check_is_there(folder)
    if (manifest := read_manifest(folder)) is None:
        raise StoreError(
            f"{folder} is not a run folder: it has no run.json. Begin one with: oodream run --data FOLDER"
        )
    try:
        return manifest, overlay(Config(), manifest["config"])
    except ValueError as error:
        raise StoreError(f"{shown(folder / 'run.json')} cannot be used: {error}") from error


def _filled(model: AlignedEncoder, tensors: dict[str, Tensor], file: Path) -> AlignedEncoder:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise StoreError(f"{file} is of another network. {again('align')}") from error
    return model.eval()


def _read_audit(file: Path) -> Audit:
    try:
        return Audit.from_json(read_json(file))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, StoreError) as error:
        raise StoreError(f"{file} is missing or damaged. {again('audit')}") from error


def named_extensions(config: Config) -> list[str]:
    """The names of all extensions that a configuration uses."""
    return [
        config.sample.sampler,
        config.decode.decoder,
        *config.filter.filters,
        config.latents.adapter,
        *config.regularize.loss,
        *config.evaluate.detectors,
    ]
