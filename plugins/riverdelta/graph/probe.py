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

from riverdelta.core.errors import ModelError
from riverdelta.core.features import Schema
from riverdelta.graph.runtime import open_session

_log = logging.getLogger(__name__)
#: Models larger than this, with their weights, are not probed, so that an import stays short.
MOST_BYTES = 256 << 20
#: All runs together may take this long; what takes longer is stopped.
MOST_SECONDS = 2.0
#: No block of rows has more numbers than this.
_MOST_NUMBERS = 1 << 21
_ROWS, _LEAST, _AXIS = 32, 8, 8


def values_of(path: Path, model: onnx.ModelProto, inputs: Schema, output: str, size: int) -> npt.NDArray[np.float64]:
    """Return the finite values of an output, float64[n], of the same rows at every call; none if the base cannot be probed.

    `size` is that of the model's files in bytes.

    The rows: one of zeros; ids up to 1, then up to 1,000, with standard normal numbers; ids up to 3 with numbers from 0 to 1;
    and a few of huge numbers, for which a linear score leaves every bound. Blocks that the base refuses, such as ids beyond its
    tables, are left out, and fewer than 8 values count as not probed.
    """
    found, options = [np.empty(0)], RunOptions()
    options.log_severity_level = 4
    if size > MOST_BYTES:
        return found[0]
    try:
        session = open_session(model.SerializeToString(), ("CPUExecutionProvider",), source=path)
    except ModelError:  # the session that serves it says why it cannot be opened
        return found[0]
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
    values = values[np.isfinite(values)]
    return values if len(values) >= _LEAST else np.empty(0)


def _blocks(inputs: Schema) -> Iterator[dict[str, npt.NDArray[Any]]]:
    rng = np.random.default_rng(0)
    shapes = {name: [_AXIS if n is None else n for n in column.shape] for name, column in inputs.items()}
    if sum(math.prod((_ROWS, *shape)) for shape in shapes.values()) > _MOST_NUMBERS:
        return
    for rows, most, numbers in (
        (1, 0, np.zeros),
        (_ROWS, 1, rng.standard_normal),
        (_ROWS, 1_000, rng.standard_normal),
        (_ROWS, 3, rng.random),
        (_ROWS // 4, 1, lambda shape: 1e6 * rng.standard_normal(shape)),
    ):
        block = {}
        for name, column in inputs.items():
            kind, shape = column.numpy, (rows, *shapes[name])
            largest = 1 if kind.kind == "b" else most if kind.kind == "O" else min(most, 2 ** (8 * kind.itemsize - 1) - 1)
            drawn = np.asarray(numbers(shape) if kind.kind == "f" else rng.integers(0, largest + 1, shape))
            with np.errstate(over="ignore"):
                block[name] = drawn.astype(str if kind.kind == "O" else kind).astype(kind)
        yield block
