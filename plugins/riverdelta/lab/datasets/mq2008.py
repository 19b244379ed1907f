"""MQ2008 (LETOR 4.0): 46 features of queries and documents with grades 0 to 2, and clicks simulated over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import Ranking
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Other, Split
from riverdelta.lab.stream import Stream
from riverdelta.lab.tabular import fit
from riverdelta.learning.definition import Definition

_GRADES = 2
#: The column of BM25 of the entire document, by which lists are shown, after the grade and the query.
_BM25 = 2 + 24
_SESSIONS, _SHOWN, _NOISE, _SEEDS = 3_000, 10, 0.1, (0, 1, 2)


class MQ2008(DataSet):
    """The base is trained on the first fifth of the training queries; users search the others and click.

    3,000 sessions, one a second: a query at random, its ten best documents by BM25 in this order. The row at position k (0 for
    the first) is examined with probability 1 / (1 + k), and clicked if it is examined and attracts: with probability 0.1 +
    0.9·(2^grade - 1) / 3. Clicks are known a minute later, with the propensity 1 / (1 + k) of each row. The test queries have
    the publisher's grades: they are scored after the stream, after the streams of other seeds, after the same streams without
    propensities, and after those with positions instead, from which they are learned.
    """

    name = "mq2008"
    about = "search results; base: gradient boosting on the grades of a fifth of the training queries, stream: simulated clicks"
    measure, decides = "ndcg10", "test queries, after the stream"
    lag_seconds = 60.0

    def load(self, folder: Path, work: Path) -> Split:
        train, test = (_read(folder / f"{name}.npy") for name in ("train", "test"))
        queries = np.unique(train[:, 1])
        first, rest = queries[: len(queries) // 5], queries[len(queries) // 5 :]
        streams = {f"seed {seed}": self._clicks(train, rest, seed) for seed in _SEEDS}
        unknown = {name: replace(stream, propensity=None) for name, stream in streams.items()}
        (_, later), *more = streams.items()
        others: dict[str, Other] = {name: (stream, {}) for name, stream in more}
        others |= {f"{name}, no propensities": (stream, {}) for name, stream in unknown.items()}
        learned = {"task": Ranking(positions=_SHOWN)}
        others |= {f"{name}, positions": (stream, learned) for name, stream in unknown.items()}
        held_out = {"test queries": self._graded(test)}
        return Split(self._graded(train[np.isin(train[:, 1], first)]), later, held_out, others)

    def train(self, first: Stream, path: Path) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        fit(HistGradientBoostingRegressor(random_state=0), first, ("X",), path)

    def definition(self, base: Path) -> Definition:
        return Definition(name="search", base=base, task="ranking", corrections=[Calibration(), Linear("X")])

    def _graded(self, rows: npt.NDArray[Any]) -> Stream:
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        columns, group = {"X": np.ascontiguousarray(rows[:, 2:], np.float32)}, rows[:, 1].astype(np.int64)
        label = rows[:, 0].astype(np.float32)
        return Stream(self.name, columns, label, np.zeros(len(rows)), loss=Ranking(_GRADES), group=group)

    def _clicks(self, rows: npt.NDArray[Any], queries: npt.NDArray[Any], seed: int) -> Stream:
        rng, lists = np.random.default_rng(seed), list[npt.NDArray[Any]]()
        for query in rng.choice(queries, _SESSIONS).tolist():
            found = rows[rows[:, 1] == query]
            lists.append(found[np.argsort(-found[:, _BM25], kind="stable")][:_SHOWN])
        shown, counts = np.concatenate(lists), [len(each) for each in lists]
        group, position = np.repeat(np.arange(_SESSIONS), counts), np.concatenate([np.arange(count) for count in counts])
        examined = 1.0 / (1.0 + position)
        attracts = _NOISE + (1.0 - _NOISE) * (2.0 ** shown[:, 0] - 1.0) / (2.0**_GRADES - 1.0)
        label = (rng.random(len(shown)) < examined * attracts).astype(np.float32)
        return Stream(
            self.name,
            {"X": shown[:, 2:].astype(np.float32)},
            label,
            group.astype(np.float64),
            loss=Ranking(),
            group=group,
            propensity=examined.astype(np.float32),
        )


def _read(path: Path) -> npt.NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as an array: {error}") from error
    if found.ndim != 2 or found.shape[1] <= _BM25 or not np.isin(found[:, 0], range(_GRADES + 1)).all():
        raise InvalidInput(f"{path} is {found.shape}; expected rows of a grade 0 to {_GRADES}, a query and 46 features")
    return found


DATASET = MQ2008()
