"""What of a protocol is there, what is missing and where to get it, as text for people."""

from __future__ import annotations

from ..core.errors import shown
from .locate import Located, Rooted
from .own import OwnImages
from .protocol import KNOWN, LISTS, SHIFTED, UNKNOWN, ProtocolSet, Source

__all__ = ["explain", "overview"]


def overview(origin: Rooted | OwnImages, full_spectrum: bool = False) -> str:
    """The sets of a protocol, or a user's: which are there, which are missing and where to get these.

    Those of the group "shift" are looked for with `full_spectrum` alone. No image is opened.
    """
    groups = [group for group in KNOWN + UNKNOWN if full_spectrum or group != SHIFTED]
    located, protocol = origin.locate(groups), origin.protocol
    classes = len(located.protocol.classes) or "as yet unknown"
    head = [
        f"{protocol.name}: {protocol.about}",
        f"{f'{protocol.size} x {protocol.size} pixels, ' if protocol.size else ''}{classes} classes",
    ]
    total = len(located.found) + len(located.missing)
    found = [f"Found: {len(located.found)} of {total} image sets"] if located.found else []
    for item in located.found:
        found.append(f"  {_title(item.set, len(item.files) or item.set.count)}: {item.place}")
        found += [f"      {remark}" for remark in item.remarks]
    missing = [explain(located) or "Nothing is missing."]
    notes = ["Notes:", *(f"- {note}" for note in protocol.notes)] if protocol.notes else []
    return "\n\n".join("\n".join(part) for part in (head, found, missing, notes) if part)


def explain(located: Located) -> str:
    """What is missing, set by set, then where to get it, source by source, with checksums; empty when all is
    there.
    """
    if not located.missing:
        return ""
    protocol, roots = located.protocol, located.roots
    below = f"below {' and '.join(map(shown, roots))}" if roots else "and no --root was given"
    total = len(located.found) + len(located.missing)
    lines = [f"{protocol.name}: {len(located.missing)} of {total} image sets are missing, {below}."]
    for missing in located.missing:
        lines.append(f"  {_title(missing.set, missing.set.count)}")
        lines += [f"      {reason}" for reason in missing.reasons]
    if names := _sources_needed(located):
        lines += ["", "Where to get it (ROOT is the folder that --root names):"]
    for name in names:
        lines += _source_lines(name, protocol.sources[name])
    return "\n".join(lines)


def _title(item: ProtocolSet, count: int) -> str:
    """A set's name, group and number of images."""
    return f"{item.name} ({item.group}{f', {count:,} images' if count else ''})"


def _sources_needed(located: Located) -> list[str]:
    """The sources of what is missing: of the lists where a list is, and of the images, unless only their list
    seems missing.
    """
    sources, roots, needed = located.protocol.sources, located.roots, []
    for missing in located.missing:
        item = missing.set
        no_list = bool(item.list) and not any((root / item.list).is_file() for root in roots)
        into = sources[item.source].into if item.source else "."
        if no_list:
            needed.append(LISTS)
        if not (no_list and into != "." and any((root / into).is_dir() for root in roots)):
            needed.append(item.source)
    return [name for name in dict.fromkeys(needed) if name in sources]


def _source_lines(name: str, source: Source) -> list[str]:
    """A source as lines: what to do with it, its address, its note."""
    into = "ROOT" if source.into == "." else f"ROOT/{source.into}"
    md5 = f" (md5 {source.md5})" if source.md5 else ""
    lines = [f"  {name}: {source.file or 'images'}{md5} into {into}", f"      {source.url}"]
    return [*lines, f"      {source.note}"] if source.note else lines
