"""Every option there is, as frozen dataclasses: field = flag = JSON key = argument. Nothing heavy is loaded.

The sections stand together, and not each above its stage or verb, because `oodream --help` reads them and
must not load PyTorch to do so.
"""

from __future__ import annotations

from .evaluate import MeasureConfig
from .fit_decoder import FitDecoderConfig
from .guard import NetworkConfig
from .run import (
    PROMPT,
    AlignConfig,
    Config,
    DecodeConfig,
    EvaluateConfig,
    FilterConfig,
    GuardConfig,
    LatentsConfig,
    Optimisation,
    ReconstructConfig,
    RegularizeConfig,
    ReportConfig,
    SampleConfig,
    ShiftConfig,
    TrainConfig,
)

__all__ = [
    "PROMPT", "AlignConfig", "Config", "DecodeConfig", "EvaluateConfig", "FilterConfig", "FitDecoderConfig",
    "GuardConfig", "LatentsConfig", "MeasureConfig", "NetworkConfig", "Optimisation", "ReconstructConfig",
    "RegularizeConfig", "ReportConfig", "SampleConfig", "ShiftConfig", "TrainConfig",
]  # fmt: skip
