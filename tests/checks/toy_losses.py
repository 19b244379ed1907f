"""Two losses that no part of riverdelta knows: squared (one output, any label) and softmax (three outputs, three labels)."""

import math

import numba
import numpy as np

from riverdelta.core.losses import Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels

REACH, SURE, BOUND = 10.0, 20.0, 800.0
#: A residual of ±15 moves the difference of two outputs by at most 30.
CUT = 15.0


@numba.njit(VALUE, cache=True)
def squared_value(raw, label, losses):
    losses[:] = 0.5 * (raw[:, 0] - label) ** 2


@numba.njit(DERIVATIVES, cache=True)
def squared_derivatives(raw, label, weight, gradient, curvature):
    gradient[:, 0] = weight * (raw[:, 0] - label)
    curvature[:, 0] = weight


@numba.njit(MIX, cache=True)
def squared_mix(base, corrected, weight, served):
    for i in range(len(base)):
        d = corrected[i, 0] - base[i, 0]
        if d > REACH:
            d = REACH
        elif d < -REACH:
            d = -REACH
        served[i, 0] = base[i, 0] + weight * d


@numba.njit(PREDICT, cache=True)
def squared_predict(raw, prediction):
    prediction[:] = raw


class Squared(Loss):
    """Half the squared error; no mixable rate is known, for labels have no range."""

    task, raw, unit, bound, reach = "toy squared", "value", "squared units", BOUND, REACH
    kernels = Kernels(squared_value, squared_derivatives, squared_mix, squared_predict)

    def link(self, prediction):
        return self.rows(prediction)

    def spread(self, base, corrected):
        d = np.minimum(np.abs(self.rows(corrected) - self.rows(base)), REACH)[:, 0]
        # The worst label is where the larger of the two losses begins to be cut.
        return d * math.sqrt(2 * BOUND) - 0.5 * d**2

    def judged(self, base):
        return (np.abs(self.rows(base)) <= SURE)[:, 0]

    def mixable(self, weight):
        return np.zeros(np.shape(weight))

    def export_link(self, nodes, prediction):
        return prediction

    def export_inverse_link(self, nodes, raw):
        return nodes.add("Identity", raw)

    def export_mixture(self, nodes, base, corrected, weight):
        ends = [nodes.constant(sign * REACH, np.float32) for sign in (-1, 1)]
        moved = nodes.add("Clip", nodes.add("Sub", corrected, base), *ends)
        return nodes.add("Add", base, nodes.add("Mul", weight, moved))


@numba.njit
def log_sum(raw):
    top = raw.max()
    return top + math.log(np.exp(raw - top).sum())


@numba.njit(VALUE, cache=True)
def softmax_value(raw, label, losses):
    for i in range(len(label)):
        losses[i] = log_sum(raw[i]) - raw[i, int(label[i])]


@numba.njit(DERIVATIVES, cache=True)
def softmax_derivatives(raw, label, weight, gradient, curvature):
    for i in range(len(label)):
        total = log_sum(raw[i])
        for k in range(raw.shape[1]):
            p = math.exp(raw[i, k] - total)
            gradient[i, k] = weight[i] * (p - (1.0 if k == int(label[i]) else 0.0))
            curvature[i, k] = weight[i] * p * (1.0 - p)


@numba.njit(MIX, cache=True)
def softmax_mix(base, corrected, weight, served):
    for i in range(len(base)):
        for k in range(base.shape[1]):
            d = corrected[i, k] - base[i, k]
            served[i, k] = base[i, k] + (CUT if d > CUT else -CUT if d < -CUT else d)
        moved = log_sum(served[i]) - log_sum(base[i])
        for k in range(base.shape[1]):
            ratio = math.exp(served[i, k] - base[i, k] - moved)
            served[i, k] = base[i, k] + (math.log((1.0 - weight) + weight * ratio) - math.log((1.0 - weight) + weight))


@numba.njit(PREDICT, cache=True)
def softmax_predict(raw, prediction):
    for i in range(len(raw)):
        prediction[i] = np.exp(raw[i] - log_sum(raw[i]))


class Softmax(Loss):
    """The log loss of three classes; mixtures are those of probabilities."""

    task, outputs, bound, reach, labels = "toy softmax", 3, 80.0, 2 * CUT, (0.0, 1.0, 2.0)
    kernels = Kernels(softmax_value, softmax_derivatives, softmax_mix, softmax_predict)

    def link(self, prediction):
        return np.log(np.clip(self.rows(prediction), 1e-7, 1.0))

    def spread(self, base, corrected):
        served = self.mix(base, corrected, 1.0)
        losses = [np.stack([self.value(raw, label) for label in self.labels]) for raw in (base, served)]
        return np.abs(losses[1] - losses[0]).max(axis=0)

    def judged(self, base):
        return np.ptp(self.rows(base), axis=1) <= self.bound - math.log(3)

    def mixable(self, weight):
        return 1.0 / np.maximum(weight, 1.0)

    def export_link(self, nodes, prediction):
        ends = [nodes.constant(end, np.float32) for end in (1e-7, 1.0)]
        return nodes.add("Log", nodes.add("Clip", prediction, *ends))

    def export_inverse_link(self, nodes, raw):
        return nodes.add("Softmax", raw, axis=1)

    def export_mixture(self, nodes, base, corrected, weight):
        ends = [nodes.constant(sign * CUT, np.float32) for sign in (-1, 1)]
        near = nodes.add("Add", base, nodes.add("Clip", nodes.add("Sub", corrected, base), *ends))
        before, after = (nodes.add("LogSoftmax", raw, axis=1) for raw in (base, near))
        stay = nodes.add("Sub", nodes.constant(1.0, np.float32), weight)
        ratio = nodes.add("Exp", nodes.add("Sub", after, before))
        mixed = nodes.add("Add", stay, nodes.add("Mul", weight, ratio))
        log_of = nodes.add("Sub", nodes.add("Log", mixed), nodes.add("Log", nodes.add("Add", stay, weight)))
        return nodes.add("Add", base, log_of)


SQUARED, SOFTMAX = Squared(), Softmax()
