"""The table of docs/performance.md, between two marks of the page: one table for each device."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from _bench import Row, short

__all__ = ["table", "written"]

HEAD = "| | | beside | floor | command |\n|---|---|---|---|---|"


def written(
    page: str, device: str, machine: str, rows: Mapping[str, Sequence[Row]], files: Mapping[str, str]
) -> str:
    """The page with a new table between the marks of the device: rows of lines that were not measured stay.

    Raises ValueError where the page has no such marks.
    """
    marks = f"<!-- {device} -->\n", f"<!-- end of {device} -->"
    pattern = re.compile(f"(?<={re.escape(marks[0])}).*?(?={re.escape(marks[1])})", re.S)
    if not (old := pattern.search(page)):
        raise ValueError(
            f"The page has no table for {device}: put {marks[0].strip()} and {marks[1]} where it belongs."
        )
    texts = _kept(old.group()) | table(rows, files)
    lines = "\n".join([HEAD, *(texts[name] for name in files if name in texts)])
    return pattern.sub(lambda _: f"\n{machine}\n\n{lines}\n\n", page)


def table(rows: Mapping[str, Sequence[Row]], files: Mapping[str, str]) -> dict[str, str]:
    """By benchmark a line of text for each row; the first of each has its command."""
    return {
        name: "\n".join(_line(row, name, files, i == 0) for i, row in enumerate(own))
        for name, own in rows.items()
    }


def _kept(text: str) -> dict[str, str]:
    """The same of a table that was written."""
    kept, name = dict[str, list[str]](), ""
    for line in text.splitlines():
        if command := re.search(r"`python benchmarks/\w+\.py ([\w-]+)` \|$", line):
            name = command[1]
        if name and line.startswith("| "):
            kept.setdefault(name, []).append(line)
    return {name: "\n".join(lines) for name, lines in kept.items()}


def _line(row: Row, name: str, files: Mapping[str, str], first: bool) -> str:
    value = " ".join([short(row.value), row.unit]).strip()
    beside = "" if row.ratio is None else f"{short(row.ratio)} times {row.reference}"
    floor = row.floor + ("" if row.share is None else f": {_percent(row.share)} reached")
    command = f"`python benchmarks/{files[name]}.py {name}`" if first else ""
    more = f" ({row.more})" if row.more else ""
    return f"| {row.what} | {value}{more} | {beside} | {floor} | {command} |"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.005 else "under 1 %"
