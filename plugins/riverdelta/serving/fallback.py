"""Fallback: the answer for a row whose score is NaN."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import NotFinite, RiverdeltaError
from riverdelta.core.features import Columns, Floats
from riverdelta.core.records import by_output
from riverdelta.metrics.worker import Metrics
from riverdelta.serving.session import Scored, Session
from riverdelta.storage.registry import Release

_log = logging.getLogger(__name__)


class Fallback:
    """The answers of one worker for rows whose score is NaN; each row is counted, and the first is logged.

    `policy` is `Settings.not_finite`. `champion` returns the champion release, and `open_session` opens a session on it, which
    is kept until another release is the champion.

    The journal gets what was answered; with "error" nothing. With "champion" a row has the champion's score and served raw
    output, and its own corrected one of NaN, which distinguishes it from a row that the live tables scored: its loss counts as
    served, and the gate, whose mixture it did not get, skips it.
    """

    def __init__(
        self,
        policy: Literal["null", "error", "champion"],
        champion: Callable[[], Release | None],
        open_session: Callable[[Release], Session],
        metrics: Metrics,
    ) -> None:
        self._policy, self._champion, self._open, self._metrics = policy, champion, open_session, metrics
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._logged = False

    def settle(self, scored: Scored, columns: Columns) -> Scored:
        """Return the answer for a block with NaN scores; raises `NotFinite` naming the first such row."""
        lacking = _nan(scored.score)
        self._metrics.not_finite(int(_nan(scored.base).sum()), int(lacking.sum()))
        what = _what(scored, int(lacking.argmax()))
        if not self._logged:
            self._logged = True
            _log.warning("%s; riverdelta_rows_not_finite_total counts such rows, and only this one is logged", what)
        if self._policy == "null":
            return scored
        if self._policy == "champion":
            try:
                return self._by_champion(scored, columns, lacking)
            except NotFinite as error:
                what = str(error)
            except (RiverdeltaError, OSError) as error:
                what = f"{what}, and the champion cannot score it: {error}"
        raise NotFinite(f"{what}; {_ADVICE}")

    def _by_champion(self, scored: Scored, columns: Columns, lacking: npt.NDArray[np.bool_]) -> Scored:
        if (without := lacking & _nan(scored.base)).any():
            # Every release has the same base, so the champion returns NaN too.
            raise NotFinite(_what(scored, int(without.argmax())))
        session = self._of_champion()
        other = session.run(columns)
        if (without := lacking & _nan(other.score)).any():
            what = _what(scored, int(without.argmax()))
            raise NotFinite(f"{what}, and the champion, release {session.state.release}, has none either")
        score, served = scored.score.copy(), scored.served.copy()
        score[lacking], served[lacking] = other.score[lacking], other.served[lacking]
        return replace(scored, score=score, served=served)

    def _of_champion(self) -> Session:
        with self._lock:
            champion = self._champion()
            assert champion is not None  # release 0 exists before the first request
            if self._session is None or self._session.state.release != champion.number:
                champion.verify()
                self._session = self._open(champion)
                _log.info(
                    "release %d, the champion, is loaded beside the live tables to score rows whose score is NaN",
                    champion.number,
                )
            return self._session


_ADVICE = "check the row's columns, send the other rows without it, or set RIVERDELTA_NOT_FINITE=null to get null for such rows"


def _nan(outputs: Floats) -> npt.NDArray[np.bool_]:
    """Return whether each row has an output of NaN."""
    return np.logical_or.reduce(np.isnan(by_output(outputs)), axis=1)


def _what(scored: Scored, row: int) -> str:
    base, corrected = (", ".join(f"{one:g}" for one in np.ravel(raw[row])) for raw in (scored.base, scored.corrected))
    if _nan(scored.base)[row]:
        return f"row {row} has no score: the base's output is {base}"
    return f"row {row} has no score: the base's output is {base}, and the corrected output is {corrected}"
