"""Converter of FeatureHasher, which adds each number, with a sign, to the bucket of its name."""

from __future__ import annotations

from typing import Any

import numpy as np
from river.preprocessing import FeatureHasher

from riverdelta.core.errors import Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.river.base import Converter, Flow, Name, Place, Shape, register


class FeatureHasherConverter(Converter):
    """Serves the hasher as a constant matrix of signs, names by buckets, from River's own hash of each name."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        before.unmixed("FeatureHasher")
        for categories in before.encoded:
            categories.mixed = True
        hits = [next(iter(step.transform_one({str(name): 1.0}).items())) for name in before.names]
        buckets: tuple[Name, ...] = tuple(dict.fromkeys(bucket for bucket, _ in hits))
        self._signs = np.zeros((len(hits), len(buckets)))
        for row, (bucket, sign) in enumerate(hits):
            self._signs[row, buckets.index(bucket)] = sign
        self.after = Shape(buckets, encoded=before.encoded)

    @classmethod
    def check(cls, step: Any) -> None:
        if step.seed is None:
            raise Unsupported("FeatureHasher(seed=None) hashes differently in each process; set a seed, such as seed=1")

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        if not self.before.names:
            return flow
        hashed = nodes.add("MatMul", flow.matrix(nodes, self.before.names), nodes.constant(self._signs))
        return Flow(((self.after.names, hashed),), terms=flow.terms)


register(FeatureHasher, FeatureHasherConverter)
