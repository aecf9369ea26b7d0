"""The stages of a run: which verb each calls, what it reads from the run folder, what it writes there, and how it resumes.

`STAGES` is the order. A stage is skipped when its stamp says that it is finished with the same inputs; the inputs of a stage are
its options, what it reads, and so, hashed, everything before it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config, TrainConfig
from ..core import registry
from ..core.device import device_of
from ..core.distributed import barrier, current_shard, is_main
from ..core.errors import DataError, listed
from ..core.files import load_tensors, read_json, save_tensors, write_bytes, write_json
from ..core.memory import Watch
from ..core.options import to_json
from ..core.progress import progress
from ..core.results import ShiftRow, row_to_json
from ..core.seeding import generator
from ..core.types import ClassBook, Features, Json, SampledVectors, Sampler
from ..data.corruptions import CORRUPTIONS, SEVERITIES
from ..data.images import IN_MEMORY, Images, from_array, from_files
from ..data.inputs import CONTROL, DataInputs
from ..deploy.guard import Guard
from ..detection.detectors import probes_of
from ..detection.evaluate import accuracy, evaluate
from ..functional.calibration import least, other_half
from ..functional.metrics import auroc
from ..functional.slerp import COSINES, away, between
from ..models.classifier import Classifier, limit
from ..models.classifier import load as load_classifier
from ..models.external import ADAPTERS
from ..models.factory import SCRATCH, backbone, weights_file
from ..models.inference import cost, outputs
from ..synthesis.align import AlignedEncoder, align, embed, encoder
from ..synthesis.decoders.stable import StableDecoder
from ..synthesis.sample import sample
from ..training.augment import coloured
from ..training.batches import DrawnFrom, LatentBank, Mixture
from ..training.loop import autocast
from ..training.train import NO_ADAPTER, first, learn_adapter, make_loss, train
from .folder import RunDir, hashed
from .generated import FORMATS, OUTPUTS, SHARD, GeneratedFiles, drawing, imagined, latent_rows, provenance

PLAIN, DREAM = "plain", "dream"
CHANGED = "changed"
CONTROL_IMAGES = 1000
SAMPLES_PER_CLASS = 8
COLOURED = 4096  # known images in random colours that are encoded for the latents' path to learn from
PATHS = 6  # classes whose surroundings are drawn
SHARES = ("latent_frac", "min_outlier_weight", "reconstruction_frac", "grey", "varied")
FILTERS = {"outlier": ("id_leak", "leak_threshold"), "inlier": ("class_drift", "drift_threshold")}


@dataclass(frozen=True)
class Stage:
    """A folder of the run: what it is made from, and the work that fills it and returns a summary of numbers.

    Of several processes all do the work of a `shared` stage together, and the first one alone that of any other.
    """

    name: str
    inputs: Json
    work: Callable[[Path], Json]
    shared: bool = False


class Pipeline:
    """One run. Objects are read from the run folder when a stage first needs them."""

    def __init__(self, config: Config, run: RunDir, command: str = "") -> None:
        self.config, self.run, self.command = config, run, command
        self.device, self.given = device_of(config.device), DataInputs(config)

    @property
    def decoder(self) -> StableDecoder:
        """The decoder; the tile that was found for the run, where one was to be found, stays its tile."""
        told = self.run / "classes" / "classes.json"
        if self._decoder.tile == 0 and told.exists():
            self._decoder.tile = read_json(told)["tile"]
        return self._decoder

    @cached_property
    def _decoder(self) -> StableDecoder:
        c = self.config.decode
        names = self.given.data[0].classes
        return StableDecoder(
            c.source,
            names=names,
            prompts=self.given.prompts(names),
            size=self.config.size,
            steps=c.steps,
            scheduler=c.scheduler,
            guidance=c.guidance,
            tile=c.tile,
            device=self.device,
        )

    @property
    def book(self) -> ClassBook:
        return self.decoder.book

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler; its kind says what the run imagines, outliers or inliers."""
        return registry.make("samplers", self.config.sample.sampler, **self.config.sample.options)

    def check(self) -> None:
        """Raises what can be known before any work: data, names against the tokenizer, options, k against class sizes."""
        c = self.config
        self.sampler.check(self.given.data[0].labels, self.given.data[0].classes)
        if make_loss(c.train).outliers and self.sampler.kind != "outlier":
            raise ValueError(
                f"The loss {'+'.join(c.train.loss)} needs outliers, and the sampler gives {self.sampler.kind}s."
            )
        if c.sample.per_class < 1 or c.train.most < 0:
            raise ValueError(
                "sample.per_class is at least 1 and train.most 0 (all) or more: without outliers there is nothing to learn."
            )
        for name in SHARES:
            if not 0 <= (share := getattr(c.train, name)) <= 1:
                raise ValueError(f"train.{name} lies between 0 and 1, and not at {share:g}.")
        if c.train.ratio < 0 or (c.train.ratio == 0 and make_loss(c.train).outliers):
            raise ValueError(
                f"train.ratio is above 0 where the loss needs outliers, and never below 0; not {c.train.ratio:g}."
            )
        if c.decode.output not in OUTPUTS:
            raise ValueError(f"decode.output is {' or '.join(OUTPUTS)}, not {c.decode.output!r}.")
        if self.latents and self.sampler.kind != "outlier":
            raise ValueError("Inliers are trained on as images; only outliers may be latents.")
        if c.train.path != NO_ADAPTER:
            registry.get("latent_adapters", c.train.path)
        if c.train.teacher:
            self._teacher(0)
        registry.make_all("detectors", c.evaluate.detectors, c.evaluate.detector_options)
        for name in (c.align.backbone, c.train.backbone):
            backbone(name, 2)
        for optimisation in (c.align.optimisation, c.train.optimisation):
            autocast(optimisation.precision, self.device)
        if c.decode.format not in FORMATS:
            raise ValueError(f"decode.format is {', '.join(FORMATS)}, not {c.decode.format!r}.")
        if c.decode.prompt.count("{}") != 1:
            raise ValueError(
                f"decode.prompt needs {{}} once, where the class name goes: {c.decode.prompt!r}."
            )
        if min(c.evaluate.ood_ratio, c.evaluate.n_corrupted) < 0:
            raise ValueError("evaluate.ood_ratio and evaluate.n_corrupted are 0 or more.")
        if not 0 < c.evaluate.alpha < 1 or not 0 <= c.evaluate.confidence < 1:
            raise ValueError(
                "evaluate.alpha lies between 0 and 1; and so does evaluate.confidence, or it is 0."
            )
        _ = self.book, self.given.ood, self.given.shifted

    # What comes out ----------------------------------------------------------------------------------------------------------

    @cached_property
    def encoder(self) -> AlignedEncoder:
        model = encoder(self.book, self.config.align, self.config.seed)
        model.load_state_dict(load_tensors(self.run / "align" / "encoder.safetensors"))
        return model.to(self.device)

    @cached_property
    def features(self) -> Features:
        t = load_tensors(self.run / "features" / "features.safetensors")
        return Features(z_ND=t["z_ND"], y_N=t["y_N"], index_N=t["index_N"], encoder=self.hash_of("align"))

    @cached_property
    def outliers(self) -> SampledVectors:
        t = load_tensors(self.run / "outliers" / "outliers.safetensors")
        return SampledVectors(**t, kind=self.sampler.kind, space=self.book.space)

    @cached_property
    def drawing(self) -> GeneratedFiles:
        """The files of what is imagined, images or latents."""
        return drawing(self.config.decode, self.outliers, self.decoder, self.run.path)

    @property
    def latents(self) -> bool:
        """Whether what is imagined stays latents."""
        return self.config.decode.output == "latents"

    @property
    def learns_path(self) -> bool:
        """Whether latents reach the classifier by a path that learns before it does."""
        t = self.config.train
        return (
            self.latents
            and t.path != NO_ADAPTER
            and hasattr(registry.get("latent_adapters", t.path), "learn")
        )

    def imagined_pictures(self, rows: list[int]) -> Tensor:
        """Images (B, 3, H, W) uint8 of imagined rows, whether they were decoded or not."""
        if self.latents:
            return self.decoder.pictures(
                latent_rows(list(dict.fromkeys(self.drawing.files)))(torch.tensor(rows))
            )
        return self.imagined.batch(rows)

    @cached_property
    def imagined(self) -> Images:
        """All decoded vectors, in the order of their rows, labelled with the class they were sampled around."""
        images = from_files(
            "imagined", self.drawing.files, self.outliers.y_M.tolist(), self.book.names, self.config.size
        )
        if len(images) != len(self.outliers):
            raise DataError(
                f"Imagined images are missing or damaged. Mend them with: oodream decode {self.run.path} --verify"
            )
        return images

    @cached_property
    def reconstructed(self) -> tuple[Images, Images]:
        """VAE reconstructions of a share of the training images, and of test images."""
        return self._stored("reconstructed-train"), self._stored("reconstructed-test")

    def _stored(self, name: str) -> Images:
        t = load_tensors(self.run / "images" / "reconstructed" / f"{name}.safetensors")
        return from_array(name, t["images"], t["labels"], self.book.names)

    @cached_property
    def kept(self) -> Tensor:
        """True (M,) for imagined images that stay; all latents do, for the filters look at images."""
        if self.latents:
            return torch.ones(len(self.outliers), dtype=torch.bool)
        return load_tensors(self.run / "filter" / "kept.safetensors")["kept"].bool()

    def classifier(self, kind: str, seed: int) -> Classifier:
        """A trained classifier of this run, on the device."""
        found = load_classifier(self.run / "classifier" / f"{kind}-s{seed}")
        found.network.to(self.device)
        return found

    # Stages ------------------------------------------------------------------------------------------------------------------

    def hash_of(self, stage: str) -> str:
        """The hash of a stage's inputs and so, recursively, of all that it was made from."""
        return hashed(self.stages[stage].inputs)

    @cached_property
    def stages(self) -> dict[str, Stage]:
        c, options = self.config, to_json(self.config)
        found: dict[str, Stage] = {}
        self.__dict__["stages"] = found  # hash_of looks at the stages before

        def add(
            name: str,
            work: Callable[[Path], Json],
            after: Sequence[str] = (),
            shared: bool = False,
            **inputs: Any,
        ) -> None:
            found[name] = Stage(
                name, {**inputs, "after": {stage: self.hash_of(stage) for stage in after}}, work, shared
            )

        train_images, test_images = (images.fingerprint() for images in self.given.data)
        for verb, training in (("align", c.align), ("train", c.train)):
            options[verb]["init"] = initial_weights_hash(training.backbone, training.init)
        if c.train.teacher:
            options["train"]["teacher"] = initial_weights_hash(c.train.backbone, c.train.teacher)
        regime = {
            key: value
            for key, value in options["train"].items()
            if key in ("backbone", "init", "optimisation")
        }
        plain = replace(c.train, loss=("cross_entropy",), loss_options={})
        if c.train.init == PLAIN:
            plain, regime["init"] = replace(plain, init=""), initial_weights_hash(c.train.backbone, "")
        add(
            "classes",
            self._classes,
            names=list(self.book.names),
            prompts=list(self.book.prompts),
            space=self.book.space,
        )
        add(
            "align",
            self._align,
            ["classes"],
            shared=True,
            align=options["align"],
            images=train_images,
            seed=c.seed,
        )
        add("features", self._features, ["align"])
        add("outliers", self._outliers, ["features"], sample=options["sample"], seed=c.seed)
        made = imagined(c.decode)
        add(made, self._imagined, ["outliers"], shared=True, decode=options["decode"])
        add("paths", self._paths, ["outliers"], decode=options["decode"], seed=c.seed)
        if self.latents:
            add("latents/known", self._known_latents, ["classes"], images=train_images, seed=c.seed)
            if self.learns_path:
                how = {key: options["train"][key] for key in ("path", "adapter_options")}
                add("latents/path", self._path, ["latents/known"], seed=c.seed, **how)
        add("images/reconstructed", self._reconstructed, ["classes"], images=train_images, test=test_images,
            share=c.train.reconstruction_frac)  # fmt: skip
        for seed in range(c.seeds):
            work = partial(self._train, PLAIN, seed, plain)
            add(
                f"classifier/{PLAIN}-s{seed}",
                work,
                ["images/reconstructed"],
                shared=True,
                train=regime,
                seed=seed,
            )
        if not self.latents:
            threshold = getattr(c.train, FILTERS[self.sampler.kind][1])
            add("filter", self._filter, [made, f"classifier/{PLAIN}-s0"], threshold=threshold)
        for seed in range(c.seeds):
            work = partial(self._train, DREAM, seed, c.train)
            after = [*([made, "latents/known"] if self.latents else ["filter"]), "images/reconstructed"]
            after += ["latents/path"] if self.learns_path else []
            if make_loss(c.train).teacher or c.train.init == PLAIN:
                after.append(f"classifier/{PLAIN}-s{seed}")
            add(f"classifier/{DREAM}-s{seed}", work, after, shared=True, train=options["train"], seed=seed)
        trained = [name for name in found if name.startswith("classifier/")]
        sets = {name: [group, images.fingerprint()] for name, (group, images) in self.given.ood.items()}
        promise = {key: options["evaluate"].pop(key) for key in ("alpha", "confidence")}
        add("scores", self._scores, trained, evaluate=options["evaluate"], sets=sets, seed=c.seed)
        add("guard", self._guard, [f"classifier/{DREAM}-s0"], promise=promise, detector=c.evaluate.detectors[0],
            options=c.evaluate.detector_options, images=train_images, test=test_images, seed=c.seed)  # fmt: skip
        shifts = {name: images.fingerprint() for name, images in self.given.shifted.items()}
        corruptions = {
            "kinds": list(CORRUPTIONS),
            "severities": SEVERITIES,
            "of": test_images,
            "n": c.evaluate.n_corrupted,
        }
        add("shifts", self._shifts, trained, sets=shifts, corruptions=corruptions, seed=c.seed)
        add("audit", self._audit, ["scores"], seed=c.seed)
        add("report", self._report, ["scores", "guard", "shifts", "audit"])
        return found

    def _classes(self, folder: Path) -> Json:
        book = self.book
        save_tensors(folder / "tokens.safetensors", {"tokens_CD": book.tokens_CD}, {"space": book.space})
        self._decoder.tile = self._decoder.tile or self._decoder.largest_tile()
        told = {"names": book.names, "prompts": book.prompts, "space": book.space, "tile": self.decoder.tile}
        write_json(folder / "classes.json", told)
        return {"classes": len(book.names), "width": book.tokens_CD.shape[1]}

    def _align(self, folder: Path) -> Json:
        state = folder / "resume.state"
        model, log = align(
            self.given.data[0], self.book, self.config.align, self.config.seed, self.device, state
        )
        if not is_main():
            return {}
        save_tensors(folder / "encoder.safetensors", model.state_dict())
        self._finish_training(folder, log)
        predicted = outputs(model, self.given.data[1], self.device).logits_BC.argmax(1)
        return {"accuracy": _share(predicted == self.given.data[1].labels)}

    def _features(self, folder: Path) -> Json:
        images, c = self.given.data[0], self.config
        if c.align.augmented_features:
            images = views(images, c.align.optimisation, c.seed)
        f = embed(self.encoder, images, self.device, self.hash_of("align"))
        save_tensors(folder / "features.safetensors", {"z_ND": f.z_ND, "y_N": f.y_N, "index_N": f.index_N})
        own = (f.z_ND * nn.functional.normalize(self.book.tokens_CD, dim=1)[f.y_N]).sum(1)
        return {"features": len(f.y_N), "mean_cosine_to_class": round(own.mean().item(), 4)}

    def _outliers(self, folder: Path) -> Json:
        o = sample(self.features, self.book, self.config.sample, self.config.seed)
        names = ("z_MD", "y_M", "anchor_M", "knn_M", "seed_M")
        save_tensors(folder / "outliers.safetensors", {name: getattr(o, name) for name in names})
        anchors = (o.z_MD * self.features.z_ND[o.anchor_M]).sum(1)
        return {"outliers": len(o), "mean_cosine_to_anchor": round(anchors.mean().item(), 4)}

    def _imagined(self, folder: Path) -> Json:
        drawing, words = self.drawing, self.decoder.text.neighbours(self.outliers.z_MD)
        drawing.draw(drawing.missing(current_shard()))
        barrier(self.device)
        if not is_main():
            return {}
        describe = partial(
            provenance,
            self.outliers,
            self.features,
            self.book,
            self.given.data[0].files,
            self.decoder.fingerprint,
        )
        hashes = {file: drawing.hash(file) for file in dict.fromkeys(drawing.files)}
        lines = (
            {
                "file_name": str(file.relative_to(folder)),
                **describe(m),
                "words": words[m],
                "hash": hashes[file],
            }
            for m, file in enumerate(drawing.files)
        )
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        write_bytes(folder / "metadata.jsonl", f"{text}\n".encode())
        return {self.config.decode.output: len(drawing.files)}

    def _paths(self, folder: Path) -> Json:
        """What the decoder makes of every class's plain prompt; and two strips for each of the first classes.

        These lead from T(y) to its first outlier, and away from that outlier's anchor.
        """
        prompts = [prompt for prompt in self.book.prompts for _ in range(SAMPLES_PER_CLASS)]
        drawn = self.decoder.plain(prompts, torch.arange(len(prompts)) + self.config.seed)
        save_tensors(folder / "plain.safetensors", {"images": drawn.unflatten(0, (len(self.book.names), -1))})
        tokens, o, walks = self.book.tokens_CD, self.outliers, {}
        for c in range(min(PATHS, len(tokens))):
            m = int((o.y_M == c).nonzero()[0, 0])
            walks[f"between-{c}"] = between(tokens[c], o.z_MD[m], len(COSINES)), c, m
            walks[f"away-{c}"] = away(self.features.z_ND[o.anchor_M[m]], c), c, m
        z, y, seed = zip(
            *((z, torch.tensor([c] * len(z)), o.seed_M[m].expand(len(z))) for z, c, m in walks.values()),
            strict=True,
        )
        images = self.decoder(torch.cat(z), torch.cat(y), torch.cat(seed)).images_B3HW
        assert images is not None
        strips = dict(zip(walks, images.split(len(COSINES)), strict=True))
        save_tensors(folder / "paths.safetensors", strips)
        return {"strips": len(strips)}

    def _reconstructed(self, folder: Path) -> Json:
        train_images, test_images = self.given.data
        g = torch.Generator().manual_seed(self.config.seed)
        n = min(
            round(self.config.train.reconstruction_frac * len(train_images)),
            IN_MEMORY // (3 * self.config.size**2),
        )
        chosen = {"train": (train_images, n), "test": (test_images, min(CONTROL_IMAGES, len(test_images)))}
        for name, (images, count) in chosen.items():
            rows = torch.randperm(len(images), generator=g)[:count].sort().values
            pixels = [self.decoder.reconstruct(images.batch(part)) for part in rows.split(1024)]
            file = folder / f"reconstructed-{name}.safetensors"
            save_tensors(file, {"images": torch.cat(pixels), "labels": images.labels[rows], "rows": rows})
        return {name: count for name, (_, count) in chosen.items()}

    def _known_latents(self, folder: Path) -> Json:
        """The latents of all ID training images, in shards that a killed run goes on from."""
        images = self.given.data[0]
        files = [
            folder / f"latents-{start // SHARD:05}.safetensors" for start in range(0, len(images), SHARD)
        ]
        for i, file in enumerate(progress(files, total=len(files), what="encode", unit="shard")):
            if not file.exists():
                rows = range(i * SHARD, min((i + 1) * SHARD, len(images)))
                save_tensors(file, {"latents_BFHW": self.decoder.encode(images.batch(rows))})
        g = generator(self.config.seed, "coloured")
        pixels = coloured(images.batch(torch.randperm(len(images), generator=g)[:COLOURED]), g)
        save_tensors(
            folder / "coloured.safetensors", {"images": pixels, "latents": self.decoder.encode(pixels)}
        )
        return {"latents": len(images)}

    def _path(self, folder: Path) -> Json:
        data = Mixture(id=self.given.data[0], bank=self._bank(torch.arange(0)))
        save_tensors(
            folder / "path.safetensors", learn_adapter(data, self.config.train, self.config.seed, self.device)
        )
        return {}

    def _bank(self, kept: Tensor) -> LatentBank:
        """The latents for training; ValueError for those of another shape than the decoder's."""
        folder = self.run / "latents" / "known"
        files, pairs = (
            sorted(folder.glob("latents-*.safetensors")),
            load_tensors(folder / "coloured.safetensors"),
        )
        known, ood = latent_rows(files), latent_rows(list(dict.fromkeys(self.drawing.files)))(kept)
        share = 0.0 if self.config.train.path == NO_ADAPTER else self.config.train.latent_frac
        if (here := known(torch.tensor([0])).shape[1:]) != ood.shape[1:]:
            raise ValueError(
                f"Outlier latents have the shape {tuple(ood.shape[1:])}, those of known images {tuple(here)}."
            )
        both = pairs["images"], pairs["latents"]
        return LatentBank(
            known=known, coloured=both, ood_MFHW=ood, share=share, least=self.config.train.min_outlier_weight
        )

    def _teacher(self, seed: int) -> nn.Module:
        """The classifier to distil from; ValueError unless it has the same classes in the same order."""
        if not self.config.train.teacher:
            return self.classifier(PLAIN, seed).network
        found = load_classifier(Path(self.config.train.teacher), plugins=False)
        if found.names != self.book.names:
            raise ValueError(
                f"The teacher {self.config.train.teacher} knows {len(found.names)} classes ({listed(found.names)}), and this run "
                f"has {len(self.book.names)} ({listed(self.book.names)}). They must be the same, in the same order."
            )
        return found.network

    def _train(self, kind: str, seed: int, config: TrainConfig, folder: Path) -> Json:
        mixture, teacher = Mixture(id=self.given.data[0]), None
        if kind == DREAM:
            mixture = self._mixture(config)
            teacher = self._teacher(seed) if make_loss(config).teacher else None
            if config.init == PLAIN:
                config = replace(config, init=str(self.run / "classifier" / f"{PLAIN}-s{seed}"))
        what = f"train {kind} (seed {seed})"
        learnt = (
            load_tensors(self.run / "latents" / "path" / "path.safetensors")
            if kind == DREAM and self.learns_path
            else None
        )
        network, loss, log = train(
            mixture, config, seed, self.device, folder / "resume.state", what, teacher, learnt
        )
        if not is_main():
            return {}
        test, control = (
            outputs(network, images, self.device) for images in (self.given.data[1], self.reconstructed[1])
        )
        energy = -test.logits_BC.logsumexp(1)
        own = registry.own_options("losses", config.loss, config.loss_options)
        told = {"backbone": config.backbone, "loss": config.loss[0], "loss_options": own[config.loss[0]]}
        Classifier(
            network=network,
            loss=first(loss),
            names=self.book.names,
            size=self.config.size,
            threshold=limit(energy),
            told=told,
        ).save(folder)
        self._finish_training(folder, log)
        parameters, flop = cost(network, self.config.size)
        return {
            "accuracy": _share(test.logits_BC.argmax(1) == self.given.data[1].labels),
            "reconstructed_id_auroc": round(auroc(energy, -control.logits_BC.logsumexp(1)), 4),
            "parameters": parameters,
            "mflop_an_image": round(flop / 1e6, 1),
        }

    def _mixture(self, config: TrainConfig) -> Mixture:
        """What the regularised classifier is trained on."""
        kept = self.kept.nonzero()[:, 0]
        if len(kept) == 0:
            what = {
                "outlier": "further from (a lower cosine) or raise",
                "inlier": "nearer to (a higher cosine) or lower",
            }
            kind, threshold = self.sampler.kind, FILTERS[self.sampler.kind][1]
            raise ValueError(f"The filter kept no {kind}: sample {what[kind]} {threshold}.")
        kept = kept[: config.most or None]
        inliers, o = self.sampler.kind == "inlier", self.outliers
        tokens = nn.functional.normalize(self.book.tokens_CD, dim=1)
        return Mixture(
            id=self.given.data[0],
            reconstructed=self.reconstructed[0] if config.reconstruction_frac > 0 else None,
            share=config.reconstruction_frac,
            inliers=self.imagined.subset(kept) if inliers else None,
            weight=config.inlier_weight,
            outliers=None if inliers or self.latents else self.imagined.subset(kept),
            bank=self._bank(kept) if self.latents else None,
            drawn_from=None
            if inliers
            else DrawnFrom(vector_MD=o.z_MD[kept], near_M=o.y_M[kept], tokens_CD=tokens),
            ratio=config.ratio,
            grey=config.grey * gray_fraction(self.given.data[0]),
            varied=0.0 if inliers else config.varied,
        )

    def _finish_training(self, folder: Path, log: list[dict[str, float]]) -> None:
        write_json(folder / "log.json", log)
        (folder / "resume.state").unlink(missing_ok=True)

    def _filter(self, folder: Path) -> Json:
        name, threshold = FILTERS[self.sampler.kind]
        options = {
            "classifier": self.classifier(PLAIN, 0).network,
            "threshold": getattr(self.config.train, threshold),
        }
        stays = registry.make("filters", name, **options)
        kept = torch.cat([stays(x, y) for x, y in self.imagined.batches(512)])
        save_tensors(folder / "kept.safetensors", {"kept": kept})
        per_class = {
            name: int((kept & (self.imagined.labels == c)).sum()) for c, name in enumerate(self.book.names)
        }
        return {
            "drawn": len(kept),
            "kept": int(kept.sum()),
            "reason": stays.reason,
            "kept_per_class": per_class,
        }

    def _scores(self, folder: Path) -> Json:
        c, lines, headline = self.config, [], {}
        known, test = self.given.data
        for kind in (PLAIN, DREAM):
            for seed in range(c.seeds):
                found = self.classifier(kind, seed)
                measured = evaluate(
                    found.network,
                    registry.make_all("detectors", c.evaluate.detectors, c.evaluate.detector_options),
                    fit=known,
                    test=test,
                    ood={**self.given.ood, CONTROL: ("control", self.reconstructed[1])},
                    classifier=kind,
                    seed=seed,
                    resamples=c.evaluate.resamples,
                    nearest=c.evaluate.nearest,
                    loss=found.loss,
                    cache=self.run / "cache",
                    device=self.device,
                )
                lines += [row_to_json(row) for row in measured.rows]
                for detector, by_set in measured.scores.items():
                    save_tensors(folder / f"{kind}-s{seed}-{detector}.safetensors", by_set)
                headline[f"{kind}-s{seed}"] = next(
                    {"fpr95_id": row.fpr95_id, "auroc": row.auroc, "accuracy": row.accuracy}
                    for row in measured.rows if row.group == "all" and row.detector == c.evaluate.detectors[0]
                )  # fmt: skip
        write_bytes(self.run / "results.jsonl", ("\n".join(lines) + "\n").encode())
        return headline

    def _guard(self, folder: Path) -> Json:
        """A guard of the first regularised classifier, with the first detector.

        Its threshold comes from the known test images, which no training has seen. The numbers in `results.jsonl` do not use it:
        they compare scores over all thresholds, or at those of their own sets.
        """
        c, (known, test) = self.config.evaluate, self.given.data
        alpha, confidence = c.alpha, c.confidence or None
        if len(test) < (needed := least(alpha, confidence)):
            return {
                "none": f"it takes {needed} known test images to promise {alpha:g}, and there are {len(test)}"
            }
        detector = next(iter(registry.make_all("detectors", c.detectors, c.detector_options).values()))
        found = self.classifier(DREAM, 0)
        guard = Guard.calibrate(
            found, detector, known, test, alpha, confidence, self.device, self.run / "cache"
        )
        guard.save(folder, f"classifier/{DREAM}-s0")
        seen = outputs(
            found.network, test, self.device, probes=probes_of([guard.detector]), cache=self.run / "cache"
        )
        half = other_half(guard.detector.score(seen), alpha, confidence, self.config.seed)
        return {"threshold": round(guard.threshold, 4), "promised": str(guard.promise), "other_half": half}

    def _shifts(self, folder: Path) -> Json:
        arms = [(kind, seed) for kind in (PLAIN, DREAM) for seed in range(self.config.seeds)]
        classifiers = {arm: self.classifier(*arm) for arm in arms}
        found: dict[tuple[str, int], list[ShiftRow]] = {arm: [] for arm in arms}
        for name, severity, images in self.given.disturbed():
            for (kind, seed), judge in classifiers.items():
                seen = outputs(judge.network, images, self.device)
                found[kind, seed].append(
                    accuracy(
                        seen, images.labels, judge.threshold, classifier=kind, seed=seed, dataset=name, severity=severity
                    )
                )  # fmt: skip
        lines = [row_to_json(row) for rows in found.values() for row in rows]
        write_bytes(folder / "accuracy.jsonl", "".join(f"{line}\n" for line in lines).encode())
        return {
            f"{kind}-s{seed}": round(fmean(row.accuracy for row in rows), 4)
            for (kind, seed), rows in found.items()
            if rows
        }

    def _audit(self, folder: Path) -> Json:
        from ..audit.finding import to_json
        from .audit import audited

        done = audited(self.given, self.run)
        write_json(folder / "audit.json", to_json(done))
        return {"problems": len(done["problem"]), "warnings": len(done["warning"])}

    def _report(self, folder: Path) -> Json:
        from ..report.page import report
        from .present import present

        page = report(present(self))
        write_bytes(folder / "index.html", page.encode())
        return {"bytes": len(page)}

    # Running -----------------------------------------------------------------------------------------------------------------

    def go(self, say: Callable[[str], None], until: str = "report", redo: Sequence[str] = ()) -> None:
        """Runs the stages up to `until` that are not finished.

        `redo` names stages to make afresh with all that follows; "changed" stands for those whose inputs are no longer the same.
        """
        with self.run.locked() if is_main() else nullcontext():
            self.check()
            self._prepare(until, redo)
            barrier(self.device)  # the first process is done removing
            for name in self._until(until):
                self._stage(self.stages[name], say)

    def _until(self, name: str) -> list[str]:
        """The stages up to `name`, or up to the last one in the folder `name`."""
        order = list(self.stages)
        return order[
            : 1 + max(i for i, stage in enumerate(order) if stage == name or stage.startswith(f"{name}/"))
        ]

    def _stage(self, stage: Stage, say: Callable[[str], None]) -> None:
        if self.run.is_done(stage.name, stage.inputs):
            if is_main():
                say(f"  {stage.name:24} done before")
            return
        began = time.monotonic()
        folder = self.run.begin(stage.name, stage.inputs) if is_main() else self.run / stage.name
        barrier(self.device)
        with Watch(self.device) as memory:
            summary = stage.work(folder) if stage.shared or is_main() else {}
        barrier(self.device)
        if is_main():
            self.run.finish(
                stage.name, stage.inputs, time.monotonic() - began, {**summary, "memory": memory.most}
            )
            say(f"  {stage.name:24} {time.monotonic() - began:6.1f} s   {_in_words(summary)}")
        barrier(self.device)

    def _prepare(self, until: str, redo: Sequence[str]) -> None:
        """The run folder as the stages need it: refused, or with what is to be made afresh removed."""
        order = list(self.stages)
        for name in [*redo, until]:
            if name != CHANGED and not any(stage == name or stage.startswith(f"{name}/") for stage in order):
                raise ValueError(f"There is no stage {name!r}. There are: {', '.join(order)}.")
        if not is_main():
            return
        if CHANGED in redo:
            for name in reversed(order):
                if self.run.changed(name, self.stages[name].inputs):
                    self.run.remove(name)
        if named := [
            i
            for i, stage in enumerate(order)
            if any(stage == name or stage.startswith(f"{name}/") for name in redo)
        ]:
            for name in reversed(order[min(named) :]):
                self.run.remove(name)
        for name in order:
            self.run.is_done(name, self.stages[name].inputs)
        write_json(self.run / "run.json", self.describe())

    def describe(self) -> Json:
        """What `run.json` holds: the resolved configuration and what it ran on."""
        from .. import __version__

        versions = {"oodream": __version__, "torch": torch.__version__}
        return {
            "command": self.command, "config": to_json(self.config), "device": str(self.device), "versions": versions,
            "git": git_state(),
        }  # fmt: skip


def git_state() -> str | None:
    """The commit this code stands at, with "+changes" where files differ from it; None where it is not a checkout."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # an installed package may lie inside a stranger's repository
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def initial_weights_hash(name: str, init: str) -> str:
    """What a training begins with: a hash of the weights in the file `init`, or of the published ones of a hub's network."""
    if init in (SCRATCH, PLAIN) or not (init or name.partition(":")[0] in ADAPTERS):
        return init
    digest = hashlib.blake2b(digest_size=16)
    if init:
        digest.update(weights_file(Path(init)).read_bytes())
    else:
        for key, tensor in sorted(backbone(name, 2, pretrained=True).state_dict().items()):
            if not key.startswith("head."):
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def gray_fraction(images: Images, n: int = 1000) -> float:
    """The share of images without colour, among the first n."""
    x = images.batch(range(min(n, len(images))))
    return _share((x == x[:, :1]).flatten(1).all(1))


def _share(hits: Tensor) -> float:
    return round(hits.float().mean().item(), 4)


def _in_words(summary: Json) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key, value in summary.items()
        if not isinstance(value, dict) and key != "memory"
    )
