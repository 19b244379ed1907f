"""Pipeline: one step after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from river.compose import Pipeline
from river.linear_model.base import GLM

from riverdelta.core.errors import Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.river.base import Converter, Flow, Place, Shape, check, convert, find, register


class PipelineConverter(Converter):
    """The steps' tables, and what flows from each into the next."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        self._steps: list[Converter] = []
        for name, part in step.steps.items():
            self._steps.append(convert(part, self.after, place.inside(name)))
            self.after = self._steps[-1].after
        self.tables = {name: table for part in self._steps for name, table in part.tables.items()}

    @classmethod
    def check(cls, step: Any) -> None:
        steps = list(step.steps.values())
        refuse_models(steps[:-1], "the middle of a pipeline")
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

    def write(self) -> None:
        for part in self._steps:
            part.write()

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        for part in self._steps:
            flow = part.export(nodes, flow)
        return flow


def refuse_models(steps: Iterable[Any], where: str) -> None:
    """Raise `Unsupported` where a model stands in a transformer's place."""
    for step in steps:
        last = list(step.steps.values())[-1] if isinstance(step, Pipeline) and step.steps else step
        if isinstance(last, GLM):
            raise Unsupported(f"{type(last).__name__} stands in {where}; it can only be the last step")


register(Pipeline, PipelineConverter)
