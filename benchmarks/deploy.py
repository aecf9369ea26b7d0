"""A guard's scores from pixels, one picture at a time and 32: by PyTorch, by onnxruntime, by the graph in
8-bit integers and, where it is installed, by OpenVINO, on one thread each.

A ResNet-18 with random weights, energy score, pictures of 48 x 40 pixels that become 32 x 32. The programs
take turns. Times are the processor's, and medians, so that what else the machine does counts for little.

python benchmarks/deploy.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from _guards import new_guard

from oodream.deploy.export import export
from oodream.deploy.quantize import INT8_FILE
from oodream.runtime import Guard as GraphGuard

ROUNDS = 9


def timed(work: Callable[[np.ndarray], object], pictures: np.ndarray) -> float:
    """Seconds of the processor for a call."""
    began = time.process_time()
    work(pictures)
    return time.process_time() - began


def main() -> None:
    torch.set_num_threads(1)
    guard, images = new_guard("resnet18")
    vino = find_spec("openvino") is not None
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "guard"
        export(guard, folder, openvino=vino, int8=images)
        files = {"onnxruntime": "guard.onnx", "onnxruntime, INT8": INT8_FILE}
        files |= {"OpenVINO": "guard.xml"} if vino else {}
        graphs = {name: GraphGuard.load(folder / file, threads=1) for name, file in files.items()}
        sizes = {"PyTorch": (folder / "model.safetensors").stat().st_size}
        for name, file in files.items():
            weights = folder / ("guard.bin" if name == "OpenVINO" else file)
            sizes[name] = weights.stat().st_size
    programs: dict[str, Callable[[np.ndarray], object]] = {"PyTorch": guard.scores}
    programs |= {name: graph.scores for name, graph in graphs.items()}
    pictures = np.random.default_rng(0).integers(0, 256, (32, 40, 48, 3), dtype=np.uint8)
    seconds: dict[tuple[str, int], list[float]] = {(name, n): [] for name in programs for n in (1, 32)}
    for work in programs.values():
        work(pictures)  # warm
    for _ in range(ROUNDS):
        for (name, n), times in seconds.items():
            times.append(timed(programs[name], pictures[:n]))
    one, many = ({name: median(seconds[name, n]) for name in programs} for n in (1, 32))
    print("| program | weights, MB | one picture, ms | times as fast | pictures/s, of 32 | times as fast |")
    print("|---|---|---|---|---|---|")
    for name in programs:
        print(
            f"| {name} | {sizes[name] / 1e6:.1f} | {1e3 * one[name]:.1f} | {one['PyTorch'] / one[name]:.2f} "
            f"| {32 / many[name]:.0f} | {many['PyTorch'] / many[name]:.2f} |"
        )
    if not vino:
        print("OpenVINO is not installed here: pip install '.[openvino]' in a clone")


if __name__ == "__main__":
    main()
