"""Bound tables: correction tables that the session reads in place, written row by row."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from riverdelta.core.features import Floats, Ints

_log = logging.getLogger(__name__)


class HostTable:
    """A table in host memory; ONNX Runtime reads the numpy array in place, so the next run reads what was written.

    One that `grows` has at least the rows written so far, and zeros behind them. A write that needs more rows than there are
    makes at least twice as many, in another `value`.
    """

    scatter = "in-place"

    def __init__(self, values: Floats, grows: bool = False) -> None:
        self.host, self.grows = np.ascontiguousarray(values).copy(), grows
        self.value: Any = self.host

    def write(self, rows: Ints | None, values: Floats) -> None:
        """Write rows, or all of them if `rows` is None."""
        at = self._at(rows, values)
        if rows is None:
            self.host[len(values) :] = 0
        self.host[at] = values

    def holds(self, rows: Ints | None, values: Floats) -> bool:
        """Return whether the session would now read `values` at `rows`."""
        return np.array_equal(self.host[slice(len(values)) if rows is None else rows], values)

    def _at(self, rows: Ints | None, values: Floats) -> slice | Ints:
        """Return where to write, once there is room for it."""
        need = len(values) if rows is None else int(rows.max(initial=-1)) + 1
        if self.grows and need > len(self.host):
            former, self.host = self.host, np.zeros((max(need, 2 * len(self.host)), *self.host.shape[1:]), self.host.dtype)
            self.host[: len(former)] = former
            self.value = self.host
        return slice(len(values)) if rows is None else rows


class DeviceTable(HostTable):
    """A table in device memory, with a host copy.

    Rows are scattered in place by a ScatterND session whose output is bound to its input's memory. If the self-test at
    start-up shows that this does not work on this machine, every write copies the entire table.
    """

    def __init__(self, values: Floats, grows: bool = False, device: str = "cuda") -> None:
        super().__init__(values, grows)
        self.value = onnxruntime.OrtValue.ortvalue_from_numpy(self.host, device, 0)
        self._device = device
        self._scatter = _scatter_session(self.host)
        self.scatter = "in-place" if self._self_test() else "copy"

    def write(self, rows: Ints | None, values: Floats) -> None:
        """Write rows, or all of them if `rows` is None."""
        there = self.host
        super().write(rows, values)
        if self.host is not there:
            self.value = onnxruntime.OrtValue.ortvalue_from_numpy(self.host, self._device, 0)
        elif rows is None or self.scatter == "copy":
            self.value.update_inplace(self.host)
        elif len(rows):
            self._scatter_rows(rows, values)

    def holds(self, rows: Ints | None, values: Floats) -> bool:
        """Return whether the session would now read `values` at `rows`."""
        now = self.value.numpy()
        return np.array_equal(now[: len(values)] if rows is None else now[rows], values)

    def _scatter_rows(self, rows: Ints, values: Floats) -> None:
        binding = self._scatter.io_binding()
        binding.bind_ortvalue_input("table", self.value)
        binding.bind_cpu_input("rows", np.ascontiguousarray(rows.reshape(-1, 1)))
        binding.bind_cpu_input("values", np.ascontiguousarray(values))
        shape, kind = list(self.host.shape), self.host.dtype
        binding.bind_output("out", self._device, 0, kind, shape, buffer_ptr=self.value.data_ptr())
        self._scatter.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def _self_test(self) -> bool:
        """Return whether scattering one row changes that row and nothing else."""
        if not len(self.host):
            return True
        row, before = np.array([len(self.host) - 1]), self.host.copy()
        try:
            expected = before.copy()
            expected[row] += 1
            self._scatter_rows(row, expected[row])
            works = np.array_equal(self.value.numpy(), expected)
        except Exception as error:  # whatever the device's failure, copy instead
            _log.warning("scattering rows on the device failed (%s); entire tables are copied", error)
            works = False
        self.value.update_inplace(before)
        return works


def _scatter_session(table: Floats) -> Any:
    kind, tensor = helper.np_dtype_to_tensor_dtype(table.dtype), helper.make_tensor_value_info
    shape = ["rows", *table.shape[1:]]  # a table may grow
    graph = helper.make_graph(
        [helper.make_node("ScatterND", ["table", "rows", "values"], ["out"])],
        "scatter",
        [
            tensor("table", kind, shape),
            tensor("rows", TensorProto.INT64, ["R", 1]),
            tensor("values", kind, ["R", *shape[1:]]),
        ],
        [tensor("out", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
