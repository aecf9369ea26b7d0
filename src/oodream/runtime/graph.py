"""A guard's graph and the program that runs it: onnxruntime for ONNX, OpenVINO for its own format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import StoreError, shown
from ..core.sealed import KEY as SEAL
from ..core.sealed import file_hash, is_whole
from .description import KEY
from .formats import HEAD
from .onnx_bytes import check_whole_file

__all__ = [
    "GRAPH_FILES", "Graph", "OnnxGraph", "VinoGraph", "beside", "find_graph", "open_graph", "runs_on_graph",
]  # fmt: skip

GRAPH_FILES = {".onnx": "guard.onnx", ".xml": "guard.xml"}  # in an exported folder, the first one first
CHANGED = f"Where you have changed it yourself, remove {SEAL!r} from its metadata."
MAX_BYTES = 2 << 30  # a protobuf holds no more


class Graph(Protocol):
    """A graph that is ready to run: uint8 pictures (B, 3, H, W) in; "logits" (B, C), "score" (B,), "unknown"
    (B,) and, where the loss estimates it, "known" (B,) out. `digest` is a hash of its file.
    """

    digest: str

    @property
    def text(self) -> str | None:
        """The guard's description in its metadata."""

    def __call__(self, images_B3HW: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]: ...


def runs_on_graph(place: str) -> bool:
    """Whether a guard is asked as a graph: one named by its graph's file is, and where PyTorch is not
    installed all are.
    """
    return Path(place).suffix in GRAPH_FILES or find_spec("torch") is None


def find_graph(place: Path) -> Path:
    """The graph's file: the file itself, or of a folder `guard.onnx`, else `guard.xml`.

    Raises StoreError where there is none, or one that is too large.
    """
    if place.is_dir():
        file = next((place / name for name in GRAPH_FILES.values() if (place / name).is_file()), None)
        if file is None:
            raise StoreError(
                f"{shown(place)} holds no graph: neither {' nor '.join(GRAPH_FILES.values())}. "
                "A run's is made by: oodream export RUN --out FOLDER --onnx"
            )
    else:
        file = place
    if not file.is_file():
        raise StoreError(f"{shown(file)} does not exist.")
    if file.suffix not in GRAPH_FILES:
        raise StoreError(f"{shown(file)} is no graph: its name does not end in {' or '.join(GRAPH_FILES)}.")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise StoreError(f"{shown(file)} has {size:,} bytes, and graphs of at most {MAX_BYTES:,} are read.")
    return file


def open_graph(file: Path, providers: Sequence[str] = ("CPUExecutionProvider",), threads: int = 0) -> Graph:
    """The graph in a file, ready to run on `threads` threads (0: as many as there are cores).

    `providers` are onnxruntime's. Raises ImportError, which names it, where the program that runs such files
    is not installed, and StoreError for a damaged file.
    """
    vino = file.suffix == ".xml"
    try:
        graph = VinoGraph(file, threads) if vino else OnnxGraph(file, providers, threads)
        if not is_whole(file, *(others := beside(file))):
            content = " or ".join(["its content", *(f"that of {other.name}" for other in others)])
            raise ValueError(f"{content} is not what was exported. Export it again. {CHANGED}")
        return graph
    except ImportError as error:
        package = "openvino" if vino else "onnxruntime"
        raise ImportError(f"{shown(file)} needs {package}: pip install {package}") from error
    except Exception as error:  # both programs raise exceptions of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StoreError(f"{shown(file)} cannot be run, or is damaged: {reason}") from error


def beside(file: Path) -> list[Path]:
    """The files that belong to a graph's: OpenVINO's weights."""
    return [file.with_suffix(".bin")] if file.suffix == ".xml" else []


class OnnxGraph:
    """An ONNX file in onnxruntime."""

    def __init__(self, file: Path, providers: Sequence[str], threads: int) -> None:
        import onnxruntime

        check_whole_file(file)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # without its remark that the threshold can be changed
        options.intra_op_num_threads = threads
        self.digest = file_hash(file)
        self._session = onnxruntime.InferenceSession(file, options, providers=list(providers))
        self._names = [output.name for output in self._session.get_outputs()]

    @property
    def text(self) -> str | None:
        try:
            return self._session.get_modelmeta().custom_metadata_map.get(KEY)
        except UnicodeDecodeError as error:
            raise ValueError("its metadata are no text") from error

    def __call__(self, images_B3HW: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        results = self._session.run(self._names, {"images": images_B3HW})
        return dict(zip(self._names, results, strict=True))


class VinoGraph:
    """An OpenVINO file on the processor, in single precision."""

    def __init__(self, file: Path, threads: int) -> None:
        import openvino

        with file.open("rb") as start:
            if not start.read(HEAD).lstrip().startswith(b"<"):  # else it is taken for another program's file
                raise ValueError("it is no XML")
        self.digest = file_hash(file, file.with_suffix(".bin"))
        core = openvino.Core()
        model = core.read_model(file)
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        self._compiled = core.compile_model(model, "CPU", config)
        self._names = [output.any_name for output in model.outputs]
        self._text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None

    @property
    def text(self) -> str | None:
        return self._text

    def __call__(self, images_B3HW: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        results = self._compiled({"images": images_B3HW})
        return {name: results[name] for name in self._names}
