"""Files: the folder in which all workers of a service count, put together into one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

_multiprocess: Any = multiprocess  # untyped


def page() -> bytes:
    """Return the text of /metrics that all workers' files in PROMETHEUS_MULTIPROC_DIR make; raises `ValueError` without it."""
    registry = CollectorRegistry()
    _multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)


def forget_dead_workers() -> list[int]:
    """Stop counting the live gauges of workers that no longer run, and return their process ids; for a worker's start.

    Without it the gauges of a worker that was killed are added up for ever. Does nothing outside multiprocess mode.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    names = {path.stem.rpartition("_")[2] for path in Path(folder).glob("gauge_live*_*.db")} if folder else set()
    dead = sorted(int(pid) for pid in names if pid.isdigit() and not psutil.pid_exists(int(pid)))
    for pid in dead:
        _multiprocess.mark_process_dead(pid)
    return dead
