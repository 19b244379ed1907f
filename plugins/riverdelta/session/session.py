"""Session: scores with one half of the tables while the other is written, then exchanges them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from riverdelta.corrections.nodes import PREFIX
from riverdelta.errors import Corrupt
from riverdelta.features import Columns, Floats
from riverdelta.registry.state import Delta, State
from riverdelta.session.half import Half
from riverdelta.session.providers import choose_providers, open_session


@dataclass(frozen=True)
class Scored:
    """What one run computed, float32[N] each, the taps by name, and the one state that computed it."""

    score: Floats
    logit: Floats
    corrected: Floats
    base: Floats
    taps: dict[str, npt.NDArray[Any]]
    state: State


class Session:
    """A merged model in ONNX Runtime, safe to run from any number of threads while `swap` exchanges its tables.

    Tables are fed as ONNX Runtime values: on the CPU they share memory with numpy, on a device they live there. A run reads
    the half that was active when it began, to its end; `swap` writes the other half once its last reader has let go.
    """

    def __init__(self, model: Path, state: State, providers: Sequence[str] | None = None, threads: int = 0) -> None:
        providers = tuple(providers or choose_providers())
        self._session = open_session(model, providers, threads)
        self.provider: str = self._session.get_providers()[0]
        tables = _tables(model)
        on_device = self.provider == "CUDAExecutionProvider"
        self._active, self._idle = (Half(tables, state, on_device) for _ in range(2))
        self._behind: list[Delta] = []  # what the idle half has not seen yet
        self._exchange, self._writing = threading.Lock(), threading.Lock()
        self.table_names = tuple(tables)
        self.input_names = tuple(i.name for i in self._session.get_inputs() if i.name not in tables)
        self._outputs = tuple(o.name for o in self._session.get_outputs())

    @property
    def state(self) -> State:
        """The state that a run started now would be scored by."""
        return self._active.state

    @property
    def scatter(self) -> str:
        """How rows reach the tables: `in-place`, or `copy` where a device copies whole tables."""
        return "copy" if any(t.scatter == "copy" for t in self._active.tables.values()) else "in-place"

    def run(self, columns: Columns) -> Scored:
        """Score a block of checked columns."""
        with self._exchange:
            half = self._active
            half.enter()
        with half.reading():
            binding = self._session.io_binding()
            for name in self.input_names:
                binding.bind_cpu_input(name, columns[name])
            for name, value in half.values.items():
                binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name)
            self._session.run_with_iobinding(binding)
            out = dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))
            score, logit, corrected, base = (out.pop(n) for n in ("score", "logit", "corrected_logit", "base_logit"))
            return Scored(score, logit, corrected, base, out, half.state)

    def swap(self, delta: Delta) -> float:
        """Put `delta` into service and return how long it took in seconds.

        Raises `Corrupt` when it does not fit or does not apply to the present state; the session then goes on as it was.
        """
        start = time.perf_counter()
        with self._writing:
            if delta.base is not None and delta.base != self._active.state:
                raise Corrupt(f"state {delta.state} follows {delta.base}, and {self._active.state} is in service")
            self._idle.check(delta)
            self._idle.wait_until_idle()
            self._idle.apply([*self._behind, delta] if delta.base is not None else [delta])
            with self._exchange:
                self._active, self._idle = self._idle, self._active
            self._behind = [delta]
        return time.perf_counter() - start


def _tables(model: Path) -> dict[str, Floats]:
    """Read the overridable tables that are baked into a merged model."""
    graph = onnx.load(model, load_external_data=False).graph
    inputs = {i.name for i in graph.input}
    return {
        t.name: np.array(numpy_helper.to_array(t), np.float32)
        for t in graph.initializer
        if t.name.startswith(PREFIX) and t.name in inputs
    }
