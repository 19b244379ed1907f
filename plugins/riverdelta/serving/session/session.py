"""Session: scores with one set of tables while the other is written, then exchanges them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from riverdelta.core.errors import Corrupt, InvalidInput, ModelError
from riverdelta.core.features import Columns, Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.nodes import PREFIX
from riverdelta.graph.runtime import choose_providers, open_session
from riverdelta.graph.taps import outputs
from riverdelta.serving.session.dense import Dense
from riverdelta.serving.session.half import Half
from riverdelta.storage.registry.state import Delta, State


@dataclass(frozen=True)
class Scored:
    """The outputs of one run, float32[N] each ([N, K] for K outputs), the taps by name, and the state that computed them.

    Besides the score: the raw outputs as served, corrected and of the base.
    """

    score: Floats
    served: Floats
    corrected: Floats
    base: Floats
    taps: dict[str, npt.NDArray[Any]]
    state: State


class Session:
    """A merged model in ONNX Runtime that any number of threads may run while `swap` exchanges its tables.

    Tables are read in place: numpy arrays on the CPU, values in device memory otherwise. A run reads the half that was active
    when it began; `swap` writes the other half once its last reader is done. A `pinned` table keeps its value whatever is
    swapped in. Of the tables in `lately` those that the model lacks are ignored: its release is older than they are. With an
    index of rows come the names of the tables whose rows it gives; in such a model they have a row for each slot.
    """

    def __init__(
        self,
        model: Path,
        state: State,
        providers: Sequence[str] | None = None,
        threads: int = 1,
        pinned: Mapping[str, float] | None = None,
        loss: Loss = LOG_LOSS,
        lately: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        providers = tuple(providers or choose_providers())
        structure, tables, growing = _split(model)
        if lacking := (pinned or {}).keys() - tables.keys():
            raise ModelError(f"{model} has no table {min(lacking)!r}; it is not a merged model")
        self._pinned, self._ignored = frozenset(pinned or {}), lately.keys() - tables.keys()
        self._dense = [Dense(index, table) for index in self._ignored for table in lately[index] if table in tables]
        for name, value in (pinned or {}).items():
            tables[name] = np.full_like(tables[name], value)
        self._session = open_session(structure, providers, threads, source=model)
        self.provider: str = self._session.get_providers()[0]
        on_device = self.provider == "CUDAExecutionProvider"
        self._active, self._idle = (Half(tables, state, on_device, growing) for _ in range(2))
        self._behind: list[Delta] = []  # what the idle half still lacks
        self._exchange, self._writing = threading.Lock(), threading.Lock()
        self.table_names = tuple(tables)
        self.input_names = tuple(i.name for i in self._session.get_inputs() if i.name not in tables)
        self._outputs = tuple(o.name for o in self._session.get_outputs())
        self._named = outputs(loss)
        if lacking := set(self._named) - set(self._outputs):
            raise ModelError(f"{model} has no output {min(lacking)!r}; it is not a merged model")

    @property
    def state(self) -> State:
        """The state that a run would use now."""
        return self._active.state

    @property
    def scatter(self) -> str:
        """How rows reach the tables: `in-place`, or `copy` if a device copies entire tables."""
        return "copy" if any(t.scatter == "copy" for t in self._active.tables.values()) else "in-place"

    def run(self, columns: Columns) -> Scored:
        """Score a block of checked columns."""
        with self._exchange:
            half = self._active
            half.enter()
        with half.reading():
            try:
                values = half.score(self._session, columns, self.input_names, self._outputs)
            except InvalidArgument as error:  # most often an id beyond one of the base's own tables
                reason = str(error).splitlines()[0]
                raise InvalidInput(f"the model rejects these columns ({', '.join(self.input_names)}): {reason}") from error
            out = dict(zip(self._outputs, values, strict=True))
            score, served, corrected, base = (out.pop(name) for name in self._named)
            return Scored(score, served, corrected, base, out, half.state)

    def swap(self, delta: Delta) -> float:
        """Swap in `delta` and return the seconds that it took.

        Raises `Corrupt` if it does not fit or does not apply to the current state; the session then stays as it was.
        """
        start = time.perf_counter()
        with self._writing:
            if delta.base is not None and delta.base != self._active.state:
                raise Corrupt(f"state {delta.state} follows {delta.base}, but {self._active.state} is in service")
            for dense in self._dense:
                delta = dense.rewritten(delta)
            delta = _without(delta, self._ignored)
            self._active.check(delta)
            delta = _without(delta, self._pinned)
            self._idle.wait_until_idle()
            if delta.base is None:
                self._behind = []
            try:
                self._idle.apply([*self._behind, delta])
            except BaseException:
                # The idle half may contain any part of `delta`: the next swap starts from the active one, which is unchanged.
                self._behind = [self._active.complete()]
                raise
            with self._exchange:
                self._active, self._idle = self._idle, self._active
            self._behind = [delta]
        return time.perf_counter() - start


def _without(delta: Delta, names: Set[str]) -> Delta:
    if not names & delta.tables.keys():
        return delta
    return replace(delta, tables={name: table for name, table in delta.tables.items() if name not in names})


def _split(path: Path) -> tuple[bytes, dict[str, Floats], set[str]]:
    """Return a merged model without the values of its tables, the tables, so that ONNX Runtime keeps no third copy, and the
    names of those that grow."""
    tables: dict[str, Floats] = {}
    try:
        model = onnx.load(path, load_external_data=False)
        inputs, stored = {i.name: i.type.tensor_type.shape.dim for i in model.graph.input}, model.graph.initializer
        for at in reversed(range(len(stored))):
            if stored[at].name.startswith(PREFIX) and stored[at].name in inputs:
                tables[stored[at].name] = numpy_helper.to_array(stored[at]).copy()
                del stored[at]
        growing = {name for name in tables if inputs[name][0].dim_param}
        return model.SerializeToString(), dict(reversed(tables.items())), growing
    except Exception as error:  # protobuf's, onnx's and the file system's errors share no base class but Exception
        raise ModelError(f"{path} is not an ONNX model, or it is truncated: {error}") from error
