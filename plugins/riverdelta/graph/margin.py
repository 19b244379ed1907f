"""Margin: the raw number of which the base makes a probability, found by the graph and proved on rows."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from onnx import NodeProto, helper

from riverdelta.core.errors import Unsupported
from riverdelta.graph.classes import labels_of
from riverdelta.graph.head import Head
from riverdelta.graph.heads import Outputs
from riverdelta.graph.link import Link
from riverdelta.graph.probe import Probe
from riverdelta.graph.ranges import single_score
from riverdelta.graph.wiring import Spot, Wiring, attributes, operator

_log = logging.getLogger(__name__)
#: The largest difference of a probability and that of its margin.
TOLERANCE = 5e-7
#: A prediction without an upper end may differ by this share of itself, and of no less than the second number.
_RELATIVE, _LEAST = 2e-5, 1e-9
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


def checked_margin(wiring: Wiring, head: Head, probe: Probe, link: Link) -> Head | None:
    """Return the margin of a prediction's head if probed rows do not disprove it; otherwise None, and the log says so."""
    if link.loss.logit:
        found = margin_of(wiring, head)
    else:
        found = margin_of_all(wiring, head) if head.outputs > 1 else margin_of_rate(wiring, head, link)
    if found is None:
        return None
    predicted, raw = probe.values(head, found)
    made, tolerance = link.loss.inverse_link(raw), TOLERANCE
    gaps = np.abs(predicted - made)
    if np.isinf(link.predictions[1]):
        predicted, tolerance = link.loss.inverse_link(link.loss.link(predicted)), _RELATIVE  # clipped as the other
        gaps = np.abs(predicted - made) / np.maximum(predicted, _LEAST)
    if (gap := float(np.max(gaps, initial=0.0))) <= tolerance:
        return found
    what = probe.path.name, found.tensor, link.prediction, gap, link.raw, link.prediction
    _log.warning("%s: the margin %r gives a %s that differs by %.2g; the %s of the %s is served", *what)
    return None


def margin_of_all(wiring: Wiring, head: Head) -> Head | None:
    """Return the head of the scores of which a tensor of all classes is the softmax; None if the graph has none.

    Two classes may have one score, that of the second: of the first it is then 0.
    """
    name = head.tensor
    for _ in range(_MOST_STEPS):
        node = wiring.makers.get(name)
        if node is None or not node.input:
            break
        if (scores := _scores(wiring, node)) is not None:
            return Head(scores, None, head.width)
        if (operator(node).endswith("Classifier") or operator(node) == "TreeEnsemble") and not single_score(node):
            bare = _without_transform(node, 0, False)
            # Each class may have a logistic function of its own score instead.
            return Head(bare.tensor, None, head.width, bare=bare.bare) if bare is not None and bare.rest else None
        if (before := _whole_before(wiring, node, name, head.width)) is None:
            break
        name = before
    one = margin_of(wiring, Head(head.tensor, 1, 2)) if head.width == 2 else None
    return None if one is None else replace(one, paired=True)


def _whole_before(wiring: Wiring, node: NodeProto, name: str, width: int) -> str | None:
    """Return the tensor whose columns, or whose shares of their sum, a node keeps in their order; None if it has others."""
    if operator(node) == "Normalizer" or (operator(node) == "Div" and wiring.total_of(node.input[1]) == node.input[0]):
        return str(node.input[0])
    before = [wiring.back(Spot(name, at)) for at in range(width)]
    first = before[0]
    return first.tensor if first is not None and before == [Spot(first.tensor, at) for at in range(width)] else None


def margin_of_rate(wiring: Wiring, head: Head, link: Link) -> Head | None:
    """Return the head of the number whose exponential a prediction is; None if the graph has none, or the link is another."""
    ways = wiring.way(Spot(head.tensor, head.column))
    node = wiring.makers.get(ways[-1].tensor)
    if "Exp" not in link.operators or node is None or operator(node) != "Exp":
        return None
    return Head(node.input[0], ways[-1].column, wiring.width(node.input[0]) or 1)


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
            if maker is not None and operator(maker) == "Sub" and wiring.number(maker.input[0]) == 1:
                return bool(maker.input[1] == node.input[1])
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
