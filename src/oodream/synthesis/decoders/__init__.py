"""Decoders: vectors in, images or latents out. One method, one file."""

from __future__ import annotations

__all__: list[str] = []
