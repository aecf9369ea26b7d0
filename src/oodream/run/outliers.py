"""A run's imagined images as a data set that others can read: an image folder with `metadata.jsonl`, as
`datasets` knows it, and a card.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from html import escape
from itertools import chain, compress
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from ..core import registry
from ..core.errors import DataError, are
from ..core.files import encode_json, fresh_folder, write_bytes
from ..core.sealed import damaged
from ..core.types import Json
from .artifacts import Run
from .lacking import check_imagined

__all__ = ["INDEX", "export_images"]

INDEX = "metadata.jsonl"
"""the file that says of every image what it was made from"""
PRIVATE = ("anchor", "anchor_index", "hash", "pipeline")  # names of known images; what only the run can use
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
UNKNOWN = "unknown"


def export_images(run: Run, folder: Path, license: str = UNKNOWN) -> int:
    """Writes the run's imagined images that its filters keep, and those that people added, what each was made
    from, and a card; returns how many.

    The names of the known images that they lie around stay behind. `license` is an identifier of the hub's.
    All is written or nothing. Raises StoreError for a folder that holds something and for a run that has no
    images yet, and DataError for one that has none at all, and where images are damaged.
    """
    check_imagined(run, "images")
    source = run.layout.imagined("images")
    keep, added = run.keep_mask.tolist(), _added(run)

    def kept() -> Iterator[Json]:
        return compress(run.provenance, keep)

    if bad := damaged((source / line["file_name"], line["hash"]) for line in kept()):
        names = sorted(str(file.relative_to(source)) for file in bad)
        raise DataError(
            f"{are(names, 'images')} missing or damaged in {source}. "
            f"Mend them with: oodream decode {run.folder.path} --verify"
        )
    with fresh_folder(folder) as fresh:
        for place, lines in ((source, kept()), (run.folder.path, iter(added))):
            for line in lines:
                target = fresh / line["file_name"]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / line["file_name"], target)
        public = (
            {key: value for key, value in line.items() if key not in PRIVATE} for line in chain(kept(), added)
        )
        write_bytes(fresh / INDEX, (encode_json(line) + b"\n" for line in public))
        count = Counter(line["class"] for line in chain(kept(), added))
        card = _card(run, count, folder.resolve().name, license)
        write_bytes(fresh / "README.md", str(card).encode())
    return count.total()


def _added(run: Run) -> list[Json]:
    """The lines of what people added; StoreError where a picture of theirs is missing or damaged."""
    if not len(run.added):
        return []
    _ = run.added.images
    keys = ("class", "prompt", "words", "cosine_to_class", "knn_distance", "way")
    return [
        {
            "file_name": f"{run.layout.added.name}/{line['file_name']}", "kind": run.kind,
            **{key: line.get(key) for key in keys}, "seed": line["recipe"]["seed"],
        }
        for line in run.added.lines
    ]  # fmt: skip


def _card(run: Run, count: Counter[str], name: str, license: str) -> DatasetCard:
    data = DatasetCardData(
        license=license,
        annotations_creators="machine-generated",
        task_categories=["image-classification"],
        size_categories=next((size for n, size in SIZES if count.total() < n), "n>1M"),
        pretty_name=name,
        tags=["out-of-distribution-detection", "synthetic", "oodream"],
    )
    text = f"""# {name}

{_about(run, count)}

## Use

```python
from datasets import load_dataset

images = load_dataset("imagefolder", data_dir="{name}", split="train")  # this folder
```

`metadata.jsonl` says of each image in `file_name` the `class` that it lies around, the `prompt`, the nearest
`words` that the generator has learnt, the `seed`, how far its vector is from known images' (`knn_distance`,
to the k-th nearest of its class) and from the class's (`cosine_to_class`), and its `row` in the run.

## How they were made

{_method(run)}

## What they are for, and what not

{_purpose(run)}

{_license(license)}"""
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def _about(run: Run, count: Counter[str]) -> str:
    least, most = min(count[name] for name in run.book.names), max(count.values(), default=0)
    about = (
        "around these classes that show none of them, as far as the run's filters can tell"
        if run.kind == "outlier"
        else "meant to show these classes"
    )
    each = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    size = run.config.size
    n = count.total()
    return f"""{n:,} images {about}, of {size} x {size} pixels.
A diffusion model imagined them. Each class has {each}: {escape(", ".join(run.book.names), quote=False)}."""


def _method(run: Run) -> str:
    decode, sample = run.config.decode, run.config.sample
    source = decode.source
    if Path(source).is_absolute() or Path(source).is_dir():
        source = Path(source).name  # where it lies on somebody's disk is nobody's business
    about = registry.summary("samplers", sample.sampler)
    options = "".join(f", {key} {value}" for key, value in sample.options.items())
    reasons = Counter(filter(None, run.drop_reasons))
    by_hand = f"\n- {len(run.added):,} more were drawn and chosen by a person" if len(run.added) else ""
    dropped = "".join(f"\n  - {count:,}: {reason}" for reason, count in reasons.items()) or " none"
    return f"""Vectors were sampled in the space of the generator's text, and the generator turned each
into an image, in place of the class's word in the prompt (DREAM-OOD, Du et al. 2023).

- Sampler: `{sample.sampler}`{options}. {about}
- Generator: `{source}`, {decode.scheduler}, {decode.steps} steps, guidance {decode.guidance:g}
- Prompt: "{decode.prompt}"
- Of {len(run.keep_mask):,} images these were dropped:{dropped}{by_hand}"""


def _purpose(run: Run) -> str:
    if run.kind != "outlier":
        return """More training images of the classes. They are a generator's idea of them, with its biases,
and no photographs: measure on real images alone."""
    return """Outliers to train a classifier with (`oodream run --regularize.outliers real`, and this folder
behind `--regularize.real`), or for a detector that learns from some. They are no sample of what the world
holds, and no test set: measure on real unknown images. Some may show a known class after all, and all have
the traces of their generator, by which they could be told from photographs."""


def _license(license: str) -> str:
    if license == UNKNOWN:
        return """The licence is not stated. Those of the generator, and of the images that it was trained on,
may say what these images can be used for."""
    return f"Licence: {license}."
