"""Samplers: features in, vectors out. One method, one file."""

from __future__ import annotations

__all__: list[str] = []
