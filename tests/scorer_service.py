"""The service of a small scorer: SCORER_TASK is its task, and SCORER_FOLDER has its base."""

import os
from pathlib import Path

import bentoml

from riverdelta import online
from small_scorers import terms


@bentoml.service(workers=2, traffic={"timeout": 5}, logging={"access": {"enabled": False}})
@online(**terms(Path(os.environ["SCORER_FOLDER"]), os.environ["SCORER_TASK"]))
class Ranker:
    """A scorer of `small_scorers.py`."""
