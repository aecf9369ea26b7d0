"""The program `oodream`: its command line, or what it says where a package is not installed that this takes.

Nothing of other packages is imported here, for without them somebody may have installed what runs guards on
graphs.
"""

from __future__ import annotations

import os
import sys

from ..core.packages import missing

__all__ = ["main"]


def main() -> int:
    """As `main.main`: 2, with a line that names it, for a package that is missing."""
    try:
        from .main import main

        return main()
    except ImportError as error:
        name = error.name or ""
        if os.environ.get("OODREAM_DEBUG") or name.partition(".")[0] == "oodream":
            raise
        print(f"oodream: {missing('This command', name) if name else error}", file=sys.stderr)
        return 2
