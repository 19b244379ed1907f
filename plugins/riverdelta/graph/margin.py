"""Margin: the raw number of which the base makes a probability, found by the graph and proved on rows."""

from __future__ import annotations

import logging

import numpy as np
from onnx import NodeProto, helper

from riverdelta.core.errors import Unsupported
from riverdelta.core.losses import Loss
from riverdelta.graph.classes import labels_of
from riverdelta.graph.heads import Head, Outputs
from riverdelta.graph.probe import Probe
from riverdelta.graph.ranges import single_score
from riverdelta.graph.wiring import Spot, Wiring, attributes, operator

_log = logging.getLogger(__name__)
#: The largest difference of a probability and that of its margin.
TOLERANCE = 5e-7
_MOST_STEPS = 1 << 10
#: The transforms that are left out, by name, and by number in the operator TreeEnsemble.
_LOGISTIC, _SOFTMAX = (b"LOGISTIC", 2), (b"SOFTMAX", 1)


def margin_of(wiring: Wiring, head: Head) -> Head | None:
    """Return the head of the raw margin of a probability's head; None if the graph has none.

    The graph is followed back from the probability to a sigmoid or a softmax, through 1 - p, or to a classifier with a
    transform, of which a copy without it is the margin.
    """
    spot, negative = Spot(head.tensor, head.column), False
    for _ in range(_MOST_STEPS):
        node = wiring.makers.get(spot.tensor)
        if node is None or not node.input:
            return None
        op, source = operator(node), node.input[0]
        if op == "Sigmoid":
            return Head(source, spot.column, wiring.width(source) or 1, negative=negative)
        if (scores := _scores(wiring, node)) is not None and spot.column is not None:
            wide = wiring.width(scores) or wiring.width(spot.tensor)
            return None if wide is None else Head(scores, spot.column, wide, rest=True, negative=negative)
        if (logistic := _written_out(wiring, node)) is not None:
            source, falls = logistic
            return Head(source, spot.column, wiring.width(source) or 1, negative=negative != falls)
        if (op.endswith("Classifier") or op == "TreeEnsemble") and spot.column is not None:
            return _without_transform(node, spot.column, negative)
        if op == "Sub" and wiring.number(source) == 1:
            spot, negative = Spot(node.input[1], spot.column), not negative
        elif (before := wiring.back(spot)) is not None:
            spot = before
        else:
            return None
    return None


def raw_of(outputs: Outputs, name: str, head: Head) -> Head:
    """Return the head of the raw output of a column of scores: alone if the columns mirror each other, else less the other.

    With scores z of two columns, softmax gives the second σ(z₁ - z₀). A classifier without a transform, and an exported
    decision function, have the columns -s and s, or 1 - s and s, of one score s.
    """
    if head.column is None or head.width == 1:
        return head
    if head.width > 2:
        raise Unsupported(
            f"{outputs.path.name}: {name!r} is one of {head.width} raw outputs, and alone no {outputs.loss.raw}: export the "
            f"model with the softmax or the sigmoid of them, and write probability={name!r}"
        )
    if _mirrored(outputs.wiring, Spot(head.tensor, 1)):
        return Head(head.tensor, 1, 2, negative=head.column == 0)
    return Head(head.tensor, head.column, 2, rest=True)


def checked_margin(wiring: Wiring, head: Head, probe: Probe, loss: Loss) -> Head | None:
    """Return the margin of a probability's head if probed rows do not disprove it; otherwise None, and the log says so."""
    if (found := margin_of(wiring, head)) is None:
        return None
    rows = probe.values(head, found)
    gap = float(np.max(np.abs(rows[:, 0] - loss.inverse_link(rows[:, 1])[:, 0]), initial=0.0))
    if gap <= TOLERANCE:
        return found
    what = probe.path.name, found.tensor, gap
    _log.warning("%s: the margin %r gives probabilities that differ by %.2g; the logit of the probability is served", *what)
    return None


def _scores(wiring: Wiring, node: NodeProto) -> str | None:
    """Return the scores of which a node makes the softmax: by one operator, or by the exponential of a log-softmax."""
    inner = wiring.makers.get(node.input[0]) if operator(node) == "Exp" else None
    maker, op = (node, "Softmax") if inner is None else (inner, "LogSoftmax")
    return str(maker.input[0]) if operator(maker) == op and attributes(maker).get("axis", 1) in (1, -1) else None


def _written_out(wiring: Wiring, node: NodeProto) -> tuple[str, bool] | None:
    """Return x and whether the number falls with it, if a node makes 1 / (1 + exp(±x)), or exp(x) / (1 + exp(x))."""
    op = operator(node)
    total = wiring.makers.get(node.input[-1]) if op in ("Div", "Reciprocal") else None
    if total is None or operator(total) != "Add" or len(total.input) != 2:
        return None
    parts = [name for name in total.input if wiring.number(name) != 1]
    power = wiring.makers.get(parts[0]) if len(parts) == 1 else None
    if power is None or operator(power) != "Exp":
        return None
    if op == "Div" and node.input[0] == power.output[0]:
        return str(power.input[0]), False
    if op == "Div" and wiring.number(node.input[0]) != 1:
        return None
    turned = wiring.makers.get(power.input[0])
    if turned is not None and operator(turned) == "Neg":
        return str(turned.input[0]), False
    return str(power.input[0]), True


def _without_transform(node: NodeProto, column: int, negative: bool) -> Head | None:
    """Return the head of a classifier's score of a column, by a copy of it without its transform."""
    given = attributes(node)
    transform, width = given.get("post_transform"), given.get("n_targets", len(labels_of(node) or ()))
    if "prob_a" in given or transform not in (*_LOGISTIC, *_SOFTMAX) or width < 2:
        return None
    bare = NodeProto()
    bare.CopyFrom(node)
    kept = [a for a in node.attribute if a.name != "post_transform"]
    del bare.attribute[:]
    bare.attribute.extend([*kept, helper.make_attribute("post_transform", 0 if isinstance(transform, int) else "NONE")])
    scores = node.output[-1]
    if transform in _SOFTMAX:
        return Head(scores, column, width, rest=True, negative=negative, bare=bare)
    if width == 2 and single_score(node):
        # The other column is -s, or 1 - s if no weight is negative.
        return Head(scores, 1, 2, negative=negative != (column == 0), bare=bare)
    return Head(scores, column, width, negative=negative, bare=bare)


def _mirrored(wiring: Wiring, spot: Spot) -> bool:
    """Whether the two columns are those of one score: -s and s, or 1 - s and s."""
    for _ in range(_MOST_STEPS):
        node = wiring.makers.get(spot.tensor)
        if node is None:
            return False
        given, op = attributes(node), operator(node)
        if op == "Concat" and len(node.input) == 2:
            maker = wiring.makers.get(node.input[0])
            return maker is not None and wiring.scaled(maker) == (node.input[1], -1)
        if op == "SVMClassifier":
            return len(labels_of(node) or ()) == 2
        if op == "LinearClassifier" and len(given.get("intercepts", ())) == 2:
            low, high = np.array(given["coefficients"]).reshape(2, -1)
            return bool((low == -high).all() and given["intercepts"][0] == -given["intercepts"][1])
        if op.endswith("Classifier"):
            return single_score(node)
        if (scaled := wiring.scaled(node)) is not None:
            spot = Spot(scaled[0], spot.column)
        elif (before := wiring.back(spot)) is not None and before.column == spot.column:
            spot = before
        else:
            return False
    return False
