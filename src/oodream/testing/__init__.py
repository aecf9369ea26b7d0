"""Public checks for authors of extensions, one for each family, as scikit-learn's `check_estimator`.

A check takes a registered name or a plug-in's dotted path, and options. It raises AssertionError with a
sentence that says which rule is broken.
"""

from __future__ import annotations

from .adapter import check_adapter
from .decoder import check_decoder
from .detector import check_detector
from .filter import check_filter
from .loss import check_loss
from .sampler import check_sampler

__all__ = ["check_adapter", "check_decoder", "check_detector", "check_filter", "check_loss", "check_sampler"]
