"""Converter of OneHotEncoder, which turns an id into the key `<column>_<id>` with the value 1."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, ClassVar

from river.preprocessing import OneHotEncoder

from riverdelta.core.errors import ConfigurationError, Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.river.base import Converter, Flow, Place, Shape, register
from riverdelta.river.categories import Categories


class BoundedEncoder(OneHotEncoder):
    """Encodes the ids that have a row in a table; an id that found no free row is left out."""

    #: Attributes that a snapshot leaves out.
    derived: ClassVar[tuple[str, ...]] = ("tables",)
    tables: dict[str, Categories]

    def learn_one(self, x: dict[Hashable, Any]) -> None:
        for name, key in x.items():
            table = self.tables[str(name)]
            if self.categories is None or key in table.rows:
                table.add(key)
        super().learn_one(self._known(x))  # type: ignore[no-untyped-call]

    def transform_one(self, x: dict[Hashable, Any], y: Any = None) -> Any:
        return super().transform_one(self._known(x))  # type: ignore[no-untyped-call]

    def _known(self, x: dict[Hashable, Any]) -> dict[Hashable, Any]:
        return {name: key for name, key in x.items() if key in self.tables[str(name)].rows}


class OneHotEncoderConverter(Converter):
    """Serves a table of categories for each id column; their coefficients include all steps after the encoder."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        if before.encoded or (others := [n for n in before.names if n not in before.ids]):
            what = "categories" if before.encoded else repr(others[0])
            raise ConfigurationError(
                f"OneHotEncoder encodes id columns, and its input includes {what}; declare the column as int64, "
                f"or put compose.Select('your_id') before the encoder"
            )
        step.tables = {str(n): Categories(str(n), place.path, place.slots, step.drop_zeros) for n in before.names}
        for name, given in ((n, (step.categories or {}).get(n)) for n in step.tables):
            if step.categories is not None:
                _fill(step.tables[name], given)
        self.after = Shape((), encoded=tuple(step.tables.values()))
        self.tables = {f"{place.path}_{name}": c.table for name, c in step.tables.items()}

    @classmethod
    def check(cls, step: Any) -> None:
        if step.drop_first:
            raise Unsupported(
                "OneHotEncoder(drop_first=True) drops whichever category comes first in the alphabet so far, which no "
                "table can serve; use drop_first=False"
            )

    @classmethod
    def learner(cls, step: Any) -> Any:
        return BoundedEncoder(step.categories, step.drop_zeros)

    @classmethod
    def keys(cls, step: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return names, ()

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        terms = [
            c.export(nodes, flow.ids[name], nodes.table(f"{self.place.path}_{name}", c.table.values))
            for name, c in self.step.tables.items()
        ]
        return Flow(terms=(*flow.terms, *terms))


def _fill(table: Categories, given: Any) -> None:
    if given is None:
        raise ConfigurationError(f"OneHotEncoder has categories, but none for {table.column!r}; add them or select others")
    for key in sorted(given, key=str):
        if not isinstance(key, int) or isinstance(key, bool) or not -(2**63) <= key < 2**63:
            raise ConfigurationError(
                f"OneHotEncoder has the category {key!r} of {table.column!r}; expected int64 ids (riverdelta.id64 of a string)"
            )
        if not table.add(key):
            raise ConfigurationError(
                f"{len(given)} categories of {table.column!r} do not fit into {table.slots} slots; use River(..., slots=...)"
            )


register(OneHotEncoder, OneHotEncoderConverter)


def encoders(step: Any) -> Iterator[BoundedEncoder]:
    """Yield the encoders of a pipeline."""
    # Not isinstance: River makes a pipeline look like its last step.
    if type(step) is BoundedEncoder:
        yield step
    for part in getattr(step, "steps", getattr(step, "transformers", {})).values():
        yield from encoders(part)
