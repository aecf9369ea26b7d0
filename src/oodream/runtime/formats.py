"""Picture formats that nothing here reads, by which a file that cannot be opened is explained."""

from __future__ import annotations

__all__ = ["HEAD", "NOT_PICTURES", "unread_format"]

HEAD = 512  # bytes of a file that tell what it is
NOT_PICTURES = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
"""formats that Pillow names, and leaves to other programs to read"""
CONVERT = "convert to PNG or JPEG"
HEIC = "HEIC: convert to JPEG or PNG"
AVIF = "AVIF: needs Pillow 11.3 or later, or convert to PNG"
JXL = f"JPEG XL: {CONVERT}"
RAW = "camera raw: develop to JPEG, PNG or TIFF"
FORMATS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), HEIC),
    **dict.fromkeys((".avif", ".avifs"), AVIF),
    ".jxl": JXL,
    ".svg": f"SVG: {CONVERT}",
    ".svgz": f"SVG: {CONVERT}",
    ".dcm": "DICOM: convert to 16-bit PNG or TIFF",
    **dict.fromkeys((".exr", ".hdr"), f"high dynamic range: {CONVERT}"),
    **dict.fromkeys(
        (
            ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef",
            ".raw",
        ),
        RAW,
    ),
}  # fmt: skip


def unread_format(head: bytes, suffix: str) -> str | None:
    """The picture format, of those without a reader, that a file has by its first bytes or its suffix."""
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis"):
            return AVIF
        if head[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
            return HEIC
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return JXL
    return FORMATS.get(suffix.lower())
