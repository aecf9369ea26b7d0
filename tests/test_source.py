"""What holds for all source files: sizes, public names, no global random numbers, device calls or pickle."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import oodream

ROOT = Path(oodream.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULE, CLASS, FUNCTION = 350, 200, 60  # lines
REASON = re.compile(r"\blong because\b", re.I)
every_file = pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))


def definitions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, int]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node, (node.end_lineno or 0) - node.lineno + 1


def too_large(text: str) -> list[str]:
    found = [f"module: {n} lines"] if (n := len(text.splitlines())) > MODULE else []
    for node, lines in definitions(ast.parse(text)):
        limit = CLASS if isinstance(node, ast.ClassDef) else FUNCTION
        if lines > limit and not REASON.search(ast.get_docstring(node) or ""):
            found.append(f"{node.name}: {lines} lines")
    return found


@every_file
def test_files_classes_and_functions_are_short(file):
    """A function that must be longer says in its docstring what it is long because of."""
    assert too_large(file.read_text(encoding="utf-8")) == []


def test_the_check_sees_what_is_long():
    body = "    pass\n" * FUNCTION
    assert too_large(f"def f():\n{body}") == ["f: 61 lines"]
    assert too_large(f'def f():\n    """Long because of its table."""\n{body}') == []
    assert too_large("x = 1\n" * 351) == ["module: 351 lines"]


@every_file
def test_every_module_says_what_lives_there_and_what_is_public(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    about = ast.get_docstring(tree) or ""
    assert len(about.split()) >= 2, "a module begins with a paragraph about what lives in it"
    defines = any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign)) for node in tree.body)
    public = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    if not defines:
        return
    assert public, "a module lists its public names"
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    assert set(public[0]) <= names
    assert len(set(public[0])) == len(public[0])


def test_the_package_root_holds_only_what_it_should():
    wings = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {path.name for path in ROOT.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "comparisons.py",
        "presets.py",
    }
    assert wings == {
        "audit",
        "benchmark",
        "cli",
        "config",
        "core",
        "data",
        "deploy",
        "detection",
        "functional",
        "models",
        "report",
        "run",
        "runtime",
        "studio",
        "synthesis",
        "testing",
        "training",
    }


def test_the_front_door_opens():
    for name in oodream.__all__:
        assert getattr(oodream, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Gard'"):
        _ = oodream.Gard


@every_file
def test_no_global_random_numbers_no_cuda_calls_no_pickle(file):
    text = file.read_text(encoding="utf-8")
    assert ".cuda(" not in text
    assert "import pickle" not in text
    assert "trust_remote_code=True" not in text
    assert text.count("trust_remote_code") == text.count("trust_remote_code=False"), "said in no other way"
    for line in text.splitlines():
        assert "torch.load(" not in line or "weights_only=True" in line
        assert "manual_seed" not in line or "Generator()" in line or file.name == "seeding.py"


def test_git_ignores_no_file_of_the_package():
    """What it ignores is not in the wheel either."""
    files = [path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = "\n".join(str(path) for path in files)
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(command, input=names, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a checkout")
    assert done.stdout == ""
    assert {path.suffix for path in files} >= {
        ".safetensors",
        ".png",
        ".json",
        ".toml",
        ".md",
        ".j2",
        ".css",
        ".js",
    }


@pytest.mark.parametrize("file", sorted((ROOT / "testing").glob("*.py")), ids=lambda f: f.name)
def test_rules_for_authors_are_no_assert_statements(file):
    """`python -O` leaves those out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert) and node.msg]
