"""A guard in OpenVINO's own format, made from its ONNX graph and compared with the guard as that one is."""

from __future__ import annotations

from pathlib import Path

from ..core.packages import missing
from ..core.sealed import KEY as SEAL
from ..core.sealed import UNSEALED, seal_file
from ..runtime.graph import KEY, open_graph
from .guard import Guard
from .onnx import ExportError, compared
from .stored import VINO_FILES

__all__ = ["VINO_FILES", "to_openvino"]


def to_openvino(guard: Guard, source: Path, folder: Path) -> float:
    """Writes VINO_FILES from the guard's ONNX file, and returns the largest difference of a score that
    `compared` finds.

    Its threshold is fixed: `runtime.Guard.at` moves it. Raises ExportError where OpenVINO is not installed,
    and for other answers than the guard's; then there are no files.
    """
    try:
        import openvino
    except ImportError as error:
        raise ExportError(missing("OpenVINO", "openvino", "openvino")) from error
    model = openvino.convert_model(source)
    text = open_graph(source).text
    assert text is not None
    model.set_rt_info(text, KEY)
    model.set_rt_info(UNSEALED, SEAL)
    files = [folder / name for name in VINO_FILES]
    try:
        openvino.save_model(model, files[0], compress_to_fp16=False)
        seal_file(*files)
        return compared(guard, files[0])
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        raise
