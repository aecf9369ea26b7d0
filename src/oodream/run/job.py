"""A run at work: its configuration, image sets, decoder, device and folder, as the stages need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from ..config import Config
from ..core.device import device_of
from ..core.errors import listed
from ..core.types import ClassBook, Decoder, Json, Sampler
from ..core.words import Words
from ..data.inputs import DataInputs
from ..data.real import WORLD
from ..data.sets import SETS
from ..models.factory import SCRATCH
from ..synthesis.decode import VAE, make_decoder
from ..synthesis.known import Known
from ..synthesis.names import disjoint
from ..synthesis.sample import make_sampler
from .artifacts import Run
from .folder import RunDir
from .layout import BASELINE, Layout

__all__ = ["Job", "absolute", "known_of"]

BUILT_IN = {
    *SETS,
    WORLD,
    "embedded",
    SCRATCH,
}  # names that are no paths, whatever lies in the working directory


class Job:
    """One run's work. What it has made before is read through `run`; what it needs besides is made when first
    asked for.
    """

    def __init__(
        self, config: Config, folder: Path, command: str = "", inputs: DataInputs | None = None
    ) -> None:
        """`inputs` are of a configuration that names the same images (see `DataInputs.under`)."""
        self.config, self.command = absolute(config), command
        self.folder = RunDir(Path(folder))
        self.run = Run(self.folder.path, self.config, command)
        if inputs is not None:
            self.run.inputs = inputs.under(self.config)
        self.device: torch.device = device_of(config.device)

    @property
    def layout(self) -> Layout:
        """Where everything lies."""
        return self.folder.layout

    @property
    def inputs(self) -> DataInputs:
        """The images that go in."""
        return self.run.inputs

    @property
    def decoder(self) -> Decoder:
        """The decoder, with the batch size chosen when the run began."""
        if self._decoder.tile == 0 and self.layout.classes.exists():
            self._decoder.tile = self.run.tile
        return self._decoder

    @cached_property
    def _decoder(self) -> Decoder:
        names = self.inputs.classes
        return make_decoder(
            self.config.decode,
            names,
            self.inputs.prompts(names),
            self.config.size,
            self.device,
            self.inputs.prompt_spans(names),
            known_of(self.run),
        )

    @cached_property
    def image_hashes(self) -> Json:
        """Hashes of the ID images, of those for training ("images") and of those for testing ("test")."""
        return {"images": self.inputs.train.fingerprint(), "test": self.inputs.test.fingerprint()}

    @property
    def book(self) -> ClassBook:
        """The classes, as the decoder's text encoder has them."""
        return self._decoder.book

    @property
    def sampler(self) -> Sampler:
        """The sampler; its kind says what the run imagines, outliers or inliers."""
        return self._sampling[0]

    @property
    def sampled_words(self) -> list[str]:
        """The words that the sampler takes vectors from; none where it needs no words."""
        return self._sampling[1]

    @cached_property
    def _sampling(self) -> tuple[Sampler, list[str]]:
        taken: list[str] = []

        def lookup(names: Sequence[str]) -> Words:
            words = self.words(names)
            taken.extend(words.names)
            return words

        return make_sampler(self.config.sample, lookup), taken

    def words(self, names: Sequence[str] = ()) -> Words:
        """The decoder's words of these names, or all that it lists, without those that a known or unknown
        class has in its name. The name "world" stands for those of the data's own world.

        Raises ValueError where the decoder lists no words, and for names that a class has; DataError where
        the data has no world.
        """
        list_words = getattr(self._decoder, "words", None)
        if list_words is None:
            raise ValueError(f"The decoder {self.config.decode.decoder!r} lists no words to sample from.")
        of_world = tuple(names) == (WORLD,)
        words: Words = list_words(self.inputs.world.classes if of_world else names)
        classes = (*self.book.names, *self.inputs.unknown)
        rest = set(disjoint(words.names, classes, self.inputs.source.other_names()))
        if names and not of_world and (taken := [name for name in words.names if name not in rest]):
            raise ValueError(f"{listed(map(repr, taken))} cannot be sampled: a class is called so.")
        rows = [i for i, name in enumerate(words.names) if name in rest]
        return Words(names=tuple(words.names[i] for i in rows), z_VD=words.z_VD[rows])


def known_of(run: Run) -> Known:
    """What a run's decoder may look at: its training images, and the baseline classifier that filters have,
    too.
    """
    return Known(images=lambda: run.inputs.train, baseline=lambda: run.classifier(BASELINE, 0).network)


def absolute(config: Config) -> Config:
    """The configuration with paths that hold from any working directory."""

    def path(text: str) -> str:
        found = text and text not in BUILT_IN and Path(text).exists()
        return str(Path(text).absolute()) if found else text

    def entry(text: str) -> str:
        if Path(text).exists():
            return path(text)
        prefix, equals, folder = text.partition("=")
        return f"{prefix}{equals}{path(folder)}"

    return replace(
        config,
        data=path(config.data),
        root=str(Path(config.root).absolute()) if config.root else "",
        classes=path(config.classes) if config.classes.endswith(".toml") else config.classes,
        ood=tuple(map(entry, config.ood)),
        shifted=tuple(map(entry, config.shifted)),
        decode=replace(
            config.decode,
            source=path(config.decode.source),
            options={
                key: path(str(value)) if key == VAE else value for key, value in config.decode.options.items()
            },
        ),
        align=replace(config.align, init=path(config.align.init)),
        train=replace(config.train, init=path(config.train.init)),
        regularize=replace(
            config.regularize,
            teacher=path(config.regularize.teacher),
            real=path(config.regularize.real),
        ),
    )
