"""The verb that hands a guard over: a folder as the Hugging Face hub has them, with a model card, and if
asked graphs.
"""

from __future__ import annotations

import filecmp
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.files import decode_text, fresh_folder, write_bytes
from .card import card, card_head
from .guard import Guard
from .measured import UNMEASURED, Measurements
from .onnx import to_onnx
from .openvino import to_openvino
from .quantize import Int8Images, Quantized, quantize
from .stored import INT8_FILE, ONNX_FILE, VINO_FILES

__all__ = ["Exported", "export", "is_exported"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The largest differences between the scores of the graphs in floating point and of the guard, and what
    the graph in integers costs; None for what there is not.
    """

    onnx: float | None = None
    openvino: float | None = None
    int8: Quantized | None = None


def export(
    guard: Guard,
    folder: Path,
    measured: Measurements = UNMEASURED,
    *,
    onnx: bool = False,
    openvino: bool = False,
    int8: Int8Images | None = None,
    license: str | None = None,
) -> Exported:
    """Writes the folder: network, detector and threshold for `Guard.load`, a model card, and graphs.

    `measured` are this guard's numbers, and `license` an identifier of the hub's, for the card. With `onnx`
    there is an ONNX graph; with `openvino` and `int8` there are one in OpenVINO's format and one in 8-bit
    integers, too, which are made from it. All is written or nothing.

    Raises StoreError for a folder that holds something, and ExportError for missing packages, and for a guard
    that cannot become a graph or would answer otherwise there.
    """
    exported = Exported()
    with fresh_folder(folder) as fresh:
        guard.save(fresh)
        graph = fresh / ONNX_FILE
        if onnx or openvino or int8:
            exported = replace(exported, onnx=to_onnx(guard, graph))
        if openvino:
            exported = replace(exported, openvino=to_openvino(guard, graph, fresh))
        if int8:
            exported = replace(exported, int8=quantize(graph, fresh / INT8_FILE, int8))
        about = card(guard, folder.resolve().name, measured, exported, license)
        write_bytes(fresh / "README.md", str(about).encode())
    return exported


def is_exported(
    guard: Guard,
    folder: Path,
    measured: Measurements = UNMEASURED,
    *,
    onnx: bool = False,
    openvino: bool = False,
    int8: bool = False,
    license: str | None = None,
) -> bool:
    """Whether a folder holds what `export` would write: the same guard, such graphs as are asked for and no
    others, and a card with the same measurements and licence, whose text may have been edited.
    """
    graphs = {
        ONNX_FILE: onnx or openvino or int8, INT8_FILE: int8, **dict.fromkeys(VINO_FILES, openvino)
    }  # fmt: skip
    if any((folder / name).is_file() != asked for name, asked in graphs.items()):
        return False
    head = card_head(folder.resolve().name, measured, with_graph=graphs[ONNX_FILE], license=license)
    readme = folder / "README.md"
    if not readme.is_file() or not decode_text(readme.read_bytes()).startswith(head):
        return False
    with tempfile.TemporaryDirectory() as fresh:
        guard.save(fresh)
        names = [file.name for file in Path(fresh).iterdir()]
        return filecmp.cmpfiles(fresh, folder, names, shallow=False)[0] == names
