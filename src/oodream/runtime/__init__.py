"""What answers without PyTorch: exported guards, by onnxruntime (or OpenVINO), NumPy and Pillow alone.

All that a guard does after its network and detector lives here, and so does the reading of pictures: whoever
trains and whoever serves use the same code. Nothing here imports any other wing but `core`.
"""

from __future__ import annotations

from .guard import Guard

__all__ = ["Guard"]
