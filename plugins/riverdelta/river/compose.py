"""Converters of pipelines and of unions of branches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from river.compose import Pipeline, TransformerUnion
from river.linear_model.base import GLM

from riverdelta.core.errors import Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.river.base import Converter, Flow, Place, Shape, check, convert, find, register


class _Composed(Converter):
    """Holds the tables of several steps."""

    def hold(self, parts: list[Converter]) -> None:
        """Serve from the tables of `parts`."""
        self.parts = parts
        self.tables = {name: table for part in parts for name, table in part.tables.items()}

    def write(self) -> None:
        for part in self.parts:
            part.write()


class PipelineConverter(_Composed):
    """Serves the steps of a pipeline, each on the output of the one before."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        parts: list[Converter] = []
        for name, part in step.steps.items():
            parts.append(convert(part, self.after, place.inside(name)))
            self.after = parts[-1].after
        self.hold(parts)

    @classmethod
    def check(cls, step: Any) -> None:
        steps = list(step.steps.values())
        _refuse_models(steps[:-1], "the middle of a pipeline")
        for part in steps:
            if isinstance(part, Pipeline):
                raise Unsupported("the pipeline holds a Pipeline as a step; write its steps one after the other")
            check(part)

    @classmethod
    def learner(cls, step: Any) -> Any:
        return Pipeline(*((name, find(part).learner(part)) for name, part in step.steps.items()))

    @classmethod
    def keys(cls, step: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found: tuple[str, ...] = ()
        for part in step.steps.values():
            ids, names = find(part).keys(part, names)
            found += ids
        return found, names

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        for part in self.parts:
            flow = part.export(nodes, flow)
        return flow


class UnionConverter(_Composed):
    """Serves the branches of a union, which read the same features."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        if before.encoded:
            raise Unsupported("a union comes after OneHotEncoder; put the encoder into a branch of the union")
        self.hold([convert(b, before, place.inside(name)) for name, b in step.transformers.items()])
        after = [b.after for b in self.parts]
        self.after = Shape(
            tuple(n for shape in after for n in shape.names),
            frozenset(n for shape in after for n in shape.ids),
            tuple(c for shape in after for c in shape.encoded),
        )

    @classmethod
    def check(cls, step: Any) -> None:
        _refuse_models(step.transformers.values(), "a union")
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

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        flows = [branch.export(nodes, flow) for branch in self.parts]
        return Flow(
            tuple(block for f in flows for block in f.blocks),
            {name: tensor for f in flows for name, tensor in f.ids.items()},
            tuple(term for f in flows for term in f.terms),
        )


def _refuse_models(steps: Iterable[Any], where: str) -> None:
    """Raise `Unsupported` if a step that must be a transformer is a model."""
    for step in steps:
        last = list(step.steps.values())[-1] if isinstance(step, Pipeline) and step.steps else step
        if isinstance(last, GLM):
            raise Unsupported(f"{type(last).__name__} is in {where}; it can only be the last step")


register(Pipeline, PipelineConverter)
register(TransformerUnion, UnionConverter)
