"""Which tables the README has, in the order in which each of its parts shows them."""

from __future__ import annotations

from tilewright.bench.tables_gpu import GPU_TABLES
from tilewright.bench.tables_host import HOST_TABLES

TABLES = (*HOST_TABLES, *GPU_TABLES)

__all__ = ["TABLES"]
