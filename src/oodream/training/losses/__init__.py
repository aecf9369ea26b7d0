"""Training losses. One method, one file; a loss owns its auxiliary networks."""

from __future__ import annotations

__all__: list[str] = []
