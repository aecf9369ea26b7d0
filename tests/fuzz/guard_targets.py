"""Targets: what somebody hands over. Guards in folders and graphs, networks in files, decoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from oodream.core.files import ASSETS
from oodream.core.tensors import load_tensors
from oodream.deploy.guard import Guard
from oodream.models.classifier import load_classifier
from oodream.models.opened import full_name
from oodream.models.serialized import Onnx
from oodream.runtime import Guard as GraphGuard
from oodream.runtime.description import KEY, described
from oodream.runtime.graph import Graph
from oodream.synthesis.names import known_to
from oodream.synthesis.pipeline import check_folder

from .mutate import mutate_bytes, mutate_tensors, mutate_text, prefixed
from .small import SIDE, classifier, description, graph, guard
from .target import Read, target

__all__ = ["answers"]

Prepared = tuple[Sequence[bytes], Read]
PICTURE = np.zeros((SIDE, SIDE, 3), np.uint8)


def answers(accepted: Guard | GraphGuard) -> object:
    """What an accepted guard must be able to do."""
    prediction = accepted.predict(PICTURE)
    assert prediction.p_value is None or 0 <= prediction.p_value <= 1
    assert np.isfinite(accepted.threshold_C).all(), "a guard without a threshold flags nothing"
    str(accepted.guarantee)
    accepted.drift([0.0, 1.0])
    return prediction


@target("guards", short=15)
def _guards(folder: Path) -> Prepared:
    """A guard's config.json."""
    home = folder / "guard"
    guard().save(home)

    def read(data: bytes) -> object:
        (home / "config.json").write_bytes(data)
        return answers(Guard.load(home))

    return [(home / "config.json").read_bytes()], read


@target("guard tensors", mutate_tensors, short=15)
def _guard_tensors(folder: Path) -> Prepared:
    """A guard's guard.safetensors."""
    home = folder / "guard"
    guard().save(home)

    def read(data: bytes) -> object:
        (home / "guard.safetensors").write_bytes(data)
        return answers(Guard.load(home))

    return [(home / "guard.safetensors").read_bytes()], read


@target("classifiers", short=15)
def _classifiers(folder: Path) -> Prepared:
    """A classifier's classifier.json."""
    classifier().save(folder / "c")

    def read(data: bytes) -> object:
        (folder / "c" / "classifier.json").write_bytes(data)
        opened = load_classifier(folder / "c", plugins=False)
        assert len(set(opened.names)) == len(opened.names)
        assert np.isfinite(opened.threshold)
        return opened

    return [(folder / "c" / "classifier.json").read_bytes()], read


@dataclass
class _Constant(Graph):
    """A graph that gives the same for each picture, for a description alone."""

    classes: int
    text: str | None = None

    def __call__(self, images_B3HW):
        n = len(images_B3HW)
        return {"logits": np.zeros((n, self.classes), np.float32), "score": np.zeros(n)}


@target("descriptions")
def _descriptions(folder: Path) -> Prepared:
    """The text in a graph's metadata, by which its guard answers."""

    def read(data: bytes) -> object:
        parts = described(data.decode("utf-8", "replace"))
        if parts["size"] > 64 or len(parts["names"]) > 1000:
            return None
        made = GraphGuard(
            classes=parts.pop("names"), graph=_Constant(classes=len(parts.get("names", ())) or 3), **parts
        )
        return answers(made) if len(made.names) == 3 else made.threshold_C

    per_class = json.loads(description())
    per_class["guarantee"]["too_few"] = {"cat": 3}
    return [description().encode(), json.dumps(per_class).encode()], read


@target("graphs", mutate_bytes)
def _graphs(folder: Path) -> Prepared:
    """An exported guard.onnx."""
    file = folder / "guard.onnx"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return answers(GraphGuard.load(file, threads=1))

    return [graph(description()), graph(description(), external="weights.bin")], read


@target("openvino", short=10)
def _openvino(folder: Path) -> Prepared:
    """A guard.xml, OpenVINO's form of an exported guard."""
    import openvino

    (folder / "guard.onnx").write_bytes(graph(description()))
    model = openvino.convert_model(folder / "guard.onnx")
    model.set_rt_info(description(), KEY)
    openvino.save_model(model, folder / "guard.xml", compress_to_fp16=False)
    file = folder / "guard.xml"
    whole = file.read_bytes()

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return answers(GraphGuard.load(file, threads=1))

    return [whole], read


@target("networks", mutate_bytes)
def _networks(folder: Path) -> Prepared:
    """An ONNX file of somebody's network, and archives that say that they are networks."""
    import io
    import zipfile

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a/archive_format", "x")
    file = folder / "network.onnx"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        family = full_name(str(file)).partition(":")[0]
        return Onnx(file.name, data) if family == "onnx" else family

    return [graph(""), graph("", external="/etc/passwd"), archive.getvalue()], read


@target("tensors", mutate_tensors, short=150)
def _tensors(folder: Path) -> Prepared:
    """Any safetensors file."""
    from safetensors.torch import save

    file = folder / "x.safetensors"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return [tensor.sum() for tensor in load_tensors(file).values()]

    return [save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.uint8)})], read


@target("decoders", prefixed(mutate_text))
def _decoders(folder: Path) -> Prepared:
    """A decoder's files of JSON; the first letter says which one the rest is."""
    home = folder / "decoder"
    shutil.copytree(ASSETS / "decoder", home)
    files = {"m": "model_index.json", "n": "names.json", "s": "scheduler/scheduler_config.json",
             "u": "unet/config.json", "v": "vae/config.json", "t": "text_encoder/config.json"}  # fmt: skip
    whole = {key: (home / name).read_bytes() for key, name in files.items()}

    def read(data: bytes) -> object:
        key = chr(data[0]) if data and chr(data[0]) in files else "m"
        for other, content in whole.items():
            (home / files[other]).write_bytes(data[1:] if other == key else content)
        check_folder(home)
        return known_to(home)

    return [key.encode() + content[:20_000] for key, content in whole.items()], read
