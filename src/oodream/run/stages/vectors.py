"""Stages from class names to sampled vectors: classes, align, features, vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.distributed import is_main
from ...core.errors import listed
from ...core.files import write_json
from ...core.tensors import save_tensors
from ...core.types import Json
from ...models.inference import Extractor
from ...synthesis.align import align, augmented_views, embed
from ...synthesis.sample import sample
from ..job import Job
from ._training import fraction, save_log

__all__ = ["align_encoder", "embed_features", "list_classes", "sample_vectors"]


def list_classes(job: Job) -> Json:
    """The class vectors, names and prompts, and how many images are decoded together."""
    book, decoder = job.book, job.decoder
    decoder.tile = decoder.tile or decoder.largest_tile()
    save_tensors(job.layout.class_vectors, {"tokens_CD": book.tokens_CD})
    value = {"names": book.names, "prompts": book.prompts, "space": book.space, "tile": decoder.tile}
    write_json(job.layout.classes, value)
    return {"classes": len(book.names), "width": book.tokens_CD.shape[1]}


def align_encoder(job: Job) -> Json:
    """The image encoder into the text's token space."""
    state = job.layout.resume_state("align")
    model, log = align(job.inputs.train, job.book, job.config.align, job.config.seed, job.device, state)
    if not is_main():
        return {}
    save_tensors(job.layout.encoder, model.state_dict())
    save_log(job, "align", log)
    predicted_N = Extractor(model, device=job.device)(job.inputs.test).logits_BC.argmax(1)
    return {"accuracy": fraction(predicted_N == job.inputs.test.labels)}


def embed_features(job: Job) -> Json:
    """The embeddings of the ID training images."""
    images, c = job.inputs.train, job.config
    if c.align.augmented_features:
        images = augmented_views(images, c.align.optimisation, c.seed)
    features = embed(job.run.encoder, images, job.device)
    tensors = {"z_ND": features.z_ND, "y_N": features.y_N, "index_N": features.index_N}
    save_tensors(job.layout.features, tensors)
    cosine_N = (features.z_ND * normalize(job.book.tokens_CD, dim=1)[features.y_N]).sum(1)
    return {"features": len(features.y_N), "mean_cosine_to_class": round(cosine_N.mean().item(), 4)}


def sample_vectors(job: Job) -> Json:
    """Vectors around the features."""
    features = job.run.features
    vectors = sample(features, job.book, job.config.sample, job.config.seed, job.words)
    save_tensors(job.layout.vectors, {k: x for k, x in vars(vectors).items() if isinstance(x, Tensor)})
    parts = zip(vectors.z_MD.split(1024), vectors.anchor_M.split(1024), strict=True)
    cosine_M = torch.cat([(z_BD * features.z_ND[anchor_B]).sum(1) for z_BD, anchor_B in parts])
    mean = round(cosine_M.mean().item(), 4)
    words = (
        {"words": len(job.sampled_words), "such_as": listed(job.sampled_words)} if job.sampled_words else {}
    )
    return {f"{vectors.kind}s": len(vectors), "mean_cosine_to_anchor": mean, **words}
