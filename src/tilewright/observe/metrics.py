"""Prometheus metrics of the run time: read from the table when they are scraped, so that calls pay nothing for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tilewright.errors import MissingPackage
from tilewright.runtime import learner, modes
from tilewright.runtime.table import TABLE, Row

_PER_SHAPE = (
    ("calls", "Calls of a shape.", lambda row: row.calls),
    ("hits", "Calls answered by a specialised kernel.", lambda row: row.hits),
    ("misses", "Calls answered by a generic kernel.", lambda row: row.misses),
    ("swaps", "Kernels exchanged.", lambda row: row.swaps),
)


class RuntimeCollector:
    """A collector of prometheus-client: `REGISTRY.register(RuntimeCollector())`; MissingPackage without the library."""

    def __init__(self) -> None:
        self._families = _client().core

    def collect(self) -> Iterator[Any]:
        """Metrics as they are now."""
        rows = TABLE.rows()
        for name, doc, value in _PER_SHAPE:
            yield self._by_shape(f"tilewright_{name}", doc, rows, value)
        saved = self._families.GaugeMetricFamily(
            "tilewright_saved_seconds", "Seconds saved by specialised kernels, as measured when they were promoted."
        )
        saved.add_metric([], sum(row.saved_seconds for row in rows))
        yield saved
        for name, doc, count in _whole():
            found = self._families.CounterMetricFamily(f"tilewright_{name}", doc)
            found.add_metric([], count)
            yield found

    def _by_shape(self, name: str, doc: str, rows: tuple[Row, ...], value: Any) -> Any:
        labels = ("operator", "batch", "length", "dtype", "device")
        family, sums = self._families.CounterMetricFamily(name, doc, labels=labels), dict[Any, int]()
        for row in rows:  # several slots may have one shape: layouts differ
            sums[row.shape] = sums.get(row.shape, 0) + value(row)
        for shape, count in sums.items():
            family.add_metric([shape.operator, *(str(r or "") for r in (shape.batch, shape.length)), *shape[3:]], count)
        return family


def _whole() -> list[tuple[str, str, int]]:
    counts, at_work = modes.counts(), learner.current()
    found = [
        ("compiles", "Kernels compiled in this process.", counts.compiles),
        ("loads", "Kernels found on disk.", counts.loads),
        ("frozen_compiles", "Kernels compiled although the mode is frozen.", counts.frozen_compiles),
        ("evictions", "Slots that made room for others.", TABLE.evictions),
    ]
    if at_work is not None:
        status = at_work.status()
        found += [
            ("searches", "Searches begun, first looks included.", status.searches),
            ("first_looks", "First looks: the default design for a shape beside the generic kernel.", status.looks),
            ("promotions", "Searches that gave a faster kernel.", status.promoted),
            ("background_crashes", "Deaths of the background process.", status.crashes),
        ]
    return found


def metrics_text() -> str:
    """All of it in the text format of Prometheus."""
    client = _client()
    registry = client.CollectorRegistry()
    registry.register(RuntimeCollector())
    return str(client.generate_latest(registry).decode())


def _client() -> Any:
    try:
        import prometheus_client.core
    except ImportError:
        raise MissingPackage("metrics need prometheus-client: pip install 'tilewright[serve]'") from None
    return prometheus_client


__all__ = ["RuntimeCollector", "metrics_text"]
