"""Kernels: the compiled functions of a loss, which loops call row by row.

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
#: value(raw[K], label) -> loss, unbounded; `Loss.value` applies the bound.
VALUE = _Number(_Row, _Number)
#: derivatives(raw[K], label, weight, gradient[K], curvature[K]): fills the last two with those of the loss times the weight.
DERIVATIVES = types.void(_Row, _Number, _Number, _Row, _Row)
#: mix(base[K], corrected[K], weight, served[K]): fills the last one.
MIX = types.void(_Row, _Row, _Number, _Row)
#: predict(raw[K], prediction[K]): fills the last one.
PREDICT = types.void(_Row, _Row)


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


@numba.njit(types.void(_Rows, _Row, KERNELS, _Row), cache=True)
def values(raw, label, loss, out):  # type: ignore[no-untyped-def]
    """Fill out[N] with the loss of each row."""
    for i in range(raw.shape[0]):
        out[i] = loss.value(raw[i], label[i])


@numba.njit(types.void(_Rows, _Row, _Row, KERNELS, _Rows, _Rows), cache=True)
def derivatives(raw, label, weight, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill gradient[N, K] and curvature[N, K] of each row."""
    for i in range(raw.shape[0]):
        loss.derivatives(raw[i], label[i], weight[i], gradient[i], curvature[i])


@numba.njit(types.void(_Rows, _Rows, _Number, KERNELS, _Rows), cache=True)
def mixtures(base, corrected, weight, loss, out):  # type: ignore[no-untyped-def]
    """Fill out[N, K] with the served raw output of each row."""
    for i in range(base.shape[0]):
        loss.mix(base[i], corrected[i], weight, out[i])


@numba.njit(types.void(_Rows, KERNELS, _Rows), cache=True)
def predictions(raw, loss, out):  # type: ignore[no-untyped-def]
    """Fill out[N, K] with the prediction of each row."""
    for i in range(raw.shape[0]):
        loss.predict(raw[i], out[i])
