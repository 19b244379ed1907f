"""Settings: everything an operator may change, each by an environment variable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from riverdelta.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Each setting is read from RIVERDELTA_<NAME>, as in RIVERDELTA_HOME=/var/lib/riverdelta."""

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_", frozen=True, extra="ignore")

    #: The folder that keeps the journal, releases and checkpoints; one folder a scorer lies in it.
    home: Path = Path(".riverdelta")
    #: The port of the gRPC server, shared by all workers; 0 switches gRPC off.
    grpc_port: Annotated[int, Field(ge=0, le=65535)] = 3001
    #: The address of the gRPC server.
    grpc_host: str = "127.0.0.1"
    #: The most rows that one request may have.
    max_rows: Count = 16_384
    #: The most bytes that one request body may have.
    max_bytes: Count = 16 << 20
    #: Threads inside one ONNX operator: 1 costs least for small models, a large one may want more; 0 leaves it to ONNX Runtime.
    threads: Annotated[int, Field(ge=0)] = 1
    #: How long an impression may wait in memory before it is durable.
    flush_seconds: Seconds = 0.02
    #: How many rows are made durable at once at the most.
    flush_rows: Count = 1024
    #: The size at which a journal segment is closed.
    segment_bytes: Count = 256 << 20
    #: Journal segments that are learned and older than this are deleted.
    journal_max_age_seconds: Seconds = 30 * 86_400.0
    #: Learned journal segments are deleted, oldest first, while the journal is larger than this.
    journal_max_bytes: Count = 20 << 30
    #: Which of two different labels of one row counts.
    on_conflict: Literal["first", "last", "max"] = "first"
    #: `explicit`: a row is learned when its label comes. `silence`: shown rows without one become negatives.
    labels: Literal["explicit", "silence"] = "explicit"
    #: The attribution window after which a shown row becomes a negative.
    window_seconds: Seconds | None = None
    #: How many impressions may wait for feedback at once.
    waiting_rows: Count = 1_000_000
    #: The least time between two swaps.
    swap_min_seconds: Seconds = 0.05
    #: How often a worker looks for new tables.
    follow_seconds: Seconds = 0.02
    #: How often a release is made, where something was learned.
    release_seconds: Seconds = 300.0
    #: How many releases are kept.
    keep_releases: Count = 8
    #: How often the learner's state is saved.
    checkpoint_seconds: Seconds = 20.0
    #: The probability from which a score counts as a positive in accuracy, precision, recall and F1.
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _silence_has_a_window(self) -> Settings:
        if (self.labels == "silence") != (self.window_seconds is not None):
            raise ValueError("labels=silence needs window_seconds, and labels=explicit has none")
        return self

    @classmethod
    def load(cls, **given: object) -> Settings:
        """Return the settings of the environment, overridden by `given`; raises `ConfigurationError` naming the variable."""
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            lines = [
                f"RIVERDELTA_{'_'.join(map(str, e['loc'])).upper() or 'LABELS'} is {e['input']!r}: {e['msg']}"
                for e in error.errors()
            ]
            raise ConfigurationError("; ".join(lines)) from None
