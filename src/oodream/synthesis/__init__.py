"""The first half of the papers: class vectors, alignment, sampling, decoding, filters; training a decoder."""

from __future__ import annotations

__all__: list[str] = []
