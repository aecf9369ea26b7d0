"""Every way to run a guard, on the same pictures: how many a second of the processor answers, from files on.

A ResNet-18 of 32 pixels with random weights, energy score, JPEG files of 640 x 480 pixels. One process
answers, and one thread runs the network. The ways take turns, each alone and after some pictures to warm it.
The time is the processor's, of all processes of a way, a server's clients and a cluster's own work among
them, so that what else the machine does counts for little. Medians over the turns. What is not installed is
left out.

python benchmarks/ways.py
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from _bench import Row, Setting, alone
from _guards import new_guard
from PIL import Image
from score import draw
from serve import busy, load, request, server

from oodream import Guard, GuardMap
from oodream.deploy.batch import SPARK_SCHEMA
from oodream.deploy.export import export
from oodream.deploy.quantize import INT8_FILE
from oodream.deploy.resumed import score_to
from oodream.runtime import Guard as GraphGuard

__all__ = ["LINES"]

BATCH, CLIENTS = 32, 32
FEW = 32  # pictures before the time is taken
PREDICT = "`guard.predict`"


@dataclass(frozen=True, kw_only=True)
class Room:
    """A run's guard, exported with its graphs, and pictures."""

    guard: Guard
    folder: Path
    files: Sequence[str]


Work = Callable[[Sequence[str]], object]  # answers the pictures in these files
Way = Callable[[Room], AbstractContextManager[Work]]


@contextmanager
def predict(room: Room) -> Iterator[Work]:
    yield partial(room.guard.predict, batch=BATCH)


@contextmanager
def score(room: Room) -> Iterator[Work]:
    """What `oodream score --out` does."""
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "results.parquet"

        def work(files: Sequence[str]) -> None:
            score_to(table, files, room.guard)
            table.unlink()

        yield work


@contextmanager
def graph(room: Room) -> Iterator[Work]:
    """The graph alone, which reads no files and resizes by itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(room.folder / "guard.onnx", options)

    def work(files: Sequence[str]) -> None:
        for i in range(0, len(files), BATCH):
            pixels = np.stack([np.asarray(Image.open(file)) for file in files[i : i + BATCH]])
            session.run(None, {"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})

    yield work


@contextmanager
def runtime(room: Room, file: str) -> Iterator[Work]:
    yield partial(GraphGuard.load(room.folder / file, threads=1).predict, batch=BATCH)


@contextmanager
def served(room: Room, file: str) -> Iterator[Work]:
    with server(room.folder / file) as (port, process):

        def work(files: Sequence[str]) -> None:
            requests = [request(Path(file).read_bytes(), "image/jpeg") for file in files]
            assert not asyncio.run(load(port, process, CLIENTS, requests, math.inf)).refused

        yield work


@contextmanager
def datasets(room: Room) -> Iterator[Work]:
    import datasets

    datasets.disable_progress_bars()
    score = GuardMap(folder=room.folder)

    def work(files: Sequence[str]) -> None:
        rows = datasets.Dataset.from_dict({"image": list(files)})
        rows.map(score, batched=True, batch_size=BATCH, load_from_cache_file=False, keep_in_memory=True)

    yield work


@contextmanager
def ray(room: Room) -> Iterator[Work]:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    score = GuardMap(folder=room.folder)
    try:
        yield (
            lambda files: (
                ray.data.from_items([{"image": file} for file in files])
                .map_batches(score, batch_size=BATCH)
                .materialize()
            )
        )
    finally:
        ray.shutdown()


@contextmanager
def spark(room: Room) -> Iterator[Work]:
    import pandas as pd
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false", "spark.pyspark.python": sys.executable,
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "spark.sql.execution.arrow.maxRecordsPerBatch": f"{BATCH}",
    }  # fmt: skip
    builder = SparkSession.builder.master("local[1]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session, score = builder.getOrCreate(), GuardMap(folder=room.folder)
    session.sparkContext.setLogLevel("ERROR")

    def answers(tables: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        return (pd.DataFrame(score(table)) for table in tables)

    try:
        yield (
            lambda files: (
                session.createDataFrame([(file,) for file in files], "image string")
                .mapInPandas(answers, SPARK_SCHEMA)
                .collect()
            )
        )
    finally:
        session.stop()


def ways() -> dict[str, Way]:
    """All that this machine can run, in the order of the table."""
    vino = find_spec("openvino") is not None
    return {
        PREDICT: predict,
        "`oodream score --out`": score,
        "the graph in onnxruntime": graph,
        "`oodream.runtime`, ONNX": partial(runtime, file="guard.onnx"),
        "`oodream.runtime`, INT8": partial(runtime, file=INT8_FILE),
        **({"`oodream.runtime`, OpenVINO": partial(runtime, file="guard.xml")} if vino else {}),
        "`oodream serve`": partial(served, file=""),
        "`oodream serve guard.onnx`": partial(served, file="guard.onnx"),
        f"`oodream serve {INT8_FILE}`": partial(served, file=INT8_FILE),
        **({"`GuardMap`, `datasets`": datasets} if find_spec("datasets") else {}),
        **({"`GuardMap`, Ray Data": ray} if find_spec("ray") else {}),
        **({"`GuardMap`, Spark": spark} if find_spec("pyspark") and shutil.which("java") else {}),
    }


def seconds(way: Way, room: Room) -> float:
    """The processor's seconds for a picture."""
    with way(room) as work:
        work(room.files[:FEW])
        began = busy(os.getpid())
        work(room.files)
        return (busy(os.getpid()) - began) / len(room.files)


def every_way(setting: Setting) -> Iterator[Row]:
    pictures, rounds = setting.pick((128, 3), (128, 3), (8, 1))
    guard, images = new_guard("resnet18")
    times: dict[str, list[float]] = defaultdict(list)
    folder, every = setting.room / "guard", ways()
    export(guard, folder, openvino=find_spec("openvino") is not None, int8=images)
    files = tuple(map(str, draw(setting.room / "pictures", pictures, 640, 480)))
    room = Room(guard=guard, folder=folder, files=files)
    for _ in range(rounds):
        for label, way in every.items():
            times[label].append(seconds(way, room))
    for label in every:
        beside = median(theirs / own for own, theirs in zip(times[label], times[PREDICT], strict=True))
        yield Row(
            what=f"JPEG files of 640 x 480 to answers, {label}", value=1 / median(times[label]),
            unit="pictures a second", reference=PREDICT, ratio=beside,
        )  # fmt: skip


LINES = {"ways": every_way}

if __name__ == "__main__":
    alone(LINES)
