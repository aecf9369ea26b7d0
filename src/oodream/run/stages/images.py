"""Stages that decode, encode and filter: imagined images or latents, strips, reconstructions, the control,
known latents, filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from ...core.distributed import barrier, current_shard, is_main
from ...core.errors import StoreError, shown
from ...core.files import encode_json, write_bytes
from ...core.memory import advice, in_halves
from ...core.progress import progress
from ...core.sealed import file_hash
from ...core.seeding import generator
from ...core.tensors import kept_tensors, save_tensors
from ...core.types import Filter, Json
from ...data.images import IN_MEMORY, Images
from ...functional.slerp import COSINES, away, slerp
from ...synthesis.decode import provenance, rendering
from ...synthesis.filters import make_filters, passing
from ...synthesis.filters._probability import probabilities
from ...synthesis.known import begun_at, draw_plainly
from ...training.augment import recolored
from ..generated import SHARD, GeneratedFiles, vectors_at
from ..job import Job
from ..layout import BASELINE
from ..twins import twin_files

__all__ = [
    "decode_vectors",
    "draw_strips",
    "draw_twins",
    "encode_known",
    "filter_images",
    "reconstruct_control",
    "reconstruct_known",
]

CONTROL_IMAGES = 1000
TOGETHER = 1024  # rows whose facts are held at once
RECOLORED = 4096  # known images in random colours that are encoded for latent adapters to learn from


def decode_vectors(job: Job) -> Json:
    """The imagined images or latents, and what each was made from."""
    run, decoder, files = job.run, job.decoder, job.run.files
    if not draw_missing(job, files):
        return {}
    known_files, way = job.inputs.train.files, rendering(decoder)

    def facts() -> Iterator[Json]:
        for rows in torch.arange(len(run.vectors)).split(TOGETHER):
            some = vectors_at(run.vectors, rows)
            words, begins = decoder.neighbours(some.z_MD), begun_at(decoder, some, known_files)
            for m, own, begun in zip(rows.tolist(), words, begins, strict=True):
                made_from = run.vectors, run.features, run.book, known_files, decoder.fingerprint, m
                yield provenance(*made_from) | begun | {"words": own} | way

    record(files, facts())
    return {job.config.decode.output: len(run.vectors)}


def draw_twins(job: Job) -> Json:
    """A known twin of every outlier: what the decoder makes of the class's name from the same noise."""
    decoder, files, names = job.decoder, twin_files(job.run), job.run.book.names
    if not draw_missing(job, files):
        return {}
    drawn_by = {"pipeline": decoder.fingerprint} | rendering(decoder)

    def facts() -> Iterator[Json]:
        for rows in torch.arange(len(files.vectors)).split(TOGETHER):
            some = vectors_at(files.vectors, rows)
            begins = begun_at(decoder, some, job.inputs.train.files)
            each = zip(rows.tolist(), some.y_M.tolist(), some.seed_M.tolist(), begins, strict=True)
            for m, y, seed, begun in each:
                yield {"row": m, "class": names[y], "seed": seed, **begun, **drawn_by}

    record(files, facts())
    return {"images": len(files.vectors)}


def draw_missing(job: Job, files: GeneratedFiles) -> bool:
    """Draws what has no file yet, each process its share; True for the one that goes on when all is there."""
    files.decode(job.decoder, files.missing(current_shard(), job.decoder))
    barrier(job.device)
    return is_main()


def record(files: GeneratedFiles, facts: Iterable[Json]) -> None:
    """Writes what every row was made from, with its file and that file's hash, a line for each."""
    rows = range(len(files.vectors))
    if gone := [file for file, _ in groupby(map(files.path, rows)) if not file.exists()]:
        raise StoreError(
            f"{shown(gone[0])} was drawn and is not to be seen ({len(gone)} files are not). Where another "
            "machine drew it, wait until the common disk shows it; then run the same command again."
        )

    def lines() -> Iterator[bytes]:
        by_file = groupby(zip(map(files.path, rows), facts, strict=True), lambda pair: pair[0])
        for file, own in by_file:
            name, value = str(file.relative_to(files.folder)), file_hash(file)
            for _, fact in own:
                yield encode_json({"file_name": name, **fact, "hash": value}) + b"\n"

    write_bytes(files.record, lines())
    files.forget_notes()


def draw_strips(job: Job) -> Json:
    """What the decoder makes of plain prompts, and of known images' features without noise; and for some
    classes two strips of images along arcs of vectors.

    One strip leads from T(y) to the class's first vector, and one away from that vector's anchor. All are
    drawn plainly, to see what vectors show.
    """
    c, run, decoder = job.config.report, job.run, job.decoder
    prompts = [prompt for prompt in run.book.prompts[: c.max_classes] for _ in range(c.samples_per_class)]
    images = decoder.plain(prompts, torch.arange(len(prompts)) + job.config.seed)
    save_tensors(job.layout.samples, {"images": images.unflatten(0, (-1, c.samples_per_class))})
    tokens_CD, vectors, arcs = run.book.tokens_CD, run.vectors, {}
    for y in range(min(c.strips, len(tokens_CD))):
        m = int((vectors.y_M == y).nonzero()[0, 0])
        arcs[f"between-{y}"] = slerp(tokens_CD[y], vectors.z_MD[m], len(COSINES)), y, m
        arcs[f"away-{y}"] = away(run.features.z_ND[vectors.anchor_M[m]], y), y, m
    strips = {}
    if arcs:
        parts = [
            (z, torch.tensor([y] * len(z)), vectors.seed_M[m].expand(len(z))) for z, y, m in arcs.values()
        ]
        z_BD, y_B, seed_B = (torch.cat(part) for part in zip(*parts, strict=True))
        along = draw_plainly(decoder)(z_BD, y_B, seed_B).images_B3HW
        assert along is not None
        strips = dict(zip(arcs, along.split(len(COSINES)), strict=True))
    save_tensors(job.layout.strips, strips)
    return {"strips": len(strips), "features": draw_features(job)}


def draw_features(job: Job) -> int:
    """Decodes the features of some known images, as even over the classes as their number allows; returns
    it."""
    features, n = job.run.features, job.config.report.features
    g, classes = generator(job.config.seed, "features"), features.y_N.unique().tolist()
    of_class = ((features.y_N == y).nonzero()[:, 0] for y in classes)
    each = math.ceil(n / len(classes))
    rows = torch.cat([some[torch.randperm(len(some), generator=g)[:each]] for some in of_class])
    rows = rows[torch.randperm(len(rows), generator=g)[:n].sort().values]
    drawn = draw_plainly(job.decoder)(features.z_ND[rows], features.y_N[rows], rows + job.config.seed)
    assert drawn.images_B3HW is not None
    save_tensors(job.layout.drawn_features, {"images": drawn.images_B3HW, "rows": rows})
    return len(rows)


def reconstruct_known(job: Job) -> Json:
    """VAE reconstructions of a share of the training images."""
    c, n = job.config, len(job.inputs.train)
    order_N, _ = reconstruction_orders(job)
    share = c.reconstruct.share if c.reconstruct.frac > 0 or c.reconstruct.detail else 0.0
    rows = order_N[: min(round(share * n), IN_MEMORY // (3 * c.size**2))]
    return reconstruct(job, "train", job.inputs.train, rows)


def reconstruct_control(job: Job) -> Json:
    """VAE reconstructions of test images, the control: the same ones whatever share of the others is made."""
    _, order_M = reconstruction_orders(job)
    return reconstruct(job, "test", job.inputs.test, order_M[:CONTROL_IMAGES])


def reconstruction_orders(job: Job) -> tuple[Tensor, Tensor]:
    """The orders in which training images (N,) and test images (M,) are taken; one generator draws both."""
    g = torch.Generator().manual_seed(job.config.seed)
    train_N, test_M = (torch.randperm(len(x), generator=g) for x in (job.inputs.train, job.inputs.test))
    return train_N, test_M


def reconstruct(job: Job, part: str, images: Images, rows: Tensor) -> Json:
    """Writes what the VAE makes of the images at `rows`."""
    rows = rows.sort().values
    pixels = [job.decoder.reconstruct(images.batch(rows_B)) for rows_B in rows.split(1024)]
    tensors = {"images": torch.cat(pixels), "labels": images.labels[rows], "rows": rows}
    save_tensors(job.layout.reconstructed(part), tensors)
    return {part: len(rows)}


def encode_known(job: Job) -> Json:
    """The latents of all ID training images, in shards that a killed run goes on from, and of some in random
    colours.
    """
    images = job.inputs.train
    starts = range(0, len(images), SHARD)
    for i, start in enumerate(progress(starts, total=len(starts), what="encode", unit="shard")):
        file = job.layout.latent_shard(i)
        if not kept_tensors(file):
            rows = range(start, min(start + SHARD, len(images)))
            save_tensors(file, {"latents_BFHW": job.decoder.encode(images.batch(rows))})
    g = generator(job.config.seed, "coloured")
    pixels = recolored(images.batch(torch.randperm(len(images), generator=g)[:RECOLORED]), g)
    save_tensors(job.layout.coloured_latents, {"images": pixels, "latents": job.decoder.encode(pixels)})
    return {"latents": len(images)}


def filter_images(job: Job) -> Json:
    """Which imagined images stay, by every filter in turn."""
    images, names = job.run.images, job.run.book.names
    filters = make_filters(job.config.filter, job.run.kind)
    baseline = job.run.classifier(BASELINE, 0).network.to(job.device)
    dropped_by_M = torch.full((len(images),), -1)
    for i, (name, keeps) in enumerate(filters.items()):

        def passes(rows: Tensor, name: str = name, keeps: Filter = keeps) -> Tensor:
            return passing(name, keeps, images.batch(rows), images.labels[rows], baseline)

        passes_M = of_all(images, passes, getattr(keeps, "compares", False))
        dropped_by_M[(dropped_by_M < 0) & ~passes_M] = i

    def recognized(rows: Tensor) -> Tensor:
        return probabilities(baseline, images.batch(rows)).argmax(1) == images.labels[rows]

    keep_M = dropped_by_M < 0
    save_tensors(job.layout.keep_mask, {"keep": keep_M, "dropped_by": dropped_by_M})
    per_class = {name: int((keep_M & (images.labels == y)).sum()) for y, name in enumerate(names)}
    reasons = [keeps.reason for keeps in filters.values()]
    return {
        "decoded": len(keep_M),
        "kept": int(keep_M.sum()),
        "recognized": int(of_all(images, recognized).sum()),
        "reasons": reasons,
        "kept_per_class": per_class,
    }


def images_together(y_M: Tensor, compares: bool) -> Sequence[Tensor]:
    """The rows of images that a filter is shown together: those of a class if it `compares`, else some."""
    if compares:
        return [(y_M == y).nonzero()[:, 0] for y in y_M.unique()]
    return torch.arange(len(y_M)).split(512)


def of_all(images: Images, ask: Callable[[Tensor], Tensor], compares: bool = False) -> Tensor:
    """What `ask` says of rows of images, boolean (M,), of fewer at a time where memory does not hold some."""
    answer_M = torch.zeros(len(images), dtype=torch.bool)
    for rows in images_together(images.labels, compares):
        with advice("filter", "Sample fewer images of a class (sample.per_class), or filter otherwise."):
            answer_M[rows] = ask(rows) if compares else in_halves(rows, ask, "the images to filter")
    return answer_M
