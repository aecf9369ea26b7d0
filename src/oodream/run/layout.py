"""Where everything lies in a run's folder: the one place that knows."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "BASELINE",
    "FORMAT",
    "KINDS",
    "RECORD",
    "REGULARIZED",
    "SHARD_FILE",
    "TWINS",
    "Layout",
    "classifier_stage",
    "imagined_stage",
]

FORMAT = 2
"""Version of this layout, in `run.json`; runs of another one are refused."""
BASELINE, REGULARIZED = "baseline", "regularized"
KINDS = (BASELINE, REGULARIZED)
TWINS = "images/twins"
RECORD, SHARD_FILE = "metadata.jsonl", "latents-{}.safetensors"


def classifier_stage(kind: str, seed: int) -> str:
    """The stage that trains a classifier, which is also its folder below the run's."""
    return f"classifier/{kind}-s{seed}"


def imagined_stage(output: str) -> str:
    """The stage that decodes vectors to `output` ("images" or "latents"), which is also its folder."""
    return f"{output}/imagined"


class Layout:
    """The files of the run in a folder, by what they hold. A stage's folder has the stage's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "run.json"
        self.process = folder / "process.json"
        self.said = folder / "process.out"
        self.complained = folder / "process.err"
        self.halted = folder / "process.stop"
        self.cache = folder / "cache"
        self.classes = folder / "classes" / "classes.json"
        self.class_vectors = folder / "classes" / "tokens.safetensors"
        self.encoder = folder / "align" / "encoder.safetensors"
        self.features = folder / "features" / "features.safetensors"
        self.vectors = folder / "vectors" / "vectors.safetensors"
        self.samples = folder / "strips" / "samples.safetensors"
        self.strips = folder / "strips" / "strips.safetensors"
        self.drawn_features = folder / "strips" / "features.safetensors"
        self.twins = folder / TWINS
        self.keep_mask = folder / "filter" / "keep.safetensors"
        self.added = folder / "added"
        self.known_latents = folder / "latents" / "known"
        self.coloured_latents = self.known_latents / "coloured.safetensors"
        self.adapter = folder / "latents" / "adapter" / "adapter.safetensors"
        self.curation = folder / "curation.jsonl"
        self.results = folder / "results.jsonl"
        self.guard = folder / "guard"
        self.saved_guards = folder / "guards"
        self.shift_rows = folder / "shift" / "accuracy.jsonl"
        self.audit = folder / "audit" / "audit.json"
        self.report = folder / "report" / "index.html"

    def stage(self, name: str) -> Path:
        """A stage's folder."""
        return self.folder / name

    def imagined(self, output: str) -> Path:
        """The folder of imagined images or latents."""
        return self.folder / imagined_stage(output)

    def provenance(self, output: str) -> Path:
        """What each imagined row was made from, one JSON object a line."""
        return self.imagined(output) / RECORD

    def reconstructed(self, part: str) -> Path:
        """VAE reconstructions of a share of the "train" images, or the control's of "test" images."""
        stage = {"train": "reconstructed", "test": "control"}[part]
        return self.folder / "images" / stage / f"reconstructed-{part}.safetensors"

    def latent_shard(self, i: int) -> Path:
        """The i-th file of the known images' latents."""
        return self.known_latents / SHARD_FILE.format(f"{i:05}")

    def latent_shards(self) -> list[Path]:
        """All files of the known images' latents, in order."""
        return sorted(self.known_latents.glob(SHARD_FILE.format("*")))

    def classifier(self, kind: str, seed: int) -> Path:
        """A trained classifier's folder."""
        return self.folder / classifier_stage(kind, seed)

    def log(self, stage: str) -> Path:
        """What a stage's training logged, epoch by epoch."""
        return self.folder / stage / "log.json"

    def resume_state(self, stage: str) -> Path:
        """What a killed training goes on from; it is removed when the training is done."""
        return self.folder / stage / "resume.state"

    def scores(self, kind: str, seed: int, detector: str) -> Path:
        """A detector's scores on a classifier, by image set."""
        return self.folder / "scores" / f"{kind}-s{seed}-{detector}.safetensors"
