"""Probe: scores a few made-up rows with a base, to find the values that one of its outputs takes."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import RunOptions

from riverdelta.core.digests import Identity
from riverdelta.core.errors import ModelError
from riverdelta.core.features import Column, Schema
from riverdelta.graph.runtime import open_session

_log = logging.getLogger(__name__)
#: Models larger than this, with their weights, are not probed, so that an import stays short.
MOST_BYTES = 256 << 20
#: All runs together may take this long; what takes longer is stopped.
MOST_SECONDS = 2.0
#: No block of rows has more numbers than this.
_MOST_NUMBERS = 1 << 21
_ROWS, _AXIS = 32, 8
_Values = npt.NDArray[np.float64]
_probed: dict[tuple[object, ...], _Values] = {}


def values_of(path: Path, model: onnx.ModelProto, inputs: Schema, output: str, read_as: tuple[Identity, ...]) -> _Values:
    """Return the finite values of an output, float64[n], of the same rows at every call; none if the base cannot be probed.

    The rows: one of zeros; ids up to 3, then up to 1,000, with standard normal numbers; and numbers from 0 to 1. Rows that the
    base refuses, such as ids beyond its tables, are left out. `read_as` identifies the files: unchanged ones are probed once.
    """
    key = (path.resolve(), output, read_as)
    if key not in _probed:
        _probed[key] = (
            _score(path, model, inputs, output) if sum(size for _, _, size, *_ in read_as) <= MOST_BYTES else np.empty(0)
        )
    return _probed[key]


def _score(path: Path, model: onnx.ModelProto, inputs: Schema, output: str) -> _Values:
    try:
        session = open_session(model.SerializeToString(), ("CPUExecutionProvider",), source=path)
    except ModelError:  # the session that serves it says why it cannot be opened
        return np.empty(0)
    found, options = [np.empty(0)], RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(MOST_SECONDS, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    for block in _blocks(inputs):
        try:
            found.append(np.asarray(session.run([output], block, options)[0], np.float64).ravel())
        except Exception:  # ONNX Runtime's errors share no base class but Exception
            _log.debug("%s: a probed block was refused", path, exc_info=True)
    timer.cancel()
    values = np.concatenate(found)
    return values[np.isfinite(values)]


def _blocks(inputs: Schema) -> Iterator[dict[str, npt.NDArray[Any]]]:
    rng = np.random.default_rng(0)
    shapes = {name: [_AXIS if n is None else n for n in column.shape] for name, column in inputs.items()}
    if sum(math.prod((_ROWS, *shape)) for shape in shapes.values()) > _MOST_NUMBERS:
        return
    for rows, most, numbers in (
        (1, 0, np.zeros),
        (_ROWS, 3, rng.standard_normal),
        (_ROWS, 1_000, rng.standard_normal),
        (_ROWS, 3, rng.random),
    ):
        block = {}
        for name, column in inputs.items():
            shape = (rows, *shapes[name])
            drawn = numbers(shape) if column.numpy.kind == "f" else rng.integers(0, 1 + min(most, _largest(column)), shape)
            block[name] = drawn.astype(column.numpy)
        yield block


def _largest(column: Column) -> int:
    return 1 if column.numpy.kind == "b" else int(np.iinfo(column.numpy).max)
