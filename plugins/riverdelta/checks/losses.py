"""The laws of a loss: functions of one loss, which raise `LawBroken` with what they found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from riverdelta.checks.block import some_labels
from riverdelta.checks.law import OPSET, LawBroken, at_most, equal, laws_of, refused, run, same
from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.core.nodes import Nodes

_ROWS, _NUDGE = 200, 1e-5
#: The rows of a list.
_LIST = 4
#: The largest difference allowed between Python (float64) and ONNX.
_TOLERANCE = 1e-4
_WILD = (0.0, 60.0, -60.0, 800.0, -800.0, 1e4, -1e4, 1e30, -1e30)
_WEIGHTS = (1e-30, 0.3, 2.5, 40.0, 1e4, 1e30)


def its_name_is_free(loss: Loss) -> None:
    """The name of the raw output is not `score`, which is the name of predictions."""
    if not loss.raw.isidentifier() or loss.raw == "score":
        raise LawBroken(f"raw is {loss.raw!r}; expected an identifier other than 'score'")


def its_attributes_fit(loss: Loss) -> None:
    """`bound`, `reach` and `scale` are finite and above 0; a loss with a logit has one output and the labels 0 and 1."""
    for name in ("bound", "reach", "scale"):
        if not 0.0 < getattr(loss, name) < np.inf:
            raise LawBroken(f"{name} is {getattr(loss, name)}; expected a finite number above 0")
    if loss.logit and (loss.outputs, loss.labels) != (1, (0.0, 1.0)):
        raise LawBroken(f"it has a logit, {loss.outputs} outputs and the labels {loss.labels}; expected 1 and (0.0, 1.0)")


def derivatives_are_those_of_the_value(loss: Loss) -> None:
    """The gradient is the slope of the unclipped value, the curvature is not negative, and both are finite for any finite raw
    output and proportional to any weight."""
    raw = np.concatenate([_draw(loss, 0), _wild(loss)[1:]])
    size = np.abs(raw).max(axis=1)
    nudges = np.maximum(_NUDGE, 1e-7 * size)
    group, place = _lists(loss, len(raw))
    for number in some_labels(loss).tolist():
        label = _labels(loss, number, len(raw))
        gradient, curvature = loss.derivatives(raw, label, group=group)
        for row, k in np.ndindex(_LIST if loss.lists else 1, loss.outputs):
            nudge = nudges[:, None] * (np.arange(loss.outputs) == k) * (place == row)[:, None]
            slope = (_uncut(loss, raw + nudge, number) - _uncut(loss, raw - nudge, number)) / (2 * nudges[place == row])
            # Of two outputs at 1e30, float64 cannot tell which is larger.
            largest = np.maximum.reduceat(size, loss.starts(len(raw), group, each=True)[:-1])
            allowed = np.where(largest <= 1e4, 1e-4 * (1 + np.abs(slope)), np.finfo(np.float64).max)
            at_most("the gradient's error", np.abs(gradient[place == row, k] - slope), allowed, {"raw": raw[place == row]})
        at_most("the curvature below 0", -curvature, 0.0, {"raw": raw})
        for weight in _WEIGHTS:
            for once, heavy in zip((gradient, curvature), loss.derivatives(raw, label, weight, group), strict=True):
                error, allowed = np.abs(weight * once - heavy), weight * 1e-9 * (1 + np.abs(once))
                at_most(f"the error at weight {weight:g}", error, allowed, {"raw": raw})


def the_value_is_bounded(loss: Loss) -> None:
    """A loss is from 0 to `bound` for any raw output, and at most `bound` before clipping if the row is `judged`."""
    for raw in (_wild(loss), _draw(loss, 1)):
        for label in some_labels(loss):
            value = loss.value(raw, label)
            at_most("the value", value, loss.bound)
            at_most("the value below 0", -value, 1e-9)
            judged = loss.judged(raw, np.full(len(raw), label), **_group(loss, len(raw)))
            at_most("the unclipped value of a row that is `judged`", _of_rows(loss, raw, float(label))[judged], loss.bound)


def nan_stays_nan(loss: Loss) -> None:
    """For a raw output of NaN, value, prediction and mixture are NaN, and `judged` is False."""
    raw, label = np.full((1, loss.outputs), np.nan), some_labels(loss)[0]
    found = {"value": loss.value(raw, label), "inverse_link": loss.inverse_link(raw), "mix": loss.mix(raw, raw, 0.5)}
    for what, made in found.items():
        equal(f"whether {what} of NaN is NaN", bool(np.isnan(made).all()), True)
    equal("`judged` of NaN", bool(loss.judged(raw, label).any()), False)


def labels_are_refused_by_row(loss: Loss) -> None:
    """An invalid label is refused with its row named, also one close to or between those of `labels`; valid ones pass."""
    good = some_labels(loss)
    same("check_labels", loss.check_labels(good), good)
    bads = [np.nan, np.inf]
    if loss.labels is not None:
        bads += [number for one in loss.labels for number in (one + 1e-50, one - 1e-9, one + 1e-9) if number != one]
        bads += np.random.default_rng(11).uniform(min(loss.labels) - 1, max(loss.labels) + 1, 30).tolist()
    for bad in bads:
        with refused(f"the label {bad!r}", InvalidInput, f"row {len(good)} "):
            loss.check_labels([*good, bad])


def links_invert_each_other(loss: Loss) -> None:
    """`inverse_link` of the `link` of a prediction is that prediction."""
    prediction = loss.inverse_link(_draw(loss, 2))
    gap = np.abs(loss.inverse_link(loss.link(prediction)) - prediction)
    at_most("the difference of predictions", gap, 1e-6 * (1 + np.abs(prediction)))


def mixtures_lie_between(loss: Loss) -> None:
    """The mixture of an output with itself is that output, bit for bit; any other is within `reach` of the base, equals the
    base at weight 0 and the corrected output at weight 1, and has a loss of at most the larger of the two."""
    base, corrected = _draw(loss, 3), _draw(loss, 4)
    for weight in (0.0, 0.1, 1 / 3, 0.7, 1.0):
        same("an output mixed with itself", loss.mix(base, base, weight), base)
        for wild in _WILD:
            moved = np.abs(loss.mix(base, np.full_like(base, wild), weight) - base)
            at_most("a served residual", moved, loss.reach * (1 + 1e-9))
    ends = np.abs(loss.inverse_link(loss.mix(base, corrected, 0.0)) - loss.inverse_link(base))
    at_most("the error at weight 0", ends, 1e-9 * (1 + np.abs(loss.inverse_link(base))))
    near = base + np.clip(corrected - base, -loss.reach, loss.reach) / loss.outputs
    ends = np.abs(loss.inverse_link(loss.mix(base, near, 1.0)) - loss.inverse_link(near))
    at_most("the error at weight 1", ends, 1e-9 * (1 + np.abs(loss.inverse_link(near))))
    for label in some_labels(loss):
        worse = np.maximum(loss.value(base, label), loss.value(near, label))
        for weight in (0.1, 0.5, 0.9):
            mixed = loss.value(loss.mix(base, near, weight), label)
            at_most("the mixture's loss", mixed, worse + 1e-9 * (1 + worse))


def spread_bounds_the_difference(loss: Loss) -> None:
    """For every label, the losses of the base and of the served corrected output differ by at most `spread`."""
    base, corrected = _draw(loss, 5), _draw(loss, 6)
    for near in (corrected, base + 0.01, np.full_like(base, 1e4)):
        spread, served = loss.spread(base, near), loss.mix(base, near, 1.0)
        for label in some_labels(loss):
            gap = np.abs(loss.value(base, label) - loss.value(served, label))
            at_most("the difference of losses", gap, spread + 1e-6 * (1.0 + spread))


def mixing_loses_nothing_at_the_mixable_rate(loss: Loss) -> None:
    """With p the largest product of a weight and its rate `mixable`, unless it is 0, the loss of the mixture is at most
    -log(Σ share·exp(-p·loss)) / p; a smaller product allows more."""
    base, corrected = _draw(loss, 7), _draw(loss, 8)
    group, _ = _lists(loss, len(base))
    corrected = loss.mix(base, corrected, 1.0, group)
    weights = np.concatenate([np.geomspace(1e-3, 1e3, 601), np.arange(1.0, 101.0)])
    rates = loss.mixable(weights)
    equal("the shape of `mixable`", np.shape(rates), weights.shape)
    if loss.unit == "nats":
        at_most("`mixable`", rates, 1.0, {"weight": weights})
    at_most("`mixable` below 0", -rates, 0.0, {"weight": weights})
    at = int(np.argmax(rates * weights))
    product = float(rates[at] * weights[at])
    # The weight of a list is that of its labels.
    labels = some_labels(loss) if product else np.empty(0)
    for label in labels[labels > 0] if loss.lists else labels:
        per = label if loss.lists else 1.0
        losses = np.stack([_uncut(loss, raw, label) / per for raw in (base, corrected)])
        for share in (0.05, 0.5, 0.95):
            shares = np.log([1.0 - share, share])[:, None]
            allowed = -np.logaddexp.reduce(shares - product * losses) / product
            mixed = _uncut(loss, loss.mix(base, corrected, share, group), label) / per
            at_most(f"the loss at weight {weights[at]:g} and rate {rates[at]:g}", mixed, allowed + 1e-6)


def the_graph_agrees(loss: Loss) -> None:
    """ONNX Runtime computes the same predictions, links and mixtures; an output mixed with itself is the same, bit for bit."""
    base, corrected = (_draw(loss, seed).astype(np.float32) for seed in (9, 10))
    prediction = loss.inverse_link(base).astype(np.float32)
    nodes = Nodes(OPSET)
    found = run(nodes, loss.export_inverse_link(nodes, "raw"), {"raw": base})
    _agree("the prediction", found, loss.inverse_link(base))
    nodes = Nodes(OPSET)
    found = run(nodes, loss.export_link(nodes, "prediction"), {"prediction": prediction})
    # Predictions are compared: no link can recover what float32 has rounded.
    _agree("the link", loss.inverse_link(found), loss.inverse_link(loss.link(prediction)))
    for weight in (0.0, 0.3, 1.0):
        for other in (corrected, np.full_like(base, 1e30)):
            nodes = Nodes(OPSET)
            mixture = loss.export_mixture(nodes, "base", "corrected", "weight")
            feeds = {"base": base, "corrected": other, "weight": np.full((1, 1), weight, np.float32)}
            _agree("the mixture", run(nodes, mixture, feeds), loss.mix(base, other, float(np.float32(weight))))
            alone = run(nodes, mixture, feeds | {"corrected": base})
            same("an output mixed with itself", alone, base)


def what_all_outputs_share_changes_nothing(loss: Loss) -> None:
    """The same shift of all raw outputs of a list, or of a row of several classes, changes no value, prediction or
    derivative."""
    if not loss.lists and loss.classes is None:
        return
    raw = _draw(loss, 12)
    group, _ = _lists(loss, len(raw))
    for shift in (-300.0, 7.25):
        gap = np.abs(loss.inverse_link(raw + shift, group) - loss.inverse_link(raw, group))
        at_most(f"the change of predictions by a shift of {shift:g}", gap, 1e-9)
        for label in some_labels(loss).tolist():
            given = _labels(loss, label, len(raw)) if loss.lists else np.full(len(raw), label)
            one, other = ([loss.value(z, given, group), *loss.derivatives(z, given, 1.0, group)] for z in (raw, raw + shift))
            for what, a, b in zip(("values", "gradients", "curvatures"), one, other, strict=True):
                at_most(f"the change of {what} by a shift of {shift:g}", np.abs(a - b), 1e-9 * (1 + np.abs(a)))


def kernels_are_cached(loss: Loss) -> None:
    """Its compiled functions are cached on disk, so that a new process does not compile them again."""
    for function in loss.kernels.functions:
        if type(function._cache).__name__ == "NullCache":
            raise LawBroken(f"{function.py_func.__name__} is not cached; decorate it with cache=True")


LAWS = laws_of(globals())


def _draw(loss: Loss, seed: int) -> Doubles:
    return np.random.default_rng(seed).normal(scale=2.0, size=(_ROWS, loss.outputs))


def _wild(loss: Loss) -> Doubles:
    """Return rows of extreme raw outputs, the first one 0."""
    wild = np.repeat(np.array(_WILD)[:, None], loss.outputs, axis=1)
    wild[:, 0] *= -1.0
    return wild


def _lists(loss: Loss, rows: int) -> tuple[Group, npt.NDArray[np.int64]]:
    """Return the list of each row, and its place in it: all 0 for a loss without lists."""
    at = np.arange(rows)
    return (at // _LIST, at % _LIST) if loss.lists else (None, np.zeros(rows, np.int64))


def _group(loss: Loss, rows: int) -> dict[str, Group]:
    """Return the argument that only a loss of lists takes."""
    return {"group": _lists(loss, rows)[0]} if loss.lists else {}


def _labels(loss: Loss, label: float, rows: int) -> Doubles:
    """Return the labels of rows; of a list, the first row has it and the others 0."""
    return np.where(_lists(loss, rows)[1] == 0, float(label), 0.0)


def _uncut(loss: Loss, raw: Doubles, label: float) -> Doubles:
    """Return the value of each row, or of each list, before it is clipped at `bound`."""
    out, starts = _of_rows(loss, raw, label), loss.starts(len(raw), _lists(loss, len(raw))[0], each=True)
    return np.add.reduceat(out, starts[:-1]) if len(out) else out


def _of_rows(loss: Loss, raw: Doubles, label: float) -> Doubles:
    """Return the value of each row, before it is clipped at `bound`."""
    out, starts = np.empty(len(raw)), loss.starts(len(raw), _lists(loss, len(raw))[0], each=True)
    for a, b in pairwise(starts.tolist()):
        loss.kernels.functions[0](raw[a:b], _labels(loss, label, b - a), out[a:b])
    return out


def _agree(what: str, got: Floats | Doubles, expected: Doubles) -> None:
    equal(f"the shape of {what}", got.shape, expected.shape)
    at_most(f"the error of {what}", np.abs(got - expected), _TOLERANCE * (1 + np.abs(expected)))
