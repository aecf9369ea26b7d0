"""What lies on disk, and how it gets there whole: atomic files and folders, tensors, stage stamps, locks, progress.

A stage is done when its `stage.json` exists; that file is written last, by rename. Nothing here knows what a stage computes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .errors import StoreError

T = TypeVar("T")
ASSETS = Path(__file__).parents[1] / "assets"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            full = "A limit on file sizes is reached" if error.errno == errno.EFBIG else "The disk is full"
            raise StoreError(f"{full} at {path}. Free some room and run the same command again.") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(
                f"{path} cannot be written ({error.strerror}). Choose another folder or mend its permissions."
            ) from error
        raise


def write_bytes(path: Path, data: bytes, sync: bool = True) -> None:
    """Writes a whole file or nothing, by rename. Without `sync` a power cut (not a kill) may leave it empty."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON; StoreError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is damaged ({error}). Remove it and run the same command again.") from error


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as one safetensors file, whole or not at all."""
    write_bytes(
        path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata or {}))
    )


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file; StoreError names the file when it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise StoreError(
            f"{path} is damaged ({error}). Remove its folder and run the same command again."
        ) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to fill, which takes `path`'s place when the block ends well and vanishes when it does not."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield fresh
            fresh.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            os.replace(fresh, path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
