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
        self._picked = [list(_plain(labels)) for node in graph.node if (labels := self._labels_by_index(node)) is not None]

    def of(self, tensor: str, width: int | None = None) -> list[str] | None:
        """Return the label of each column, as text; None if the graph has none of this width."""
        found = self._of(tensor, width)
        return None if found is None else [one if isinstance(one, str) else str(one) for one in found]

    def texts(self, tensor: str, width: int) -> bool:
        """Whether the labels are text rather than numbers."""
        return any(isinstance(one, str) for one in self._of(tensor, width) or ())

    def shares(self, tensor: str) -> bool:
        """Whether the columns are made by a softmax or a classifier, so that they are probabilities of classes."""
        node = self._maker(tensor)
        return node is not None and (operator(node) in ("Softmax", "LogSoftmax") or operator(node).endswith("Classifier"))

    def _of(self, tensor: str, width: int | None) -> list[Any] | None:
        zipped = self._zipped.get(tensor)
        for node in (zipped, self._maker(tensor)):
            labels = None if node is None else labels_of(node)
            if labels is not None and width in (None, len(labels)):
                return labels
        return next((labels for labels in reversed(self._picked) if len(labels) == width), None)

    def _maker(self, tensor: str) -> NodeProto | None:
        """Return the node that makes the columns of a tensor, before operators that keep their number and order."""
        while True:
            *_, last = self._wiring.way(Spot(tensor, 0))
            node = self._wiring.makers.get(last.tensor)
            scaled = node is not None and operator(node) == "Mul" and self._wiring.number(node.input[1]) is not None
            if node is None or not (scaled or operator(node) == "Normalizer") or node.input[0] == tensor:
                return node
            tensor = node.input[0]

    def _labels_by_index(self, node: NodeProto) -> Any:
        """Return the labels of which a node picks one by the largest column."""
        if operator(node) not in ("ArrayFeatureExtractor", "Gather") or len(node.input) < 2:
            return None
        maker, labels = self._wiring.makers.get(node.input[1]), self._wiring.constant(node.input[0])
        while maker is not None and operator(maker) in ("Cast", "Reshape", "Squeeze", "Identity"):
            maker = self._wiring.makers.get(maker.input[0])
        picks = maker is not None and operator(maker) == "ArgMax"
        return labels.ravel().tolist() if picks and labels is not None else None


def _plain(labels: Any) -> list[Any]:
    texts = [one.decode(errors="replace") if isinstance(one, bytes) else one for one in labels]
    return [int(one) if isinstance(one, bool) or (isinstance(one, float) and one.is_integer()) else one for one in texts]
