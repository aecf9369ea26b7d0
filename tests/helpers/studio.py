"""The studio in a process of its own, and in this one, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from starlette.testclient import TestClient

from oodream.config import Config
from oodream.core.files import encode_json, write_bytes, write_json
from oodream.core.tensors import save_tensors
from oodream.studio.app import create_app
from oodream.studio.studio import Studio
from tests.helpers.begun import begin_run

WAIT = 120_000  # milliseconds that a busy machine may take for what the page shows


def client(*runs: Path, token: str | None = None) -> TestClient:
    """A client of a studio of these runs; `client.app.state.service` is the studio."""
    app = create_app(Studio(runs, device="cpu"), token)
    return TestClient(app, base_url="http://127.0.0.1:8700", follow_redirects=False)


def imagined_run(folder: Path, count: int, classes: Sequence[str] = ("coat", "shoe")) -> Path:
    """A run's folder as it is when `count` pictures are imagined and filtered, without the stages' work.

    Each picture has a color of its own, every fifth is dropped, and row m lies m / count away.
    """
    run = begin_run(folder, Config(size=16, data="/nowhere/photographs"))
    write_json(run.layout.classes, {"names": classes, "prompts": classes, "space": "test", "tile": 4})
    z_MD = torch.nn.functional.normalize(torch.randn(count, 8), dim=1)
    save_tensors(run.layout.class_vectors, {"tokens_CD": torch.randn(len(classes), 8)})
    m_M = torch.arange(count)
    y_M, zero_M = m_M % len(classes), torch.zeros_like(m_M)
    vectors = {"z_MD": z_MD, "y_M": y_M, "anchor_M": zero_M, "knn_M": m_M / count, "seed_M": m_M}
    save_tensors(run.layout.vectors, vectors)
    for m, file in enumerate(run.files.paths):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), color_of(m)).save(file)
    lines = [
        {
            "row": m, "class": classes[m % len(classes)], "prompt": f"a {classes[m % len(classes)]}",
            "anchor_index": 0, "anchor": "/data/0.png", "seed": m, "knn_distance": m / count,
            "cosine_to_class": 0.5, "words": [f"word {m % 7}"], "pipeline": "0" * 16, "hash": "",
        }
        for m in range(count)
    ]  # fmt: skip
    write_bytes(run.layout.provenance("images"), b"".join(encode_json(line) + b"\n" for line in lines))
    dropped_M = (m_M % 5 == 4).long() - 1
    save_tensors(run.layout.keep_mask, {"keep": dropped_M < 0, "dropped_by": dropped_M})
    for stage, summary in (("images/imagined", {}), ("filter", {"reasons": ["looks like its class"]})):
        write_json(folder / stage / "stage.json", {"inputs": {"of": count}, "seconds": 1, "summary": summary})
    return folder


def color_of(m: int) -> tuple[int, int, int]:
    """The color of row m's picture in `imagined_run`."""
    return 40 + m % 200, m // 200 % 256, 120


@contextmanager
def studio(*runs: Path, port: int = 0, cwd: Path | None = None) -> Iterator[SimpleNamespace]:
    """`oodream studio` in a process of its own, with `url`, `port`, `process`; it is ended afterwards."""
    command = [sys.executable, "-m", "oodream", "studio", *map(str, runs), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True, cwd=cwd, env=dict(os.environ)
    )
    try:
        said = process.stdout.readline()
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), said
        yield SimpleNamespace(
            process=process, url=url.rstrip("/"), port=int(url.rstrip("/").rpartition(":")[2])
        )
    finally:
        process.kill()
        process.communicate()
