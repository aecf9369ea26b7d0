"""What is said of packages that are not installed."""

from __future__ import annotations

__all__ = ["missing"]

CALLED = {
    "PIL": "pillow", "multipart": "python-multipart", "prometheus_client": "prometheus-client",
    "onnx_ir": "onnxscript", "huggingface_hub": "huggingface-hub",
}  # fmt: skip
"""Packages that are called otherwise than the module that is imported."""


def missing(what: str, module: str, extra: str = "") -> str:
    """That `what` needs the package of a module, and how to install it: alone, or with the others of an
    extra of this project.
    """
    package = CALLED.get(module.partition(".")[0], module.partition(".")[0])
    clone = f", or in a clone pip install '.[{extra}]'" if extra else ""
    return f"{what} needs {package}, which is not installed: pip install {package}{clone}"
