"""Every command and snippet in the documentation runs, or at least is understood by the program it is for."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import nn

from oodream.cli.main import COMMANDS, main
from oodream.core import registry
from tests.golden.parity import table
from tests.helpers.guarded import save_run

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "world" / "README.md",
    ROOT / "experiments" / "README.md",
    ROOT / "src/oodream/assets/decoder/README.md",
]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def blocks(*languages: str) -> list[tuple[str, str]]:
    return [
        (page.name, code)
        for page in PAGES
        for language, code in BLOCK.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


LINES = [
    (page, line.partition("#")[0].strip())
    for page, code in blocks("", "bash", "sh")
    for line in code.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize(("page", "line"), [x for x in LINES if x[1].startswith("make ")])
def test_make_targets_exist(page, line):
    subprocess.run(["make", "--dry-run", *line.split()[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("page", "line"), [x for x in LINES if x[1].startswith("oodream ")])
def test_oodream_commands_are_understood(page, line, capsys):
    args = shlex.split(line)[1:]
    assert args[0] in COMMANDS
    if args[0] in ("run", "demo", "compare", "evaluate"):
        assert main([*args, "--dry-run"]) == 0
    elif args[0] in ("decode", "audit"):
        assert main(args) == 2
        assert f"{args[1]} is not a run folder" in capsys.readouterr().err
    elif args[0] == "score":
        assert main(args) == 2
        assert "holds no classifier" in capsys.readouterr().err
    elif args[0] == "export":
        assert main(args) == 2
        assert f"{args[1]} holds no guard" in capsys.readouterr().err
    elif args[0] == "fit-decoder":
        images = args[1]
        assert main([*args, "--seed", "0"]) == 2
        assert f"{images} is not a folder" in capsys.readouterr().err
    else:
        assert main(args) == 0


@pytest.mark.parametrize(("page", "line"), [x for x in LINES if x[1].startswith("torchrun ")])
def test_launched_commands_are_understood(page, line):
    launch, _, own = line.partition(" -- oodream.cli ")
    assert launch.split()[:2] == ["torchrun", "--nproc-per-node"]
    assert main([*shlex.split(own), "--dry-run"]) == 0


@pytest.mark.parametrize(("page", "line"), [x for x in LINES if x[1].startswith("python ")])
def test_scripts_exist(page, line):
    assert (ROOT / line.split()[1]).is_file()


def test_no_other_kind_of_command():
    known = (
        "make ",
        "oodream ",
        "torchrun ",
        "python ",
        "pip install ",
        "apt-get install ",
        "git clone ",
        "cd ",
    )
    assert [line for _, line in LINES if not line.startswith(known)] == []


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_snippets_run(page, code, shapes, tiny_pipeline, tmp_path, monkeypatch):
    for folder in ("photos", "strange"):
        shutil.copytree(shapes, tmp_path / folder)
    save_run(tmp_path / "runs" / "photos")
    monkeypatch.chdir(tmp_path)
    classes = len([folder for folder in shapes.iterdir() if folder.is_dir()])
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )
    exec(compile(code, page, "exec"), {"DECODER": str(tiny_pipeline), "NETWORK": network})


def test_the_page_on_detectors_has_them_all_and_the_parity_as_tested():
    page = (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8")
    assert table() in page
    for name in registry.names("detectors"):
        grid = ", ".join(getattr(registry.get("detectors", name), "GRID", {}))
        assert re.search(rf"^\| `{name}` \| .* \| {grid} \|$", page, re.M), name


def test_links_inside_the_repository_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
