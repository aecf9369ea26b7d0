"""A guard's scores from pixels, one picture at a time and 32: by PyTorch, by onnxruntime, by the graph in
8-bit integers and, where it is installed, by OpenVINO, on one thread each.

A ResNet-18 with random weights, energy score, pictures of 48 x 40 pixels that become 32 x 32. The programs
take turns. Times are the processor's, and medians, so that what else the machine does counts for little.

python benchmarks/deploy.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from _bench import Row, Setting, alone, flops, turns
from _guards import SIZE, new_guard

from oodream.deploy.export import export
from oodream.deploy.quantize import INT8_FILE
from oodream.models.inference import cost
from oodream.runtime import Guard as GraphGuard

__all__ = ["LINES"]


def deployed(setting: Setting) -> Iterator[Row]:
    guard, images = new_guard("resnet18")
    vino, folder = find_spec("openvino") is not None, setting.room / "guard"
    export(guard, folder, openvino=vino, int8=images)
    files = {"onnxruntime": "guard.onnx", "onnxruntime, INT8": INT8_FILE}
    files |= {"OpenVINO": "guard.xml"} if vino else {}
    sizes = {"PyTorch": (folder / "model.safetensors").stat().st_size}
    programs: dict[str, Callable[[np.ndarray], object]] = {"PyTorch": guard.scores}
    for name, file in files.items():
        programs[name] = GraphGuard.load(folder / file, threads=1).scores
        sizes[name] = (folder / ("guard.bin" if name == "OpenVINO" else file)).stat().st_size
    pictures = np.random.default_rng(0).integers(0, 256, (32, 40, 48, 3), dtype=np.uint8)
    cpu, rounds = torch.device("cpu"), setting.pick(9, 9, 1)
    for work in programs.values():
        work(pictures)  # warm
    one, many = (
        turns({name: partial(work, pictures[:n]) for name, work in programs.items()}, rounds, cpu)
        for n in (1, 32)
    )
    operations = cost(guard.classifier.network, SIZE)[1]
    for name in programs:
        yield Row(
            what=f"a guard's scores from pixels, ResNet-18, 32 px, {name}", value=32 / many[name],
            unit="pictures a second, 32 at once", reference="PyTorch", ratio=many["PyTorch"] / many[name],
            floor=f"{operations / 1e9:.3g} GFLOP a picture, as float32 matrix products",
            share=32 / many[name] * operations / flops(cpu, torch.float32),
            more=f"one picture: {1e3 * one[name]:.1f} ms, {one['PyTorch'] / one[name]:.2f} times; "
            f"weights {sizes[name] / 1e6:.1f} MB",
        )  # fmt: skip


LINES = {"deployed": deployed}

if __name__ == "__main__":
    alone(LINES)
