"""Reference file: the reference profile, kept beside the base, and the settings record that names it."""

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
    """Return the path of a definition's reference: `ranker.reference` beside the base `ranker.onnx`."""
    return definition.base.with_suffix(".reference")


def save(definition: Definition, reference: Reference, path: Path | None = None) -> Path:
    """Write a reference atomically, by default beside its base, and return its path."""
    path = path or path_of(definition)
    write_arrays(path, reference.arrays() | {"base": _base(definition)})
    return path


def load(definition: Definition) -> Reference | None:
    """Return the reference beside a definition's base, None if there is none.

    Raises `ConfigurationError` if it belongs to another base, and `Corrupt` if the file is damaged.
    """
    path = path_of(definition)
    if not path.exists():
        return None
    arrays = dict(read_arrays(path))
    if not np.array_equal(arrays.pop("base", np.zeros(0, np.uint8)), _base(definition)):
        raise ConfigurationError(
            f"{path} does not belong to the base {definition.base.name}; make it again with `riverdelta reference` or delete it"
        )
    try:
        return Reference.of_arrays(arrays)
    except Corrupt as error:
        raise Corrupt(f"{path} cannot be used: {error}; make it again with `riverdelta reference`, or delete it") from error


def in_effect(definition: Definition, settings: Settings) -> dict[str, Any]:
    """Return everything that affects learning besides the journal, in the form of a settings record."""
    given = load(definition)
    return {**settings.learning(), "on_drift": as_record(definition.on_drift), "reference": given and given.digest.hex()}


def _base(definition: Definition) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(definition.signature.digest), np.uint8)
