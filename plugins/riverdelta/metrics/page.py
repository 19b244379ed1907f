"""Page: what all workers count, put together from the files that they share, as Prometheus reads it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import Metric, generate_latest
from prometheus_client.utils import floatToGoString

Doubles = npt.NDArray[np.float64]
_SUM, _LEAST, _MOST, _LAST = range(4)
#: How the values of several processes become one, by the mode of a gauge; those of `all` stay apart by their process.
_MODES = {"sum": _SUM, "all": _SUM, "min": _LEAST, "max": _MOST, "mostrecent": _LAST}
_HEAD = 8
_written: Any = floatToGoString  # untyped


class Page:
    """The text that `prometheus_client` makes of a folder of multiprocess files, for a tenth of the time and less.

    Which series there are changes seldom: where the numbers of each lie is found out once, and again when a file or a series
    has come. From then on a page is a few reads and sums, and only the lines whose value has changed are written anew.

    A file `<type>[_<mode>]_<pid>.db` is an int32 of the bytes used, 4 of padding, then entries: int32 length of a key, the
    JSON key padded to 8 bytes, and two doubles, a value and the time of its last `set`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._known: dict[str, int] = {}
        self._plan = _Plan([])

    def text(self) -> bytes:
        """Return the page; any thread may ask."""
        with self._lock:
            files = [file for name in sorted(os.listdir(self._folder)) if name.endswith(".db") for file in self._read(name)]
            if self._plan.made_of != [file.identity for file in files]:
                self._plan = _Plan(files)
            return self._plan.text([file.data for file in files])

    def _read(self, name: str) -> Iterator[_File]:
        """Yield the used part of a file; nothing where its worker's end has removed it meanwhile, or it is only just made."""
        try:
            with open(self._folder / name, "rb", buffering=0) as file:
                data = file.read(self._known.get(name, 1 << 14))
                used = _integer(data, 0)
                while len(data) < used and (more := file.read(used - len(data))):
                    data += more
                inode = os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return
        if used > _HEAD:
            self._known[name] = used
            yield _File(name, inode, data[:used])


@dataclass(frozen=True)
class _File:
    name: str
    inode: int
    data: bytes

    @property
    def identity(self) -> tuple[str, int, int]:
        # Entries are only ever added.
        return self.name, self.inode, len(self.data)

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield each key and the double that its value is, counted from the beginning of the file."""
        at = _HEAD
        while at < len(self.data):
            size = _integer(self.data, at)
            key = self.data[at + 4 : at + 4 + size].decode()
            at += 4 + size + 8 - (size + 4) % 8
            yield key, at // 8
            at += 16


class _Plan:
    """Where the numbers of each series lie, how they become one, and the lines in which they are shown."""

    def __init__(self, files: Sequence[_File]) -> None:
        self.made_of = [file.identity for file in files]
        metrics: dict[str, Metric] = {}
        series: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        owner: list[tuple[str, str, dict[str, str]]] = []
        place, number, kinds, start = [], [], [], 0
        for file in files:
            kind, *mode, pid = file.name[: -len(".db")].split("_")
            rule = _MODES[mode[0].removeprefix("live")] if mode else _SUM
            for key, at in file.entries():
                metric, name, labels, text = json.loads(key)
                if mode and mode[0].endswith("all"):
                    labels = {**labels, "pid": pid}
                metrics.setdefault(metric, Metric(metric, text, kind))
                named = name, tuple(sorted(labels.items()))
                if named not in series:
                    series[named] = len(owner)
                    owner.append((metric, name, labels))
                place.append(start + at)
                number.append(series[named])
                kinds.append(rule)
            start += len(file.data) // 8
        self._groups: list[tuple[npt.NDArray[np.intp], int]] = []
        for metric in [m for m in metrics.values() if m.type == "histogram"]:
            self._add_counts(metric, owner)
        self._count = len(owner)
        self._place, self._number, rules = (np.array(a, np.intp) for a in (place, number, kinds))
        self._of = [np.flatnonzero(rules == rule) for rule in range(4)]
        self._show(metrics, owner)

    def _add_counts(self, metric: Metric, owner: list[tuple[str, str, dict[str, str]]]) -> None:
        """Files hold each bucket's own hits: note which to add up, in order, and make a series of their count."""
        groups: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
        for i, (of, _, labels) in enumerate(owner):
            if of == metric.name and "le" in labels:
                rest = tuple((k, v) for k, v in sorted(labels.items()) if k != "le")
                groups.setdefault(rest, []).append((float(labels["le"]), i))
        for rest, buckets in groups.items():
            self._groups.append((np.array([i for _, i in sorted(buckets)], np.intp), len(owner)))
            owner.append((metric.name, f"{metric.name}_count", dict(rest)))

    def _show(self, metrics: dict[str, Metric], owner: list[tuple[str, str, dict[str, str]]]) -> None:
        """Have the page written once with each series' number as its value: what stands before it stays."""
        order = sorted(range(len(owner)), key=lambda i: _order(*owner[i]) if metrics[owner[i][0]].type == "histogram" else ())
        for i in order:
            metric, name, labels = owner[i]
            metrics[metric].add_sample(name, labels, float(i))
        written = generate_latest(_Collected(list(metrics.values())))
        self._lines = written.decode().splitlines(keepends=True)
        self._line, self._before = np.zeros(len(owner), np.intp), [""] * len(owner)
        for at, line in enumerate(self._lines):
            if not line.startswith("#"):
                before, _, value = line.rpartition(" ")
                self._line[int(float(value))], self._before[int(float(value))] = at, f"{before} "
                self._lines[at] = ""
        self._shown = np.full(len(owner), np.nan)
        self._there = np.zeros(len(owner), np.bool_)

    def text(self, data: Sequence[bytes]) -> bytes:
        """Return the page of these bytes of the plan's files."""
        values, there = self._values(np.frombuffer(b"".join(data), np.float64))
        new = (there != self._there) | ((values != self._shown) & ~(np.isnan(values) & np.isnan(self._shown)))
        for i in np.flatnonzero(new).tolist():
            self._lines[self._line[i]] = f"{self._before[i]}{_written(values[i])}\n" if there[i] else ""
        self._shown, self._there = values, there
        return "".join(self._lines).encode()

    def _values(self, doubles: Doubles) -> tuple[Doubles, npt.NDArray[np.bool_]]:
        """Each series' value, and whether it has one: a gauge of which the last `set` counts has none before the first."""
        value, time = doubles[self._place], doubles[self._place + 1]
        out = np.zeros(self._count)
        there = np.ones(self._count, np.bool_)
        sums, least, most, last = self._of
        np.add.at(out, self._number[sums], value[sums])
        for rows, take in ((least, np.fmin), (most, np.fmax)):
            out[self._number[rows]] = np.nan
            take.at(out, self._number[rows], value[rows])
        there[self._number[last]] = False
        last = last[time[last] > 0.0]
        last = last[np.argsort(time[last], kind="stable")]
        out[self._number[last]] = value[last]  # the later of two with one place stays
        there[self._number[last]] = True
        for buckets, count in self._groups:
            out[buckets] = np.cumsum(out[buckets])
            out[count] = out[buckets[-1]]
        return out, there


class _Collected:
    """As much of a registry as `generate_latest` asks for."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _order(metric: str, name: str, labels: dict[str, str]) -> tuple[Any, ...]:
    """Of a histogram's series: those of one kind together, buckets ascending, then their count, then their sum."""
    rest = tuple((k, v) for k, v in sorted(labels.items()) if k != "le")
    kind = ("_bucket", "_count", "_sum").index(name.removeprefix(metric))
    return metric, rest, kind, float(labels.get("le", 0.0))


def _integer(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], sys.byteorder)
