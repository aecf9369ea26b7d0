"""What an audit says: findings with a severity, in words and with examples, and the audit that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..core.errors import shown
from ..core.types import Json

__all__ = ["EXAMPLES", "GROUPS", "SEVERITIES", "Audit", "Finding", "percent"]

GROUPS = ("train", "test", "outliers", "shift", "near", "far", "control")
SEVERITIES = ("problem", "warning", "fine")
EXAMPLES = 6
BRIEFLY = {
    "duplicates": "{percent} of “{last}” show the same as images of “{first}”",
    "labels": "{percent} of “{last}” have an equal image with another label",
    "files": "the files' format, size and compression alone separate “{last}” from “{first}” (AUROC "
    "{percent})",
    "control": "{first} takes reconstructed known images for others than untouched ones (AUROC {percent})",
}
"""What a finding says in few words, for the kinds that can be a problem."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: what was found, how bad it is, what it means and what to do.

    `kind` is duplicates, labels, files, pixels, names, control, look or latent space. `sets` names the sets
    concerned. For duplicates, labels and names `count` images of the last of them are concerned, the share
    `share` of it. For files, pixels, control and look `count` images were compared, and `share` is the AUROC:
    for files and pixels that of the statistic, or of all together, that separates most surely. A look has its
    95 % `interval`. For the latent space `count` embeddings were decoded, and the share `share` shows its
    class.

    `examples` are JSON objects. Those of duplicates and labels hold the `sets`, `rows` and `files` of two
    images and how far they are `apart`; those of files, pixels and look a `statistic` with its `auroc`; those
    of names a `class`, a `file` and the `count`; those of the latent space a `class` and its `share`.
    """

    kind: str
    sets: tuple[str, ...]
    count: int
    share: float
    severity: str
    message: str
    interval: tuple[float, float] | None = None
    examples: tuple[Json, ...] = ()

    @property
    def brief(self) -> str:
        """What was found, with the sets concerned, in few words: not what it means, nor what to do. It is the
        whole message of a kind that is never a problem.
        """
        words = BRIEFLY.get(self.kind, self.message.replace("{", "{{").replace("}", "}}"))
        return words.format(first=shown(self.sets[0]), last=shown(self.sets[-1]), percent=percent(self.share))


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All findings, worst first, and the group of each set that was audited, by name."""

    sets: Mapping[str, str]
    findings: tuple[Finding, ...]

    def __getitem__(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def to_json(self) -> Json:
        """The audit as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Json) -> Audit:
        """The audit that `to_json` wrote."""
        lists = ("sets", "interval", "examples")
        findings = (
            Finding(**finding | {key: tuple(finding[key]) for key in lists if finding.get(key) is not None})
            for finding in values["findings"]
        )
        return cls(sets=values["sets"], findings=tuple(findings))


def percent(share: float) -> str:
    """A share in [0, 1] as "12.3 %"."""
    return f"{100 * share:.1f}\u00a0%"
