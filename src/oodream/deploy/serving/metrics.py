"""What a server counts, in Prometheus' text: requests, passes, flagged pictures, drift."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["Metrics"]

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Drift(Protocol):
    """A summary of scores, as a guard's `drift` gives it."""

    def add(self, scores: Any) -> Any: ...

    @property
    def latest(self) -> Any: ...

    @property
    def evidence(self) -> float: ...


class Metrics:
    """The counters of one server. `drift` takes in the score of every picture that is answered."""

    def __init__(self, drift: Drift) -> None:
        self.registry = CollectorRegistry()
        self._drift, self._lock = drift, threading.Lock()
        self.requests = Counter(
            "oodream_requests", "Requests that were answered.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "oodream_request_seconds",
            "From a request's head to its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.under_way = Gauge(
            "oodream_requests_under_way", "Requests without an answer yet.", registry=self.registry
        )
        self.pass_seconds = Histogram(
            "oodream_pass_seconds",
            "Passes through the network.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.pass_pictures = Histogram(
            "oodream_pass_pictures",
            "Pictures of a pass.",
            buckets=PICTURES,
            registry=self.registry,
        )
        self.pictures = Counter(
            "oodream_pictures", "Pictures that were answered.", ("flagged",), registry=self.registry
        )
        for flagged in ("true", "false"):
            self.pictures.labels(flagged)
        self._share = Gauge(
            "oodream_flagged_share",
            "Share of the latest pictures that lies above the guard's own threshold.",
            registry=self.registry,
        )
        self._evidence = Gauge(
            "oodream_drift_evidence",
            "Evidence of drift; without drift it ever reaches e with a chance of at most 10^-e.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def add(self, scores: Sequence[float], flagged: int, seconds: float) -> None:
        """Counts a pass: its scores, how many of its pictures were flagged, and how long it took."""
        self.pass_seconds.observe(seconds)
        self.pass_pictures.observe(len(scores))
        self.pictures.labels("true").inc(flagged)
        self.pictures.labels("false").inc(len(scores) - flagged)
        score_B = np.array(scores, dtype=np.float64)
        with self._lock:
            self._drift.add(score_B[np.isfinite(score_B)])

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        with self._lock:
            latest = self._drift.latest
            self._share.set(float("nan") if latest is None else latest.share)
            self._evidence.set(self._drift.evidence)
        return generate_latest(self.registry)
