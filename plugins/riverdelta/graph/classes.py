"""Classes: the class of each column of a classifier's output, as its labels are printed."""

from __future__ import annotations

from typing import Any

from onnx import GraphProto, NodeProto

from riverdelta.graph.wiring import Spot, Wiring, attributes, operator

_LABELS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")


def labels_of(node: NodeProto) -> list[Any] | None:
    """Return the labels that a classifier or a map of classes names."""
    given = attributes(node)
    return next((_plain(given[name]) for name in _LABELS if given.get(name)), None)


class Classes:
    """The labels of a graph's classes, found in its classifiers, its maps of classes, and what turns a column into a label."""

    def __init__(self, graph: GraphProto, wiring: Wiring) -> None:
        self._wiring = wiring
        self._zipped = {node.input[0]: node for node in graph.node if operator(node) == "ZipMap"}
        self._picked = [found for node in graph.node if (found := self._labels_by_index(node)) is not None]

    def of(self, tensor: str, width: int | None = None) -> list[str] | None:
        """Return the label of each column, as text; None if the graph has none of this width."""
        found = self.labels(tensor, width)
        return None if found is None else [*map(str, found)]

    def positive(self, tensor: str) -> int | None:
        """Return the column of the class 1 of two; None unless they are the numbers 1 and 0, or 1 and -1."""
        found = self.labels(tensor, 2)
        return found.index(1) if found is not None and sorted(map(repr, found)) in (["0", "1"], ["-1", "1"]) else None

    def shares(self, tensor: str) -> bool:
        """Whether the columns are made by a softmax or a classifier, so that they are probabilities of classes."""
        node, _ = self._maker(tensor)
        return node is not None and (operator(node) in ("Softmax", "LogSoftmax") or operator(node).endswith("Classifier"))

    def labels(self, tensor: str, width: int | None) -> list[Any] | None:
        """Return the label of each column, a text or a number."""
        maker, turned = self._maker(tensor)
        zipped = self._zipped.get(tensor)
        if zipped is None and (picked := self._labels_picked(tensor, width)) is not None:
            return picked
        for node in (zipped, maker):
            labels = None if node is None else labels_of(node)
            if labels is not None and width in (None, len(labels)):
                return labels[::-1] if turned and len(labels) == 2 else labels
        return next((labels for _, labels in reversed(self._picked) if len(labels) == width), None)

    def _labels_picked(self, tensor: str, width: int | None) -> list[Any] | None:
        """Return the labels that are picked by the largest of a tensor's columns, of which a classifier inside knows others."""
        own = {(spot.tensor, spot.column) for spot in self._wiring.way(Spot(tensor, 0))}
        for largest, labels in reversed(self._picked):
            if width in (None, len(labels)) and own & {(s.tensor, s.column) for s in self._wiring.way(Spot(largest, 0))}:
                return labels
        return None

    def _maker(self, tensor: str) -> tuple[NodeProto | None, bool]:
        """Return the node that makes the columns of a tensor, and whether the greater of two stands for the other class.

        That is so of the two decisions of a support vector machine as ONNX Runtime computes them, and after a change of sign.
        """
        turned = False
        while True:
            *_, last = (spot for spot in self._wiring.way(Spot(tensor, 0)) if spot.column is not None)
            node = self._wiring.makers.get(last.tensor)
            if node is None or not node.input or node.input[0] == tensor:
                return node, turned
            scaled = self._wiring.scaled(node)
            if scaled is None and operator(node) != "Normalizer":
                return node, turned != (operator(node) == "SVMClassifier" and "prob_a" not in attributes(node))
            tensor, factor = scaled or (node.input[0], 1.0)
            turned = turned != (factor < 0)

    def _labels_by_index(self, node: NodeProto) -> tuple[str, list[Any]] | None:
        """Return the tensor whose largest column picks the label that a node makes, and the labels."""
        if operator(node) not in ("ArrayFeatureExtractor", "Gather") or len(node.input) < 2:
            return None
        maker, labels = self._wiring.makers.get(node.input[1]), self._wiring.constant(node.input[0])
        while maker is not None and operator(maker) in ("Cast", "Reshape", "Squeeze", "Identity"):
            maker = self._wiring.makers.get(maker.input[0])
        if maker is None or operator(maker) != "ArgMax" or labels is None:
            return None
        return maker.input[0], _plain(labels.ravel().tolist())


def _plain(labels: Any) -> list[Any]:
    texts = [one.decode(errors="replace") if isinstance(one, bytes) else one for one in labels]
    return [int(one) if isinstance(one, bool) or (isinstance(one, float) and one.is_integer()) else one for one in texts]
