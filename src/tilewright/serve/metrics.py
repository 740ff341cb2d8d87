"""Metrics of the server for Prometheus: requests, tokens, waiting and pace, beside those of the run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tilewright.observe.metrics import RuntimeCollector
from tilewright.serve.job import Job

if TYPE_CHECKING:
    from tilewright.serve.runner import Runner

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PACE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """Counters of one server, and what the run time of its process counts."""

    def __init__(self, runner: Runner) -> None:
        self._registry = made = CollectorRegistry()
        made.register(RuntimeCollector())
        self.requests = Counter(
            "tilewright_http_requests", "Answers, by path and status.", ("path", "status"), registry=made
        )
        self._ended = Counter("tilewright_completions", "Completions, by how they ended.", ("reason",), registry=made)
        self._read = Counter("tilewright_prompt_tokens", "Tokens of prompts that were begun.", registry=made)
        self._made = Counter("tilewright_new_tokens", "Tokens generated.", registry=made)
        self._first = Histogram(
            "tilewright_time_to_first_token_seconds",
            "From a request to its first token.",
            buckets=_SECONDS,
            registry=made,
        )
        self._pace = Histogram(
            "tilewright_time_per_token_seconds", "Between tokens after the first.", buckets=_PACE, registry=made
        )
        self._whole = Histogram(
            "tilewright_completion_seconds", "From a request to its last token.", buckets=_SECONDS, registry=made
        )
        gauges = (
            ("queue_length", "Completions that wait for a row.", lambda: runner.waiting),
            ("running_completions", "Completions under way.", lambda: max(0, runner.held - runner.waiting)),
            ("engine_failures", "Steps of the engine that failed.", lambda: runner.failures),
        )
        for name, doc, value in gauges:
            Gauge(f"tilewright_{name}", doc, registry=made).set_function(value)

    def ended(self, jobs: Sequence[Job]) -> None:
        """The jobs of a request are over, or nobody waits for them any more."""
        for job in jobs:
            request = job.request
            reason = "cancelled" if job.cancelled else "failed"
            if request is not None and request.finish_reason in ("stop", "length"):
                reason = request.finish_reason
            self._ended.labels(reason).inc()
            if request is None or not request.first_token:
                continue
            more, seconds = len(request.output_ids) - 1, request.last_token - request.first_token
            self._read.inc(len(request.prompt_ids))
            self._made.inc(more + 1)
            self._first.observe(request.first_token - job.created)
            self._whole.observe(request.last_token - job.created)
            if more > 0:
                self._pace.observe(seconds / more)

    def text(self) -> bytes:
        """All of it in Prometheus's format."""
        return generate_latest(self._registry)


__all__ = ["Metrics"]
