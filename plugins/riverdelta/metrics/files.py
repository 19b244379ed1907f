"""Files: the metrics that all workers of a service write to one folder, aggregated into one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

_multiprocess: Any = multiprocess  # untyped


def page() -> bytes:
    """Return the text of /metrics, from all workers' files in PROMETHEUS_MULTIPROC_DIR; raises `ValueError` if it is unset."""
    registry = CollectorRegistry()
    _multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)


def forget_dead_workers() -> list[int]:
    """Remove the live gauges of workers that no longer run and return their process ids; called when a worker starts.

    Otherwise the gauges of a killed worker would be summed forever. Does nothing outside multiprocess mode.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    names = {path.stem.rpartition("_")[2] for path in Path(folder).glob("gauge_live*_*.db")} if folder else set()
    dead = sorted(int(pid) for pid in names if pid.isdigit() and not psutil.pid_exists(int(pid)))
    for pid in dead:
        _multiprocess.mark_process_dead(pid)
    return dead
