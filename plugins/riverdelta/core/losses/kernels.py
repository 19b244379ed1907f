"""Kernels: the compiled functions of a loss, which loops call list by list.

A list is n rows that are compared with each other. A loss that compares none treats each row on its own, so that loops may give
it any rows at once.

The functions are numba first-class functions, so that one compiled and cached loop accepts any loss. They are passed together
as one `Kernels`, which takes 1 µs per call; passing each function separately would take 15 to 50 µs.
"""

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.experimental import structref as _structref

structref: Any = _structref  # untyped
_Row, _Rows, _Number = types.float64[::1], types.float64[:, ::1], types.float64
#: value(raw[n, K], label[n], losses[n]): fills the last one, unbounded; `Loss.value` applies the bound.
VALUE = types.void(_Rows, _Row, _Row)
#: derivatives(raw[n, K], label[n], weight[n], gradient[n, K], curvature[n, K]): fills the last two with those of the list's
#: loss, each row's part times its weight.
DERIVATIVES = types.void(_Rows, _Row, _Row, _Rows, _Rows)
#: mix(base[n, K], corrected[n, K], weight, served[n, K]): fills the last one.
MIX = types.void(_Rows, _Rows, _Number, _Rows)
#: predict(raw[n, K], prediction[n, K]): fills the last one.
PREDICT = types.void(_Rows, _Rows)


@structref.register
class _Kernels(types.StructRef):
    pass


#: The numba type of `Kernels`, for the signature of a loop.
KERNELS = _Kernels(  # type: ignore[no-untyped-call]
    [
        ("value", types.FunctionType(VALUE)),
        ("derivatives", types.FunctionType(DERIVATIVES)),
        ("mix", types.FunctionType(MIX)),
        ("predict", types.FunctionType(PREDICT)),
    ]
)


class Kernels(structref.StructRefProxy):
    """The compiled functions of one loss: `value`, `derivatives`, `mix` and `predict`.

    Each is decorated with `numba.njit(SIGNATURE, cache=True)`, SIGNATURE being that of its name in this module.
    """

    functions: tuple[Any, ...]

    def __new__(cls, value: Any, derivatives: Any, mix: Any, predict: Any) -> Kernels:
        kernels: Kernels = _made(value, derivatives, mix, predict)
        kernels.functions = value, derivatives, mix, predict
        return kernels


structref.define_boxing(_Kernels, Kernels)


@numba.njit(KERNELS(*(kind for _, kind in KERNELS._fields)), cache=True)
def _made(value, derivatives, mix, predict):  # type: ignore[no-untyped-def]
    kernels = structref.new(KERNELS)
    kernels.value = value
    kernels.derivatives = derivatives
    kernels.mix = mix
    kernels.predict = predict
    return kernels


_Starts = types.int64[::1]


@numba.njit(types.void(_Rows, _Row, _Starts, KERNELS, _Row), cache=True)
def values(raw, label, starts, loss, out):  # type: ignore[no-untyped-def]
    """Fill out[N] with the loss of each row; list n is rows starts[n] to starts[n + 1]."""
    for n in range(starts.shape[0] - 1):
        a, b = starts[n], starts[n + 1]
        loss.value(raw[a:b], label[a:b], out[a:b])


@numba.njit(types.void(_Rows, _Row, _Row, _Starts, KERNELS, _Rows, _Rows), cache=True)
def derivatives(raw, label, weight, starts, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill gradient[N, K] and curvature[N, K] of each row."""
    for n in range(starts.shape[0] - 1):
        a, b = starts[n], starts[n + 1]
        loss.derivatives(raw[a:b], label[a:b], weight[a:b], gradient[a:b], curvature[a:b])


@numba.njit(types.void(_Rows, _Rows, _Number, _Starts, KERNELS, _Rows), cache=True)
def mixtures(base, corrected, weight, starts, loss, out):  # type: ignore[no-untyped-def]
    """Fill out[N, K] with the served raw output of each row."""
    for n in range(starts.shape[0] - 1):
        a, b = starts[n], starts[n + 1]
        loss.mix(base[a:b], corrected[a:b], weight, out[a:b])


@numba.njit(types.void(_Rows, _Starts, KERNELS, _Rows), cache=True)
def predictions(raw, starts, loss, out):  # type: ignore[no-untyped-def]
    """Fill out[N, K] with the prediction of each row."""
    for n in range(starts.shape[0] - 1):
        a, b = starts[n], starts[n + 1]
        loss.predict(raw[a:b], out[a:b])
