"""Reference file: what was usual in a base's training data, kept beside the base, and the settings record that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import read_arrays, write_arrays
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.settings import Settings
from riverdelta.evaluation.drift import Reference, as_record
from riverdelta.learning.definition import Definition


def path_of(definition: Definition) -> Path:
    """Return where the reference of a definition's base lies: `ranker.reference` beside `ranker.onnx`."""
    return definition.base.with_suffix(".reference")


def save(definition: Definition, reference: Reference, path: Path | None = None) -> Path:
    """Write a reference beside its base, whole or not at all, and return its path."""
    path = path or path_of(definition)
    write_arrays(path, reference.arrays() | {"base": _base(definition)})
    return path


def load(definition: Definition) -> Reference | None:
    """Return the reference beside a definition's base, None where there is none.

    Raises `ConfigurationError` where it is of another base, and `Corrupt` where it is not what was written.
    """
    path = path_of(definition)
    if not path.exists():
        return None
    arrays = dict(read_arrays(path))
    if not np.array_equal(arrays.pop("base", np.zeros(0, np.uint8)), _base(definition)):
        raise ConfigurationError(
            f"{path} is the reference of another base than {definition.base.name}; make it again with `riverdelta reference`, "
            f"or delete it"
        )
    try:
        return Reference.of_arrays(arrays)
    except Corrupt as error:
        raise Corrupt(f"{path} cannot be used: {error}; make it again with `riverdelta reference`, or delete it") from error


def in_effect(definition: Definition, settings: Settings) -> dict[str, Any]:
    """Return all that learning reads besides the journal, as a settings record has it."""
    given = load(definition)
    return {**settings.learning(), "on_drift": as_record(definition.on_drift), "reference": given and given.digest.hex()}


def _base(definition: Definition) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(definition.signature.digest), np.uint8)
