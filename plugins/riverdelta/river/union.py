"""TransformerUnion: what several branches make of the same features, side by side."""

from __future__ import annotations

from typing import Any

from river.compose import TransformerUnion

from riverdelta.core.errors import Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.river.base import Converter, Flow, Place, Shape, check, convert, find, register
from riverdelta.river.pipeline import refuse_models


class UnionConverter(Converter):
    """The branches' tables, and their tensors one after the other."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        if before.encoded:
            raise Unsupported("a union comes after OneHotEncoder; put the encoder into a branch of the union")
        self._branches = [convert(b, before, place.inside(name)) for name, b in step.transformers.items()]
        after = [b.after for b in self._branches]
        self.after = Shape(
            tuple(n for shape in after for n in shape.names),
            frozenset(n for shape in after for n in shape.ids),
            tuple(c for shape in after for c in shape.encoded),
        )
        self.tables = {name: table for b in self._branches for name, table in b.tables.items()}

    @classmethod
    def check(cls, step: Any) -> None:
        refuse_models(step.transformers.values(), "a union")
        for branch in step.transformers.values():
            check(branch)

    @classmethod
    def learner(cls, step: Any) -> Any:
        fresh = TransformerUnion()
        fresh.transformers = {name: find(b).learner(b) for name, b in step.transformers.items()}
        return fresh

    @classmethod
    def keys(cls, step: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        parts = [find(b).keys(b, names) for b in step.transformers.values()]
        return tuple(n for ids, _ in parts for n in ids), tuple(n for _, rest in parts for n in rest)

    def write(self) -> None:
        for branch in self._branches:
            branch.write()

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        flows = [branch.export(nodes, flow) for branch in self._branches]
        return Flow(
            tuple(block for f in flows for block in f.blocks),
            {name: tensor for f in flows for name, tensor in f.ids.items()},
            tuple(term for f in flows for term in f.terms),
        )


register(TransformerUnion, UnionConverter)
