"""Rows on which tiny models are trained, and the rows of a request."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROWS


class Data:
    """Numbers X, two classes y that they predict, three of them, a value, a count, a city as text, and rows of one request."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.X = rng.normal(size=(300, 4)).astype(np.float32)
        self.y = (self.X @ np.array([2, -1, 0.5, 0]) + rng.normal(size=300) > 0).astype(np.int64)
        self.city = rng.choice(["Oslo", "Rome", "Łódź"], 300).astype(object)
        self.rows = self.X[:ROWS] + np.float32(0.01)
        self.cities = self.city[:ROWS]
        noise = rng.gumbel(size=(300, 3))
        self.kind = (self.X[:, :3] * 2 + noise).argmax(axis=1)
        self.name = np.array(["bird", "cat", "dog"])[self.kind]
        self.value = (self.X @ np.array([2, -1, 0.5, 0]) + 5).astype(np.float32)
        self.count = rng.poisson(np.exp(self.X[:, 0] / 2 + 1))


@pytest.fixture(scope="session")
def data():
    return Data()
