"""The second half of the papers: sources, batches, augmentation, losses, latent adapters and the loop."""

from __future__ import annotations

__all__: list[str] = []
