"""From a finished run to what its report shows: picks examples, joins pictures with their provenance, names
the sets.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ..audit.finding import from_json
from ..core.files import load_tensors, read_json
from ..core.results import Row, ShiftRow, row_from_json, shift_row_from_json
from ..core.seeding import generator
from ..core.types import Json
from ..data.builtin import FAR_SETS, NEAR
from ..data.holdout import PSEUDO_OOD
from ..deploy.guard import Guard, predictor_of
from ..functional.slerp import COSINES
from ..models.classifier import Predictor
from ..report.content import Answer, Checked, FilterCount, ImageSet, Imagined, LatentMap, Report, Strip
from ..report.tables import shifted
from .audit import audited_sets

if TYPE_CHECKING:
    from .pipeline import Pipeline


DESCRIPTIONS = {name: about for name, (_, about) in {**FAR_SETS, **PSEUDO_OOD}.items()} | {
    "near": NEAR,
    "left-out": "training images of classes left out of training",
}
GALLERY_PER_CLASS = 12
ANSWERS_PER_SET = 3


def rows(p: Pipeline) -> list[Row]:
    """All measured rows of the run."""
    return [
        row_from_json(line) for line in (p.run / "results.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def shifts(p: Pipeline) -> list[ShiftRow]:
    """All accuracies on shifted sets."""
    return [
        shift_row_from_json(line)
        for line in (p.run / "shifts" / "accuracy.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def headline(p: Pipeline) -> str:
    """The run in a few lines: the first detector's mean over all OOD sets and seeds, and the mean accuracy on
    shifted sets.
    """

    def mean(kind: str, metric: str) -> float:
        found = [
            getattr(r, metric)
            for r in rows(p)
            if (r.classifier, r.group, r.detector) == (kind, "all", p.config.evaluate.detectors[0])
        ]
        return 100 * sum(found) / len(found)

    plain, dream = (
        {m: mean(kind, m) for m in ("fpr95_id", "auroc", "accuracy")} for kind in ("plain", "dream")
    )
    told = ""
    if moved := shifts(p):
        (a, b), (c, d) = (
            [shifted(moved, kind, m).text for kind in ("dream", "plain")] for m in ("accuracy", "refused")
        )
        told = f"On shifted sets of known classes: accuracy {a} % ({b} %), called unknown {c} % ({d} %).\n"
    return told + (
        f"Unknown images accepted while 95 % of known ones are: {dream['fpr95_id']:.1f} % (plain: {plain['fpr95_id']:.1f} %).\n"
        f"AUROC {dream['auroc']:.1f} % ({plain['auroc']:.1f} %). Accuracy {dream['accuracy']:.1f} % ({plain['accuracy']:.1f} %)."
    )


def present(p: Pipeline) -> Report:
    """The report's content, read from the run folder."""
    c, stamps = p.config, {name: p.run.stamp(name) for name in p.stages}
    finished = {name: stamp for name, stamp in stamps.items() if stamp}
    kinds = {
        "plain": "cross-entropy on the training images",
        "dream": f"the same budget, beside imagined {p.sampler.kind}s",
    }
    does = "says “unknown”" if p.sampler.kind == "outlier" else "has seen imagined images of what it knows"
    kept = finished["filter"]["summary"] if "filter" in finished else None
    per_class = len(p.outliers) // len(p.book.names)
    judge = predictor_of(p.run.path, "dream-s0", plugins=True)
    return Report(
        title=f"{p.run.path.name}: a classifier that {does}",
        preset=p.run.path.name,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        command=p.command,
        classes=p.book.names,
        classifiers=kinds,
        versions=p.describe()["versions"],
        config=p.describe()["config"],
        seconds={name: stamp["seconds"] for name, stamp in finished.items()},
        sets=[
            ImageSet(
                name="id", group="id", n=len(p.given.data[1]), description="test images of the known classes"
            ),
            *(
                ImageSet(name=name, group=group, n=len(images), description=describe(name))
                for name, (group, images) in p.given.ood.items()
            ),
        ],
        rows=rows(p),
        shifts=shifts(p),
        kind=p.sampler.kind,
        latents=p.latents,
        detector=c.evaluate.detectors[0],
        scores={
            kind: load_tensors(p.run / "scores" / f"{kind}-s0-{c.evaluate.detectors[0]}.safetensors")
            for kind in kinds
        },
        latent_map=latent_map(p),
        gallery=gallery(p, kept["reason"] if kept else ""),
        class_samples=dict(
            zip(
                p.book.names,
                load_tensors(p.run / "paths" / "plain.safetensors")["images"][:, :8],
                strict=True,
            )
        ),
        strips=strips(p),
        answers=answers(p, judge),
        promise=f"{judge.promise}" if isinstance(judge, Guard) else "95 % of known images are accepted",
        reconstructed_id={
            kind: fmean(
                finished[f"classifier/{kind}-s{seed}"]["summary"]["reconstructed_id_auroc"]
                for seed in range(c.seeds)
            )
            for kind in kinds
        },
        filtered={
            name: FilterCount(drawn=per_class, kept=kept["kept_per_class"][name]) for name in p.book.names
        }
        if kept
        else {},
        audit=checked(p),
    )


def describe(name: str) -> str:
    """One line about a built-in OOD set; empty for a user's own."""
    return DESCRIPTIONS.get(name, "")


def gallery(p: Pipeline, reason: str) -> list[Imagined]:
    """The first outliers of every class, kept and dropped as they come, beside their anchors."""
    lines = (p.drawing.folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for c in range(len(p.book.names)):
        chosen = (p.outliers.y_M == c).nonzero()[:GALLERY_PER_CLASS, 0].tolist()
        for m, image in zip(chosen, p.imagined_pictures(chosen), strict=True):
            told = json.loads(lines[m])
            found.append(
                Imagined(
                    name=told["class"], image_3HW=image, anchor_3HW=p.given.data[0].batch([told["anchor_index"]])[0],
                    row=m, seed=told["seed"], knn=told["knn_distance"], cosine=told["cosine_to_class"], prompt=told["prompt"],
                    pipeline=told["pipeline"], anchor_file=told["anchor"], words=told["words"],
                    dropped="" if p.kept[m] else reason,
                )
            )  # fmt: skip
    return found


def strips(p: Pipeline) -> dict[str, list[Strip]]:
    """The drawn paths, by class."""
    images, names = load_tensors(p.run / "paths" / "paths.safetensors"), p.book.names
    kind, steps = p.sampler.kind, [f"{100 * i / (len(COSINES) - 1):.0f} %" for i in range(len(COSINES))]
    return {
        names[c]: [
            Strip(about=f"From the word “{names[c]}” to its first {kind}:", images_N3HW=images[f"between-{c}"], labels=steps),
            Strip(
                about=f"Away from that {kind}’s anchor, by the cosine that is left to it:",
                images_N3HW=images[f"away-{c}"], labels=[f"{cosine:g}" for cosine in COSINES],
            ),
        ]
        for c in range(len(images) // 2)
    }  # fmt: skip


def latent_map(p: Pipeline) -> LatentMap:
    """Features and outliers on the two directions that separate the classes best."""
    z, y = p.features.z_ND.numpy(), p.features.y_N.numpy()
    if len(p.book.names) > 2:
        flat, method = (
            LinearDiscriminantAnalysis(n_components=2, solver="eigen", shrinkage=0.1).fit(z, y),
            "linear discriminants",
        )
    else:
        flat, method = PCA(2).fit(z), "principal components"
    return LatentMap(
        features_N2=flat.transform(z), y_N=y, outliers_M2=flat.transform(p.outliers.z_MD.numpy()), y_M=p.outliers.y_M.numpy(),
        dropped_M=~p.kept.numpy(), method=method,
    )  # fmt: skip


def checked(p: Pipeline) -> list[Checked]:
    """The run's audit, with the pictures of its examples."""
    done, sets = from_json(read_json(p.run / "audit" / "audit.json")), audited_sets(p.given, p.run)

    def pair(example: Json) -> tuple[torch.Tensor, torch.Tensor, str]:
        a, b = (
            sets[name][1].batch([row])[0] for name, row in zip(example["sets"], example["rows"], strict=True)
        )
        called = [
            f"{name} {row}"
            for name, row in zip(
                example["sets"], example["labels" if "labels" in example else "rows"], strict=True
            )
        ]
        return a, b, " and ".join(called)

    return [
        Checked(
            kind=f.kind, sets=f.sets, severity=f.severity, message=f.message,
            pairs=[pair(example) for example in f.examples if "rows" in example],
            aurocs={example["statistic"]: example["auroc"] for example in f.examples if "statistic" in example},
        )
        for f in done.findings
    ]  # fmt: skip


def answers(p: Pipeline, judge: Predictor) -> list[Answer]:
    """What is said to some test images of every kind, drawn at random."""
    found = []
    for name, images, n in [
        ("id", p.given.data[1], 3 * ANSWERS_PER_SET),
        *((name, x, ANSWERS_PER_SET) for name, (_, x) in p.given.ood.items()),
    ]:
        part = images.subset(
            torch.randperm(len(images), generator=generator(p.config.seed, "answers", name))[:n]
        )
        for i, verdict in enumerate(judge(part, p.device)):
            truth = p.book.names[part.labels[i]] if name == "id" else name
            found.append(
                Answer(
                    image_3HW=part.batch([i])[0], truth=truth, known=name == "id",
                    verdict=verdict.answer, score=verdict.score, threshold=verdict.threshold,
                )
            )  # fmt: skip
    return found
