"""FeatureHasher in the graph is River's hash of the names, signs and collisions included."""

import numpy as np
import pytest
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import FeatureHasher, StandardScaler

from riverdelta import Schema
from riverdelta.core.errors import Unsupported
from riverdelta.river import River

SCHEMA = Schema.of({"h": "float32", "n": "int64", "v": "float32[6]"})


def rows(seed, n=100):
    rng = np.random.default_rng(seed)
    columns = {
        "h": rng.normal(size=n).astype(np.float32),
        "n": rng.integers(-4, 5, n),
        "v": rng.normal(size=(n, 6)).astype(np.float32),
    }
    return columns, (columns["h"] > 0).astype(np.float32)


@pytest.mark.parametrize("buckets", [1, 3, 64, 2**20])
@pytest.mark.parametrize("signed", [True, False])
def test_graph_agrees_with_river(buckets, signed, trained):
    hasher = FeatureHasher(buckets, seed=7, alternate_sign=signed)
    both = trained(hasher | LogisticRegression(SGD(0.05)), SCHEMA, *rows(1))
    assert both.gap(rows(2)[0]) < 1e-4


def test_buckets_can_be_scaled(trained):
    both = trained(FeatureHasher(5, seed=7) | StandardScaler() | LogisticRegression(), SCHEMA, *rows(3))
    assert both.gap(rows(4)[0]) < 1e-4


def test_a_hasher_without_a_seed_is_refused():
    with pytest.raises(Unsupported, match=r"seed=None.*seed=1"):
        River(FeatureHasher(8) | LogisticRegression(), ("h",))
