"""Prometheus figures under TEI's names, with labels that are bounded by the table of routes.

    te_request_count te_request_success te_request_failure{path, status}  te_request_duration
    te_request_queue_duration te_request_inference_duration te_batch_next_size te_batch_next_tokens
    te_queue_size te_queue_tokens te_request_tokens te_request_truncated

Several workers write into one folder (PROMETHEUS_MULTIPROC_DIR), and any of them answers for all.
"""

from __future__ import annotations

import os
from typing import Any

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = tuple(2.0**i for i in range(15))
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """`observe_pass` and `observe_queue` are for the lanes, `observe_request` for each answer."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._prometheus = prometheus
        self.registry = registry = prometheus.CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Any:
            return prometheus.Counter(name, about, labels, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Any:
            return prometheus.Histogram(name, about, buckets=buckets, registry=registry)

        def gauge(name: str, about: str) -> Any:
            return prometheus.Gauge(name, about, registry=registry, multiprocess_mode="livesum")

        self.count = counter("te_request_count", "requests", "path")
        self.success = counter("te_request_success", "requests that were answered", "path")
        self.failure = counter("te_request_failure", "requests that were refused", "path", "status")
        self.tokens = counter("te_request_tokens", "tokens of texts")
        self.truncated = counter("te_request_truncated", "texts that were cut")
        self.duration = histogram("te_request_duration", "seconds of a request", SECONDS)
        self.queued = histogram("te_request_queue_duration", "seconds to its first pass", SECONDS)
        self.computed = histogram("te_request_inference_duration", "seconds of its passes", SECONDS)
        self.batch_size = histogram("te_batch_next_size", "texts of a pass", SIZES)
        self.batch_tokens = histogram("te_batch_next_tokens", "tokens of a pass", SIZES)
        self.queue_size = gauge("te_queue_size", "calls that wait or run")
        self.queue_tokens = gauge("te_queue_tokens", "tokens that wait")

    def observe_pass(self, texts: int, tokens: int, seconds: float) -> None:
        self.batch_size.observe(texts)
        self.batch_tokens.observe(tokens)

    def observe_request(self, path: str, status: int, seconds: float, use: Any) -> None:
        self.count.labels(path).inc()
        if status < 400:
            self.success.labels(path).inc()
        else:
            self.failure.labels(path, str(status)).inc()
        self.duration.observe(seconds)
        if use is not None and use.queued_s is not None:
            self.queued.observe(use.queued_s)
            self.computed.observe(use.computed_s)
            self.tokens.inc(use.tokens)
            self.truncated.inc(use.truncated)

    def observe_queue(self, calls: int, tokens: int) -> None:
        self.queue_size.set(calls)
        self.queue_tokens.set(tokens)

    def text(self) -> tuple[bytes, str]:
        """The figures of all workers, and their content type."""
        registry = self.registry
        if os.environ.get(FOLDER):
            from prometheus_client import multiprocess

            registry = self._prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return self._prometheus.generate_latest(registry), self._prometheus.CONTENT_TYPE_LATEST
