"""The bill of materials is written without a network, where its tool is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import oodream

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("cyclonedx_py") is None, reason="needs cyclonedx-bom")
def test_a_bill_lists_what_the_program_runs_on(tmp_path):
    """The command of the Makefile, with every way to a network closed."""
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "cyclonedx-py" in line)
    options = line.split("$(BIN)/python ")[1].replace("build/sbom.json", str(tmp_path / "sbom.json")).split()
    closed = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable, *options],
        check=True, cwd=ROOT, env={**os.environ, **closed},
    )  # fmt: skip
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "oodream"
    assert bill["metadata"]["component"]["version"] == oodream.__version__
    assert {"torch", "pillow", "safetensors"} <= {part["name"].lower() for part in bill["components"]}
