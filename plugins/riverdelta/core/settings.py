"""Settings: everything that an operator may change, each by an environment variable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from riverdelta.core import environment
from riverdelta.core.errors import ConfigurationError, near
from riverdelta.core.strict import in_words, schema_at

Seconds = Annotated[float, Field(gt=0, le=1e9)]
Rate = Seconds | None
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
DAY, NONE = 86_400.0, SecretStr("")
#: The settings that learning reads; the journal has a record of them at every change.
LEARNING = (
    "labels", "window_seconds", "on_conflict", "late", "keep_negatives", "serve", "breaker",
    "max_updates_per_entity", "entity_window_seconds", "held_bytes", "sender_burst",
    "drift_run_length", "drift_reference_examples",
)  # fmt: skip
#: What a record without these settings, from before they existed, means: they had no effect.
ADDED = {"sender_burst": 0.0}


def _setting(group: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"group": group}, **limits)


_serving, _access, _feedback, _journal, _learning, _releases, _safety, _observability = (
    partial(_setting, group)
    for group in (
        "Serving", "Access", "Feedback and labels", "Journal", "Learning", "Publishing and releases", "Safety", "Observability"
    )
)  # fmt: skip


class Settings(BaseSettings):
    """The operator's settings, each read from RIVERDELTA_<NAME>, such as RIVERDELTA_HOME=/var/lib/riverdelta."""

    model_config = SettingsConfigDict(env_prefix=environment.PREFIX, frozen=True, extra="forbid")

    home: Path = _serving(
        Path(".riverdelta"), "Folder of all state, with a subfolder for each scorer; use a volume that only one service mounts."
    )
    grpc_port: Port = _serving(3001, "gRPC port; 0: no gRPC. A second scorer needs its own: `@online(…, grpc_port=3002)`.")
    grpc_host: str = _serving("127.0.0.1", "Address of the gRPC server: IPv4, IPv6 (`::` for all), or a host name.")
    max_rows: Count = _serving(16_384, "Maximum rows in one request.")
    max_bytes: Count = _serving(16 << 20, "Maximum bytes in the body of one request.")
    threads: Natural = _serving(1, "Threads inside one ONNX operator; 0 leaves it to ONNX Runtime. 1 is best for small models.")
    serve: Literal["corrected", "base"] = _serving(
        "corrected", "`corrected`: the gate's mixture. `base`: shadow mode, which learns but does not change scores."
    )
    not_finite: Literal["null", "error", "champion"] = _serving(
        "null",
        "Answer for a row whose score is NaN. `null`: null, or NaN in a tensor, for that row. `error`: the request fails "
        "with HTTP 500 or gRPC INTERNAL, and is not journalled. `champion`: the champion's score, or an error if that is NaN.",
    )
    follow_seconds: Seconds = _serving(0.02, "Interval at which a worker polls for new tables.")

    score_tokens: SecretStr = _access(
        NONE,
        "Tokens that may score, separated by commas, each as `name=token` or `token`, of at least 16 characters. Outside "
        "loopback every role needs at least one.",
    )
    feedback_tokens: SecretStr = _access(
        NONE, "Tokens that may send feedback, separated by commas; those of one name are one sender."
    )
    admin_tokens: SecretStr = _access(NONE, "Tokens that may do everything, separated by commas.")
    requests_per_second: Rate = _access(None, "Maximum requests a second from one caller to one worker, and in one burst.")
    rows_per_second: Rate = _access(None, "Maximum rows a second from one caller to one worker, and in one burst.")
    hosts: str = _access(
        "",
        "Names, separated by commas, that the `Host` of a request may have while no tokens are set, besides IP addresses and "
        "`localhost`.",
    )
    receive_seconds: Seconds = _access(
        20.0, "Time within which a request must be received in full; its connection is closed afterwards."
    )
    key_window_seconds: Seconds = _access(
        7 * DAY, "Time for which ids of the former key are accepted after `riverdelta rotate-key`."
    )

    labels: Literal["explicit", "silence"] = _feedback(
        "explicit",
        "`explicit`: a row is learned when its label arrives. `silence`: a row reported as shown also becomes a negative if no "
        "label has arrived when its window ends.",
    )
    window_seconds: Rate = _feedback(
        None,
        "Attribution window, after which a shown row becomes a negative; for ranking, after which a list is learned.",
    )
    on_conflict: Literal["first", "last", "max"] = _feedback("first", "Which of two different labels of one row counts.")
    late: Literal["weighted", "plain"] = _feedback(
        "weighted", "How to learn a positive whose row has become a negative: `weighted` undoes the negative, `plain` does not."
    )
    keep_negatives: float = _feedback(1.0, "Share of negatives that is learned; the logit stays calibrated.", gt=0, le=1)
    waiting_bytes: Count = _feedback(
        256 << 20,
        "Memory for impressions that wait for feedback; older ones are read from the journal. Showings take 24 bytes each, and "
        "the feedback of lists 60, until their window ends; beyond this limit both are answered 503, but for `complete` lists.",
    )

    flush_seconds: Seconds = _journal(0.02, "Longest time that an impression waits in memory before it is made durable.")
    flush_rows: Count = _journal(1024, "Maximum rows that are made durable at once.")
    segment_bytes: Count = _journal(256 << 20, "Size at which a segment of the journal is closed.")
    journal_max_age_seconds: Seconds = _journal(30 * DAY, "Learned segments older than this are deleted.")
    journal_max_bytes: Count = _journal(20 << 30, "Learned segments are deleted, oldest first, while the journal is larger.")

    names: Natural = _journal(
        100_000,
        "Texts of string ids that the journal keeps, of up to 128 characters each, so that `riverdelta impression` and `diff` "
        "show them; while it has this many, no further one is kept. 0: none.",
    )

    checkpoint_seconds: Seconds = _learning(20.0, "Interval at which the learner's state is saved.")
    drift_run_length: float = _learning(
        1e7,
        "Minimum mean number of examples between false drift alarms; 0: drift is not watched.",
        ge=0,
        allow_inf_nan=False,
    )
    drift_reference_examples: int = _learning(
        8_192, "Examples in a drift reference window, at the start and after each alarm.", ge=1024, multiple_of=64
    )

    swap_min_seconds: Seconds = _releases(0.05, "Minimum time between two swaps.")
    release_seconds: Seconds = _releases(300.0, "Interval at which a release, a complete merged model, is made.")
    release_examples: Count | None = _releases(None, "A release is also made after this many examples.")
    keep_releases: Count = _releases(8, "Releases kept besides the champion and the one in service.")
    max_release_bytes: Count = _releases(
        4 << 30, "The oldest releases are deleted while all are larger, except the champion and the one in service."
    )
    promote_margin: Share = _releases(
        0.002,
        "A release is promoted if it is not worse than the champion by more than this, with confidence: in nats an example, or "
        "for squared and Poisson losses as a share of the base's typical loss.",
    )
    promote_alpha: Share = _releases(0.05, "Probability of ever promoting a release that is worse by more than the margin.")

    guard: Literal["live", "release"] = _safety(
        "live", "`live`: the newest tables serve. `release`: the champion's tables serve until another release is promoted."
    )
    breaker: Literal["off", "freeze", "rollback"] = _safety(
        "freeze", "Response to evidence that learning does harm: none, stop learning, or also roll back to the champion."
    )
    held_bytes: Count = _safety(
        256 << 20,
        "Memory for the examples that come while the breaker is open, and their size in checkpoints; beyond it the oldest are "
        "dropped.",
    )
    sender_burst: float = _safety(
        4.0,
        "A sender is learned with at most this many times its usual share of the recent weight, 1 or more; of what it sends "
        "beyond that a random part is learned. 0: no limit.",
        ge=0,
        le=1e9,
        allow_inf_nan=False,
    )
    max_updates_per_entity: Count | None = _safety(
        None, "Maximum updates in a window for an id that a correction is keyed by; one of weight 3 counts as 3."
    )
    entity_window_seconds: Seconds = _safety(3600.0, "Window of `RIVERDELTA_MAX_UPDATES_PER_ENTITY`.")

    threshold: Share = _observability(
        0.5, "Probability from which a score counts as positive in accuracy, precision, recall and F1."
    )
    log_format: Literal["text", "json"] = _observability(
        "text", "`json`: one JSON object per log line, with the request's trace if there is one."
    )

    @field_validator("drift_run_length")
    @classmethod
    def _long_enough(cls, run_length: float) -> float:
        if 0 < run_length < 64:
            raise ValueError("0, or a number of at least 64")
        return run_length

    @field_validator("sender_burst")
    @classmethod
    def _at_least_usual(cls, burst: float) -> float:
        if 0 < burst < 1:
            raise ValueError("0, or a number of at least 1")
        return burst

    @model_validator(mode="after")
    def _silence_has_a_window(self) -> Settings:
        if self.labels == "silence" and self.window_seconds is None:
            raise ValueError(
                "RIVERDELTA_LABELS is 'silence' and RIVERDELTA_WINDOW_SECONDS is None; silence needs a window: "
                "export RIVERDELTA_WINDOW_SECONDS=3600"
            )
        return self

    def check_window(self, lists: bool) -> None:
        """Raise `ConfigurationError` unless these settings fit a scorer whose examples are `lists`, or rows.

        >>> Settings(window_seconds=60.0).check_window(lists=True)
        """
        if lists and (self.labels == "silence" or self.window_seconds is None):
            raise ConfigurationError(
                f"RIVERDELTA_LABELS is {self.labels!r} and RIVERDELTA_WINDOW_SECONDS is {self.window_seconds!r}; this scorer "
                "ranks lists, which need explicit labels and a window: unset RIVERDELTA_LABELS and "
                "export RIVERDELTA_WINDOW_SECONDS=3600"
            )
        if not lists and self.labels == "explicit" and self.window_seconds is not None:
            raise ConfigurationError(
                f"RIVERDELTA_LABELS is 'explicit' and RIVERDELTA_WINDOW_SECONDS is {self.window_seconds!r}; explicit labels of "
                "rows have no window: unset RIVERDELTA_WINDOW_SECONDS, or export RIVERDELTA_LABELS=silence"
            )

    def learning(self) -> dict[str, Any]:
        """Return the settings that learning reads."""
        return {name: getattr(self, name) for name in LEARNING}

    def learning_as(self, given: Mapping[str, Any]) -> Settings:
        """Return these settings with `given` for those that learning reads; raises `ConfigurationError` naming a bad one."""
        known = {name: given[name] for name in LEARNING if name in given}
        return Settings._of({**self.model_dump(), **(ADDED if given else {}), **known})

    @classmethod
    def load(cls, **given: object) -> Settings:
        """Return the settings of the environment, overridden by `given`.

        Raises `ConfigurationError` naming the variable or the argument whose value is invalid, or which is not a setting.
        """
        environment.check(cls.model_fields)
        return cls._of(given, given)

    @classmethod
    def _of(cls, given: Mapping[str, Any], arguments: Collection[str] = ()) -> Settings:
        try:
            return cls(**given)
        except ValidationError as error:
            # The input of a rule about several settings is all of them, including tokens: its message names those that it
            # concerns.
            lines = [_wrong(str(e["loc"][0]), e, arguments) if e["loc"] else str(e["ctx"]["error"]) for e in error.errors()]
            raise ConfigurationError("; ".join(dict.fromkeys(lines))) from None


def default(name: str) -> str | None:
    """Return the value of a setting's variable that gives its default, or None if that is to unset it.

    >>> default("grpc_port"), default("window_seconds"), default("admin_tokens"), default("release_seconds")
    ('3001', None, None, '300')
    """
    value = Settings.model_fields[name].default
    if isinstance(value, SecretStr) or value is None:
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def allowed(name: str) -> str:
    """Return a description of the values that a setting may have.

    >>> allowed("grpc_port"), allowed("promote_alpha"), allowed("release_examples"), allowed("on_conflict")
    ('an integer of at least 0 and at most 65535', 'a number above 0 and below 1', 'an integer above 0', 'first, last or max')
    """
    return in_words(schema_at(Settings, [name])[1])


def _wrong(name: str, error: Mapping[str, Any], arguments: Collection[str]) -> str:
    """Return pydantic's error about a setting as a message, with the line that fixes it."""
    if error["type"] == "extra_forbidden":
        return f"{name}= is not a setting: {near(name, Settings.model_fields)}"
    variable, value, usual = environment.PREFIX + name.upper(), error["input"], default(name)
    expected = error["ctx"]["error"] if error["type"] == "value_error" else allowed(name)
    if name in arguments:
        mend = f"leave out {name}=" if usual is None else f"write {name}={usual if usual.isdecimal() else repr(usual)}"
        return f"{name}= is {value!r}; expected {expected}: {mend}"
    mend = f"unset {variable}" if usual is None else f"export {variable}={usual}"
    if (service := environment.link(name.upper(), str(value))) is not None:
        mend = f"set enableServiceLinks: false in the pod's spec, since this is Kubernetes' link to {service}, or type {mend}"
    return f"{variable} is {value!r}; expected {expected}: {mend}"
