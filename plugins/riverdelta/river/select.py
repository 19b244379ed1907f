"""Converters of Select and Discard."""

from __future__ import annotations

from typing import Any

from river.compose import Discard, Select

from riverdelta.core.errors import ConfigurationError, Unsupported, near
from riverdelta.core.nodes import Nodes
from riverdelta.river.base import Converter, Flow, Name, Place, Shape, register


class PresentSelect(Select):
    """Selects those of its features that are there: a pipeline's first rows have no numbers."""

    def transform_one(self, x: dict[Any, Any]) -> Any:
        return {name: x[name] for name in self.keys if name in x}


class DiscardConverter(Converter):
    """Passes on the features that are not named."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        names = self.kept(step, before.names)
        self.after = Shape(names, before.ids.intersection(names), before.encoded)

    @classmethod
    def kept(cls, step: Any, names: tuple[Name, ...]) -> tuple[Name, ...]:
        """Return the features that are passed on."""
        return tuple(n for n in names if n not in step.keys)

    @classmethod
    def keys(cls, step: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), tuple(str(n) for n in cls.kept(step, names))

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        kept = set(self.after.names)
        blocks = []
        for keys, tensor in flow.blocks:
            if kept.issuperset(keys):
                blocks.append((keys, tensor))
            elif some := tuple(k for k in keys if k in kept):
                blocks.append((some, flow.matrix(nodes, some)))
        return Flow(tuple(blocks), {n: t for n, t in flow.ids.items() if n in kept}, flow.terms)


class SelectConverter(DiscardConverter):
    """Passes on the features that are named."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        if before.encoded:
            raise Unsupported("Select comes after OneHotEncoder; select the columns before they are encoded")
        for name in step.keys:
            if name not in before.names:
                raise ConfigurationError(f"Select names {name!r}, which is not here: {near(name, map(str, before.names))}")
        super().__init__(step, before, place)

    @classmethod
    def learner(cls, step: Any) -> Any:
        fresh: Any = PresentSelect(*step.keys)
        # The order of a set of strings differs between processes, and with it the last bits of River's sums.
        fresh.keys = tuple(sorted(fresh.keys))
        return fresh

    @classmethod
    def kept(cls, step: Any, names: tuple[Name, ...]) -> tuple[Name, ...]:
        return tuple(n for n in names if n in step.keys)


register(Discard, DiscardConverter)
register(Select, SelectConverter)
