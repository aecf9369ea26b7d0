"""From a finished run to its report: examples are picked, pictures joined with their provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..core.errors import shown
from ..core.seeding import generator
from ..core.types import Decoder, Json
from ..data.images import ImageSet
from ..data.inputs import DataInputs
from ..deploy.guard import Guard, predictor_of
from ..deploy.stored import name_of
from ..functional.knn import kth_distance
from ..functional.slerp import COSINES
from ..models.classifier import Classifier
from ..report.content import (
    Answer,
    AuditNote,
    Drawn,
    FilterCount,
    Imagined,
    LatentMap,
    Report,
    SetSummary,
    Strip,
)
from ..synthesis.samplers._classes import neighbour
from .artifacts import Run
from .audit import audited_sets, drawn_features
from .doubts import remarks
from .folder import read_manifest
from .headline import headline_detector
from .layout import BASELINE, KINDS, REGULARIZED, classifier_stage

__all__ = ["present"]

BESIDE = {
    "imagined": "beside imagined {kind}s",
    "known": "beside known images, {transform}, in place of imagined {kind}s",
    "real": "beside real images of other things, in place of imagined outliers",
    "": "with the loss {loss}",
}
GALLERY, GALLERY_PER_CLASS = 240, 12  # imagined images on the page, and of a class, at most
ANSWERS_PER_SET = 3
DISTANCES = 400  # vectors of a class whose distances are shown, at most
DRAWN = 4  # known images of a class, beside what the decoder makes of their features


def present(run: Run, inputs: DataInputs, device: torch.device, decoder: Decoder | None = None) -> Report:
    """The report's content. `decoder` makes pictures of imagined latents; without it a run of latents shows
    none.
    """
    stamps, names, detector = run.folder.stamps(), run.book.names, headline_detector(run)
    manifest = read_manifest(run.folder.path) or {}
    c = run.config.regularize
    words = {"kind": run.kind, "transform": c.known_transform, "loss": " + ".join(c.loss)}
    classifiers = {
        BASELINE: "cross-entropy on the training images",
        REGULARIZED: f"the same budget, {BESIDE[run.beside].format(**words)}",
    }
    does = "flags what it does not know" if run.kind == "outlier" else "has seen more images of its classes"
    classifier = Path(classifier_stage(REGULARIZED, 0)).name
    predictor = predictor_of(run.folder.path, classifier, plugins=True)
    answering, guarantee = "energy", "95 % of known images are accepted"
    if isinstance(predictor, Guard):
        answering, guarantee = name_of(predictor.detector), f"{predictor.guarantee}"
    return Report(
        title=f"{shown(run.folder.path.name)}: a classifier that {does}",
        preset=shown(run.folder.path.name),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=run.command,
        classes=names,
        classifiers=classifiers,
        versions=manifest.get("versions", {}),
        config=manifest.get("config", {}),
        seconds={name: stamp["seconds"] for name, stamp in stamps.items()},
        sets=set_summaries(inputs),
        rows=run.rows(),
        shifts=run.shift_rows(),
        shift_answers={item.name: answered(run, item, predictor, device) for item in inputs.shifted},
        kind=run.kind,
        latents=run.has_latents,
        detector=detector,
        scores={kind: run.scores(kind, 0, detector) for kind in classifiers},
        answers=answers(run, inputs, predictor, device),
        answering=answering,
        guarantee=guarantee,
        reconstructed_id=reconstructed_id(run, stamps),
        audit=audit_notes(run, inputs),
        remarks=remarks(run, detector),
        **(imagined(run, inputs, decoder) if run.imagines else {}),
    )


def imagined(run: Run, inputs: DataInputs, decoder: Decoder | None) -> dict[str, Any]:
    """The parts of the report that show what a run has imagined."""
    return {
        "latent_map": latent_map(run),
        "gallery": gallery(run, inputs, decoder),
        "added": added(run),
        "class_samples": dict(zip(run.book.names, run.samples, strict=False)),
        "strips": strips(run, inputs),
        "filtered": filtered(run),
        "dropped": Counter(filter(None, run.drop_reasons)),
        "recognized": (run.folder.stamp("filter") or {}).get("summary", {}).get("recognized"),
    }


def set_summaries(inputs: DataInputs) -> list[SetSummary]:
    """The test set and the OOD sets, with what they show where that is known."""
    about = "test images of the known classes"
    return [
        SetSummary(name="id", group="id", n=len(inputs.test), description=about),
        *(SetSummary(name=s.name, group=s.group, n=len(s.images), description=s.about) for s in inputs.ood),
    ]


def gallery(run: Run, inputs: DataInputs, decoder: Decoder | None) -> list[Imagined]:
    """The first imagined images of every class that is shown, kept or dropped, beside their anchors."""
    if run.has_latents and decoder is None:
        return []
    classes = run.book.names[: run.config.report.max_classes]
    per_class = min(GALLERY_PER_CLASS, max(1, GALLERY // len(classes)))
    rows = [m for y in range(len(classes)) for m in (run.vectors.y_M == y).nonzero()[:per_class, 0].tolist()]
    provenance, reasons = run.provenance, run.drop_reasons
    anchors = inputs.train.batch([provenance[m]["anchor_index"] for m in rows])
    return [
        Imagined(
            name=(p := provenance[m])["class"],
            image_3HW=image,
            anchor_3HW=anchor,
            row=m,
            seed=p["seed"],
            knn=p["knn_distance"],
            cosine=p["cosine_to_class"],
            prompt=p["prompt"],
            pipeline=p["pipeline"],
            anchor_file=shown(p["anchor"]),
            words=p["words"],
            dropped=reasons[m],
        )
        for m, image, anchor in zip(rows, pictures(run, rows, decoder), anchors, strict=True)
    ]


def added(run: Run) -> list[Drawn]:
    """The outliers that a person has drawn."""
    if not len(run.added):
        return []
    images = run.added.images.batch(range(len(run.added)))
    return [
        Drawn(
            name=line["class"],
            image_3HW=image,
            number=line["number"],
            way=line["way"],
            seed=line["recipe"]["seed"],
            cosine=line["cosine_to_class"],
            prompt=line["prompt"],
            pipeline=line["pipeline"],
            words=line["words"],
        )
        for line, image in zip(run.added.lines, images, strict=True)
    ]


def pictures(run: Run, rows: Sequence[int], decoder: Decoder | None) -> Tensor:
    """Imagined images uint8 (B, 3, H, W), decoded from latents where there are only these."""
    if decoder is not None and run.has_latents:
        return decoder.pictures(run.latents(torch.tensor(rows)))
    return run.images.batch(rows)


def strips(run: Run, inputs: DataInputs) -> dict[str, list[Strip]]:
    """By class: some known images beside what the decoder makes of their features, and the strips it has."""
    images, names = run.strips, run.book.names
    shares = [f"{100 * i / (len(COSINES) - 1):.0f} %" for i in range(len(COSINES))]
    result = {name: [strip] for name, strip in drawn_strips(run, inputs).items()}
    for y in range(len(images) // 2):
        result.setdefault(names[y], []).extend(
            [
                Strip(
                    caption=f"From the word “{names[y]}” to its first {run.kind}:",
                    images_N3HW=images[f"between-{y}"],
                    labels=shares,
                ),
                Strip(
                    caption=f"Away from that {run.kind}’s anchor, by the cosine to it:",
                    images_N3HW=images[f"away-{y}"],
                    labels=[f"{cosine:g}" for cosine in COSINES],
                ),
            ]
        )
    return result


def drawn_strips(run: Run, inputs: DataInputs) -> dict[str, Strip]:
    """Known images, each followed by what the decoder makes of its feature without noise; by class."""
    drawn, rows = drawn_features(run)
    known = inputs.train.batch(run.features.index_N[rows])
    result = {}
    for y, name in enumerate(run.book.names[: run.config.report.max_classes]):
        of_class = (drawn.labels == y).nonzero()[:DRAWN, 0]
        if len(of_class):
            pairs = torch.stack([known[of_class], drawn.batch(of_class)], 1).flatten(0, 1)
            result[name] = Strip(
                caption="Known images, and what the decoder makes of their embeddings:",
                images_N3HW=pairs,
                labels=["known", "decoded"] * len(of_class),
            )
    return result


def latent_map(run: Run) -> LatentMap:
    """Features and sampled vectors on the two directions that separate the classes best."""
    from sklearn.decomposition import PCA  # takes seconds, and a finished run draws no map
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    z, y = run.features.z_ND.numpy(), run.features.y_N.numpy()
    if len(run.book.names) > 2:
        projection = LinearDiscriminantAnalysis(n_components=2, solver="eigen", shrinkage=0.1).fit(z, y)
        method = "linear discriminants"
    else:
        projection, method = PCA(2).fit(z), "principal components"
    return LatentMap(
        features_N2=projection.transform(z),
        y_N=y,
        outliers_M2=projection.transform(run.vectors.z_MD.numpy()),
        y_M=run.vectors.y_M.numpy(),
        dropped_M=~run.keep_mask.numpy(),
        method=method,
        own_knn=class_distances(run, run.features.z_ND, run.features.y_N, own=True),
        vector_knn=class_distances(run, run.vectors.z_MD, run.vectors.y_M),
    )


def class_distances(run: Run, z_ND: Tensor, y_N: Tensor, *, own: bool = False) -> Tensor:
    """How far some of these vectors lie from their class: the distance to the k-th nearest feature of it, as
    samplers have it. Where they are its `own` features, none is a neighbour of itself.
    """
    found = []
    for y in range(len(run.book.names)):
        rows, base_ND = (y_N == y).nonzero()[:DISTANCES, 0], run.features.z_ND[run.features.y_N == y]
        k = min(neighbour(len(base_ND)), len(base_ND) - own)
        if k and len(rows):
            found.append(
                kth_distance(z_ND[rows], base_ND, k, self_Q=torch.arange(len(rows)) if own else None)
            )
    return torch.cat([torch.empty(0), *found])


def reconstructed_id(run: Run, stamps: dict[str, Json]) -> dict[str, float]:
    """The mean AUROC of the control over seeds, by kind of classifier."""
    return {
        kind: fmean(
            stamps[classifier_stage(kind, seed)]["summary"]["reconstructed_id_auroc"]
            for seed in range(run.config.seeds)
        )
        for kind in KINDS
    }


def filtered(run: Run) -> dict[str, FilterCount]:
    """How many imagined rows of each class filters and people kept; empty for latents, which are not
    filtered, where nobody decided anything.
    """
    selection, y_M, n = run.selection, run.vectors.y_M, len(run.book.names)
    curation = selection.curation
    if run.has_latents and not curation.states:
        return {}
    rescued = [m for m in curation.kept if selection.filter_reasons[m]]
    parts = (slice(None), run.keep_mask, curation.rejected, rescued)
    counts = [y_M[rows].bincount(minlength=n).tolist() for rows in parts]
    return {
        name: FilterCount(imagined=imagined, kept=kept, rejected=rejected, rescued=rescued)
        for name, imagined, kept, rejected, rescued in zip(run.book.names, *counts, strict=True)
    }


def audit_notes(run: Run, inputs: DataInputs) -> list[AuditNote]:
    """The run's audit, with the images of its examples."""
    images = {s.name: s.images for s in audited_sets(inputs, run)}

    def pair(example: Json) -> tuple[Tensor, Tensor, str]:
        a, b = (
            images[name].batch([row])[0] for name, row in zip(example["sets"], example["rows"], strict=True)
        )
        marks = example["labels"] if "labels" in example else example["rows"]
        caption = " and ".join(f"{name} {mark}" for name, mark in zip(example["sets"], marks, strict=True))
        return a, b, caption

    return [
        AuditNote(
            kind=finding.kind,
            sets=finding.sets,
            severity=finding.severity,
            message=finding.message,
            pairs=[pair(example) for example in finding.examples if "rows" in example],
            aurocs={e["statistic"]: e["auroc"] for e in finding.examples if "statistic" in e},
        )
        for finding in run.audit().findings
    ]


def answers(
    run: Run, inputs: DataInputs, predictor: Guard | Classifier, device: torch.device
) -> list[Answer]:
    """What is answered to some test images of every set but shifted ones, drawn at random."""
    known = ImageSet(name="id", group="id", images=inputs.test)
    result = answered(run, known, predictor, device, 3 * ANSWERS_PER_SET)
    for item in inputs.ood:
        result += answered(run, item, predictor, device)
    return result


def answered(
    run: Run,
    item: ImageSet,
    predictor: Guard | Classifier,
    device: torch.device,
    n: int = ANSWERS_PER_SET,
) -> list[Answer]:
    """What is answered to `n` images of a set, drawn at random."""
    order = torch.randperm(len(item.images), generator=generator(run.config.seed, "answers", item.name))
    part, known = item.images.subset(order[:n]), item.group in ("id", "shift")
    return [
        Answer(
            image_3HW=part.batch([i])[0],
            truth=run.book.names[part.labels[i]] if known else item.name,
            known=known,
            answer=prediction.answer,
            score=prediction.score,
            threshold=prediction.threshold,
        )
        for i, prediction in enumerate(predictor(part, device))
    ]
