"""The studio in a process of its own, and in this one, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from starlette.testclient import TestClient

from oodream.studio.app import create_app
from oodream.studio.studio import Studio

WAIT = 60_000  # milliseconds that a busy machine may take for what the page shows


def client(*runs: Path, token: str | None = None) -> TestClient:
    """A client of a studio of these runs; `client.app.state.service` is the studio."""
    app = create_app(Studio(runs, device="cpu"), token)
    return TestClient(app, base_url="http://127.0.0.1:8700", follow_redirects=False)


@contextmanager
def studio(*runs: Path, port: int = 0, cwd: Path | None = None) -> Iterator[SimpleNamespace]:
    """`oodream studio` in a process of its own, with `url`, `port`, `process`; it is ended afterwards."""
    command = [sys.executable, "-m", "oodream.cli", "studio", *map(str, runs), "--port", str(port)]
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
