"""audit.finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..core.types import Json

GROUPS = ("train", "test", "outliers", "near", "far", "control")
SEVERITIES = ("problem", "warning", "fine")
EXAMPLES = 6


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked: what was seen, how bad it is, what it means and what to do, in words.

    `kind` is duplicates, labels, files, pixels, names or control. `sets` names the sets concerned, the last one first of all:
    `count` of its images are, which is `share` of them. For files, pixels and control `count` images were compared, and `share` is
    the AUROC. `examples` are JSON objects: of duplicates and labels the `sets`, `rows` and `files` of two pictures and how far they
    are `apart`, of files and pixels each `statistic` with its `auroc`, of names the `class`, the `file` and the `count`.
    """

    kind: str
    sets: tuple[str, ...]
    count: int
    share: float
    severity: str
    message: str
    examples: tuple[Json, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All findings, worst first, and the sets looked at: name -> group."""

    sets: Mapping[str, str]
    findings: tuple[Finding, ...]

    def __getitem__(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [f for f in self.findings if f.severity == severity]


def percent(share: float) -> str:
    """A share in [0, 1] as "12.3 %"."""
    return f"{100 * share:.1f}\u00a0%"


def to_json(done: Audit) -> Json:
    """An audit as JSON values."""
    return asdict(done)


def from_json(values: Json) -> Audit:
    """The audit that `to_json` wrote."""
    findings = (
        Finding(**{**f, "sets": tuple(f["sets"]), "examples": tuple(f["examples"])})
        for f in values["findings"]
    )
    return Audit(sets=values["sets"], findings=tuple(findings))
