"""Imports go down only: the layers of the design, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import oodream

ROOT = Path(oodream.__file__).parent
LAYERS = {
    0: {"types", "seeding", "registry", "store", "config", "distributed", "memory"},
    1: {
        "knn",
        "metrics",
        "uncertainty",
        "calibration",
        "drift",
        "samplers",
        "losses",
        "detectors",
        "filters",
    },
    2: {
        "images",
        "data",
        "classes",
        "builtin",
        "validation",
        "shifts",
        "text",
        "vision",
        "passes",
        "backbones",
        "exported",
        "protocols",
        "classifier",
        "pictures",
        "guard",
        "graph",
        "decoders",
        "paths",
        "augment",
        "mixture",
        "loop",
    },
    3: {
        "align",
        "sample",
        "decode",
        "train",
        "evaluate",
        "search",
        "export",
        "audit",
        "report",
        "explore",
        "fit_decoder",
    },
    4: {"given", "pipeline", "presets", "drawing", "present", "compare", "benchmarking", "auditing", "cli"},
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def part(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """The parts of the package that a file imports, type-checking imports included."""
    found = set()
    depth = len(file.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            up = node.level - depth
            inside = file.relative_to(ROOT).parts[: depth - node.level] if up < 0 else ()
            path = [*inside, *(node.module or "").split(".")]
            found.update([path[0]] if path[0] else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("oodream"):
            found.add((node.module or "").split(".")[1])
    return found & set(LAYER)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down(file):
    me = part(file)
    for other in imported(file) - {me}:
        assert LAYER[other] <= LAYER[me], f"{me} (layer {LAYER[me]}) imports {other} (layer {LAYER[other]})"
        assert not (LAYER[me] == LAYER[other] == 3), f"the verb {me} imports the verb {other}"


def test_every_file_has_a_layer():
    assert {part(file) for file in FILES} == set(LAYER)


def test_the_check_sees_imports():
    assert "metrics" in imported(ROOT / "evaluate.py")
    assert "registry" in imported(ROOT / "samplers" / "knn.py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_global_random_numbers_no_cuda_calls_no_pickle(file):
    text = file.read_text()
    assert ".cuda(" not in text
    assert "import pickle" not in text
    assert "trust_remote_code=True" not in text
    assert text.count("trust_remote_code") == text.count("trust_remote_code=False"), "said in no other way"
    for line in text.splitlines():
        assert "torch.load(" not in line or "weights_only=True" in line
        assert "manual_seed" not in line or "Generator()" in line or part(file) == "seeding"
