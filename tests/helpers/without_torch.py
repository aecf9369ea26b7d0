"""Interpreters that can import some packages, what these depend on, and oodream, as in an environment with no
others.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import oodream

__all__ = ["RUNTIME", "SCORER", "SERVER", "interpreter"]

RUNTIME = ("numpy", "onnxruntime", "pillow")
SCORER = (*RUNTIME, "filelock", "tqdm", "tyro")
SERVER = (*RUNTIME, "fastapi", "prometheus-client", "python-multipart", "tyro", "uvicorn")
FINDERS = """
import sys

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {hidden!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Finder, sys.meta_path)
sys.path.insert(0, {source!r})
"""


def interpreter(code: str, packages: tuple[str, ...] = RUNTIME) -> list[str]:
    """The command that runs the code where these packages are installed, and what they ask for."""
    names, left = set[str](), list(packages)
    while left:
        name = Requirement(left.pop()).name
        if name not in names:
            names.add(name)
            asked = map(Requirement, metadata.requires(name) or ())
            left += [str(one) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    folded = {name.lower().replace("_", "-") for name in names}
    hidden = {
        module
        for module, holders in metadata.packages_distributions().items()
        if not folded & {holder.lower().replace("_", "-") for holder in holders}
    }
    source = str(Path(oodream.__file__).parents[1])
    return [sys.executable, "-c", FINDERS.format(hidden=hidden - {"oodream"}, source=source) + code]
