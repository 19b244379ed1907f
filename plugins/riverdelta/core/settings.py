"""Settings: everything an operator may change, each by an environment variable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from riverdelta.core.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
#: The settings that learning reads; the journal holds a record of them wherever one has changed.
LEARNING = (
    "labels", "window_seconds", "on_conflict", "late", "keep_negatives", "serve", "breaker", "breaker_resume_examples",
    "max_updates_per_entity", "entity_window_seconds", "drift_run_length", "drift_reference_examples",
)  # fmt: skip


class Settings(BaseSettings):
    """Each setting is read from RIVERDELTA_<NAME>, as in RIVERDELTA_HOME=/var/lib/riverdelta."""

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_", frozen=True, extra="ignore")

    #: The folder that keeps the journal, releases and checkpoints; one folder a scorer lies in it.
    home: Path = Path(".riverdelta")
    #: The port of the gRPC server, shared by all workers; 0 switches gRPC off.
    grpc_port: Annotated[int, Field(ge=0, le=65535)] = 3001
    #: The address of the gRPC server, IPv4 or IPv6; a name stands for one of its addresses.
    grpc_host: str = "127.0.0.1"
    #: Bearer tokens of each role, separated by commas; an admin token may do everything. Needed beyond loopback.
    score_tokens: SecretStr = SecretStr("")
    feedback_tokens: SecretStr = SecretStr("")
    admin_tokens: SecretStr = SecretStr("")
    #: The most requests and rows that one caller may send to one worker in a second, if set; bursts of as many pass.
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    rows_per_second: Annotated[float, Field(gt=0)] | None = None
    #: How long ids of the last key are accepted after `riverdelta rotate-key`.
    key_window_seconds: Seconds = 7 * 86_400.0
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
    #: A positive that comes after its row matured as a negative: `weighted` undoes the negative, `plain` counts as one row.
    late: Literal["weighted", "plain"] = "weighted"
    #: The share of negatives that is learned; the logit stays calibrated.
    keep_negatives: Annotated[float, Field(gt=0, le=1)] = 1.0
    #: Bytes of memory for impressions that wait for feedback; older ones are read back from the journal when it comes. Showings
    #: that wait for their window take 24 bytes each; those past this limit are refused (503) until windows have closed.
    waiting_bytes: Count = 256 << 20
    #: `corrected`: the gate's mixture of base and corrections is served. `base`: shadow mode; all is learned, no score changes.
    serve: Literal["corrected", "base"] = "corrected"
    #: The answer for a row whose score is NaN. `null`: null, or NaN in binary tensors; the other rows have
    #: their scores. `error`: the whole request fails with HTTP 500 or gRPC INTERNAL and a message that names the row, and none
    #: of it is journalled. `champion`: the champion's score, from a second session that is opened when first needed; an error
    #: where the champion has none either, as where the base returned NaN.
    not_finite: Literal["null", "error", "champion"] = "null"
    #: `json`: what riverdelta logs is one JSON object a line, with the request's trace where there is one.
    log_format: Literal["text", "json"] = "text"
    #: `live`: the newest tables serve. `release`: those of the champion do, until a release is promoted.
    guard: Literal["live", "release"] = "live"
    #: What an abrupt change of the joined stream does: nothing, stop learning, or stop it and put the champion into service.
    breaker: Literal["off", "freeze", "rollback"] = "freeze"
    #: After how many calm examples learning resumes by itself; unset: only by `riverdelta resume`.
    breaker_resume_examples: Count | None = 2_000
    #: The most updates of one entity (each value of an id column that a correction is keyed by) in a window; unset: no limit.
    max_updates_per_entity: Count | None = None
    #: The length of that window.
    entity_window_seconds: Seconds = 3600.0
    #: The mean number of examples from one false drift alarm to the next, at least; 0: drift is not watched.
    drift_run_length: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e7
    #: How many examples show what is usual, a multiple of 64: the first ones, and those after a drift alarm.
    drift_reference_examples: Annotated[int, Field(ge=1024, multiple_of=64)] = 8_192
    #: The least time between two swaps.
    swap_min_seconds: Seconds = 0.05
    #: How often a worker looks for new tables.
    follow_seconds: Seconds = 0.02
    #: How often a release is made, where something was learned.
    release_seconds: Seconds = 300.0
    #: A release is made after so many examples too, if set.
    release_examples: Count | None = None
    #: How many releases are kept, besides the champion and the one that serves.
    keep_releases: Count = 8
    #: The oldest releases, but never the champion or the one that serves, are deleted while all take more bytes than this.
    max_release_bytes: Count = 4 << 30
    #: A release becomes the champion when it is surely not worse by more than this, in nats a row.
    promote_margin: Annotated[float, Field(gt=0, lt=1)] = 0.002
    #: The probability of ever promoting one that is worse by more than that.
    promote_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    #: How often the learner's state is saved.
    checkpoint_seconds: Seconds = 20.0
    #: The probability from which a score counts as a positive in accuracy, precision, recall and F1.
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @field_validator("drift_run_length")
    @classmethod
    def _long_enough(cls, run_length: float) -> float:
        if 0 < run_length < 64:
            raise ValueError("expected 0, or a number of examples of at least 64")
        return run_length

    @model_validator(mode="after")
    def _silence_has_a_window(self) -> Settings:
        if (self.labels == "silence") != (self.window_seconds is not None):
            raise ValueError(
                f"RIVERDELTA_LABELS is {self.labels!r} and RIVERDELTA_WINDOW_SECONDS is {self.window_seconds!r}; silence needs "
                f"a window, as RIVERDELTA_WINDOW_SECONDS=3600, and explicit labels have none"
            )
        return self

    def learning(self) -> dict[str, Any]:
        """Return the settings that learning reads."""
        return {name: getattr(self, name) for name in LEARNING}

    def learning_as(self, given: Mapping[str, Any]) -> Settings:
        """Return these settings with those that learning reads as `given`; raises `ConfigurationError` naming a bad one."""
        return Settings.load(**{**self.model_dump(), **{name: given[name] for name in LEARNING if name in given}})

    @classmethod
    def load(cls, **given: object) -> Settings:
        """Return the settings of the environment, overridden by `given`; raises `ConfigurationError` naming the variable."""
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            # The input of a rule about several settings is all of them, tokens too: its message names those that it means.
            lines = [
                f"RIVERDELTA_{str(e['loc'][0]).upper()} is {e['input']!r}: {e['msg']}" if e["loc"] else str(e["ctx"]["error"])
                for e in error.errors()
            ]
            raise ConfigurationError("; ".join(lines)) from None
