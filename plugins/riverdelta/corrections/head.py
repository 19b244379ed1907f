"""Head: one linear model over a vector of the base for all of its outputs, for a new speaker or a new fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from riverdelta.core.checked import bound, flag, positive, share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.coefficients import At, Ids
from riverdelta.corrections.dense import Feature, listed
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.rows import offset_key


class Head(Entity):
    """Learns a new last layer over a tap, for every row and every output at once: raw = offset + M·x, with M zero at first.

    Parameters
    ----------
    on
        The features x: a tap, float32 columns, vector lookups, projections (`Project`) or `Seasons`, one or a list.
    intercept
        Whether x includes a constant 1.
    variance
        The prior variance of each feature's contribution m·x, in squared raw outputs, whatever the scale of the feature
        (default 0.5). Raise it if tens of examples must change an answer, lower it if labels are noisy.
    forget
        The share of the evidence that each example keeps, above 0 and at most 1: 1 - 1/n remembers about n examples. Lower it
        if what is learned changes, as to 0.999; 1.0 weighs all examples equally.
    offset
        As in `Entity`.
    clip
        The largest gradient of one example, as in `Entity`.
    radius
        The bound on the coefficients, in raw outputs at features of typical size, as in `Entity`.

    Notes
    -----
    It is an `Entity` of which all rows are, with its beliefs and steps: a Newton step for each example, by the diagonal of the
    curvature. With several outputs it is a softmax head; a class that was never a label keeps the base's logit. Tap the layer
    before the base's last one: what a network has learned to tell apart is linear there.

    Source: Ramanath et al. 2021, "Lambda Learner" (arXiv 2010.05154).

    Examples
    --------
    >>> from riverdelta import Multiclass, Schema, Stack
    >>> stack = Stack([Head("voice")], Multiclass(["one", "two", "three"]))
    >>> stack.bind(Schema.of({"voice": "float32[2]"}))
    >>> x, base = np.float32([[1, 0], [0, 1]] * 20), np.zeros((40, 3), np.float32)
    >>> _ = stack.learn({"voice": x}, base, np.float32([0, 1] * 20), np.ones(40, np.float32))
    >>> stack.predict({"voice": x[:2]}, base[:2]).argmax(axis=1).tolist()
    [0, 1]
    """

    key, slots = (), 1

    def __init__(
        self,
        on: Feature | Sequence[Feature],
        intercept: bool = True,
        variance: float = 0.5,
        forget: float = 1.0,
        offset: str | None = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        self.on, self.intercept = listed(on), flag("intercept", intercept)
        if not self.on:
            raise ConfigurationError(f'Head({on!r}) has no features; name a tap, as in Head("voice")')
        self.variance, self.forget = positive("variance", variance), share("forget", forget)
        self.offset, self.clip, self.radius = offset_key(offset), bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"on": ("ip_in_url",)}

    def _bind_key(self, schema: Schema, what: str) -> None:
        """Nothing is hashed: slot 0 belongs to every row."""

    def _slots(self, columns: Columns, rows: int) -> Ints:
        return np.zeros(rows, np.int64)

    def _export_slots(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        rows = nodes.add("Gather", nodes.add("Shape", offset), nodes.constant([0], np.int64))
        return nodes.add("Expand", nodes.constant([0], np.int64), rows)

    def _find(self, ids: Ids) -> list[At]:
        return []

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        return 0
