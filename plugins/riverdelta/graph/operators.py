"""Operators: the range of a node's output from those of its inputs, for ONNX's default domain.

An operator that is not listed gives an unknown range, which is never wrong: the probe or the user decides then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce
from math import inf

import numpy as np
import numpy.typing as npt

from riverdelta.graph.interval import ROUNDING, UNKNOWN, Call, Range

Operator = Callable[[Call], Range]
_PROBABILITY, _TRUTH, _COUNT, _SINE = Range(0, 1), Range(0, 1, whole=True), Range(0, inf, whole=True), Range(-1, 1)
#: These pass the values of their first input on; all outputs of Split and Dropout have its range.
PASSING = frozenset(
    "Identity Reshape Squeeze Unsqueeze Flatten Cast CastLike Slice Split Transpose Dropout Expand Tile Gather GatherElements "
    "GatherND Compress TopK DepthToSpace SpaceToDepth ReduceMax ReduceMin ReduceMean MaxPool GlobalAveragePool "
    "GlobalMaxPool".split()
)


def monotone(function: Callable[[float], float], low: float = -inf, high: float = inf, known: bool = True) -> Operator:
    """Return an increasing operator with values from `low` to `high`."""

    def apply(value: float, beyond: float) -> float:
        try:
            return min(max(function(value), low), high)
        except (OverflowError, ValueError):
            return beyond

    return lambda call: Range(apply(call.first.low, low), apply(call.first.high, high), known and call.first.known)


def _fixed(found: Range) -> Operator:
    return lambda call: found


def _fold(combine: Callable[[Range, Range], Range]) -> Operator:
    return lambda call: reduce(combine, call.given) if call.given else UNKNOWN


def _least(a: Range, b: Range) -> Range:
    return Range(min(a.low, b.low), min(a.high, b.high), a.known and b.known, a.whole and b.whole)


def _most(a: Range, b: Range) -> Range:
    return -_least(-a, -b)


def _mean(call: Call) -> Range:
    total = _fold(lambda a, b: a + b)(call)
    return total * Range(1 / len(call.given), 1 / len(call.given)) if call.given else UNKNOWN


def _clip(call: Call) -> Range:
    if call.opset < 11:
        return call.first.clipped(call.number("min", -inf), call.number("max", inf))
    low, high = (call.of(at) if at < len(call.inputs) and call.inputs[at] is not None else None for at in (1, 2))
    found = call.first if low is None else _most(call.first, low)
    return found if high is None else _least(found, high)


def _cast(call: Call) -> Range:
    kind = int(call.number("to", 1))
    if kind == 9:  # BOOL
        return _TRUTH
    floats = kind in (1, 10, 11, 16)
    low, high = (
        value if floats or math.isinf(value) else float(math.trunc(value)) for value in (call.first.low, call.first.high)
    )
    return Range(low, high, call.first.known, call.first.whole or not floats)


def _divide(call: Call) -> Range:
    found = call.first * call.of(1).inverted()
    # Numerator and denominator may depend on each other, as in eᶻ / (1 + eᶻ).
    return found if call.constant(0) is not None or call.constant(1) is not None else Range(found.low, found.high, known=False)


def _power(call: Call) -> Range:
    exponent = call.constant(1)
    if exponent is None or exponent.size != 1:
        return Range(0, inf, known=False) if call.first.low >= 0 else UNKNOWN
    power = float(exponent.flat[0])
    if power == 1:
        return call.first
    if power == -1:
        return call.first.inverted()
    if power > 0 and call.first.low >= 0:
        return monotone(lambda x: x**power, 0)(call)
    return Range(0, inf, call.first.known) if power % 2 == 0 else UNKNOWN


def _absolute(call: Call) -> Range:
    found = _most(call.first, -call.first)
    return Range(max(found.low, 0), found.high, found.known, found.whole)


def _leaky(call: Call) -> Range:
    slope = call.number("alpha", 0.01)
    return monotone(lambda x: x if x >= 0 else slope * x)(call) if slope >= 0 else UNKNOWN


def _hard_sigmoid(call: Call) -> Range:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    return monotone(lambda x: alpha * x + beta, 0, 1)(call) if alpha > 0 else _PROBABILITY


def _reduced_sum(call: Call) -> Range:
    return Range(0 if call.first.low >= 0 else -inf, 0 if call.first.high <= 0 else inf, call.first.known, call.first.whole)


def linear(x: Range, weights: npt.NDArray[np.float64] | None, axis: int | tuple[int, ...] = 0) -> Range:
    """Return the range of sums of `x` times constant weights along an axis of the weights; None if they are not constant."""
    if weights is None:
        return Range(known=x.known and x.unbounded)
    up, down = weights.clip(min=0).sum(axis), weights.clip(max=0).sum(axis)
    if not x.known and not down.any() and float(np.max(up)) <= 1 + ROUNDING:
        return UNKNOWN  # a selection or a mean of what is not understood
    low = min((_scaled(a, x.low) + _scaled(b, x.high) for a, b in _pairs(up, down)), default=-inf)
    high = max((_scaled(a, x.high) + _scaled(b, x.low) for a, b in _pairs(up, down)), default=inf)
    return Range(low, high)


def _pairs(up: npt.NDArray[np.float64], down: npt.NDArray[np.float64]) -> Iterable[tuple[float, float]]:
    return zip(np.ravel(up).tolist(), np.ravel(down).tolist(), strict=True)


def _scaled(weight: float, value: float) -> float:
    return 0.0 if weight == 0 or value == 0 else weight * value


def _matmul(call: Call) -> Range:
    left, right = call.constant(0), call.constant(1)
    if right is not None or call.stored[1]:
        return linear(call.first, right, 0 if right is not None and right.ndim == 1 else -2)
    if left is not None:
        return linear(call.of(1), left, -1)
    return _dynamic(call.first * call.of(1))


def _dynamic(product: Range) -> Range:
    """Return the range of a sum of products of two tensors, whose number is not known."""
    return Range(0 if product.low >= 0 else -inf, 0 if product.high <= 0 else inf, product.known)


def _gemm(call: Call) -> Range:
    weights = call.constant(1)
    if weights is None or weights.ndim != 2:
        found = linear(call.first, None)
    else:
        found = linear(call.first, call.number("alpha", 1) * weights, 1 if call.number("transB", 0) else 0)
    beta = call.number("beta", 1)
    return found if len(call.inputs) < 3 or call.inputs[2] is None else found + call.of(2) * Range(beta, beta)


def _conv(call: Call) -> Range:
    weights = call.constant(1)
    found = Range() if weights is None else linear(call.first, weights, tuple(range(1, weights.ndim)))
    found = found | Range(0, 0)  # what padding adds
    return found + call.of(2) if len(call.inputs) > 2 else found


def _normalized(call: Call) -> Range:
    scale, bias, mean, variance = (call.constant(at) for at in range(1, 5))
    if scale is None or bias is None or mean is None or variance is None or (variance < 0).any():
        return Range(known=call.first.known)
    slope = scale / np.sqrt(variance + call.number("epsilon", 1e-5))
    found = [call.first * Range(a, a) + Range(b, b) for a, b in _pairs(slope, bias - slope * mean)]
    return reduce(lambda a, b: a | b, found)


def _dequantized(call: Call) -> Range:
    scale = call.constant(1)
    zero = call.constant(2) if len(call.inputs) > 2 else np.zeros(1)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return Range(known=call.first.known)
    return (call.first - Range(float(zero.flat[0]), float(zero.flat[0]))) * Range(float(scale.flat[0]), float(scale.flat[0]))


def _quantized(call: Call) -> Range:
    kind = call.constants[2].dtype if len(call.constants) > 2 and call.constants[2] is not None else np.dtype(np.uint8)
    zero, scale = call.constant(2), call.constant(1)
    if kind.kind not in "iu" or scale is None or scale.size != 1 or (zero is not None and zero.size != 1):
        return UNKNOWN
    start = 0.0 if zero is None else float(zero.flat[0])
    found = call.first * Range(1 / float(scale.flat[0]), 1 / float(scale.flat[0])) + Range(start, start)
    return found.clipped(float(np.iinfo(kind).min), float(np.iinfo(kind).max))


TABLE: dict[str, Operator] = {
    **dict.fromkeys(PASSING, lambda call: call.first),
    # A table of learned values may hold logits, probabilities or anything else.
    "Gather": lambda call: UNKNOWN if call.stored[0] else call.first,
    **dict.fromkeys(("Sigmoid", "Softmax", "OneHot"), _fixed(_PROBABILITY)),
    **dict.fromkeys(("Hardmax",), _fixed(_TRUTH)),
    **dict.fromkeys("Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Xor IsNaN IsInf".split(), _fixed(_TRUTH)),
    **dict.fromkeys(("ArgMax", "ArgMin", "Shape", "Size", "NonZero"), _fixed(_COUNT)),
    **dict.fromkeys(("Tanh", "Erf", "Softsign", "Sin", "Cos"), _fixed(_SINE)),
    **dict.fromkeys(("LSTM", "GRU"), _fixed(Range(-1, 1, known=False))),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), _fixed(Range())),
    "Sign": _fixed(Range(-1, 1, whole=True)),
    "LogSoftmax": _fixed(Range(-inf, 0)),
    "HardSigmoid": _hard_sigmoid,
    "Exp": monotone(math.exp, 0),
    "Log": monotone(math.log, known=False),
    "Sqrt": monotone(math.sqrt, 0),
    "Relu": monotone(lambda x: x, 0),
    "Softplus": monotone(lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))), 0),
    "Elu": lambda call: monotone(lambda x: x, -abs(call.number("alpha", 1)))(call),
    "LeakyRelu": _leaky,
    "Round": monotone(round, known=False),
    "Abs": _absolute,
    "Neg": lambda call: -call.first,
    "Reciprocal": lambda call: call.first.inverted(),
    "Add": lambda call: call.first + call.of(1),
    "Sub": lambda call: call.first - call.of(1),
    "Mul": lambda call: call.first * call.of(1),
    "Div": _divide,
    "Pow": _power,
    "Sum": _fold(lambda a, b: a + b),
    "Mean": _mean,
    "Min": _fold(_least),
    "Max": _fold(_most),
    "Concat": _fold(lambda a, b: a | b),
    "Where": lambda call: call.of(1) | call.of(2),
    "Clip": _clip,
    "Cast": _cast,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "BatchNormalization": _normalized,
    "ReduceSum": _reduced_sum,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _dequantized,
}
