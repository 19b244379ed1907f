"""Options: the arguments that an object was made with, as JSON that another of its class can be told from."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.hashing import digest

#: The part of a `repr` that differs between processes.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def value(given: Any) -> Any:
    """Return the value of an option as JSON: an object by its class and options, an array by the digest of its contents.

    >>> value(float("inf")), value(("user", np.float32(0.5)))
    ({'float': 'inf'}, ['user', 0.5])

    Raises `ConfigurationError` for a value that another of its class cannot be told from.
    """
    if isinstance(given, np.generic):
        given = given.item()
    if given is None or isinstance(given, bool | int | str):
        return given
    if isinstance(given, float):
        return given if math.isfinite(given) else {"float": repr(given)}
    if isinstance(given, Mapping):
        return {str(name): value(one) for name, one in given.items()}
    if isinstance(given, set | frozenset):
        return sorted(map(value, given), key=repr)
    if isinstance(given, list | tuple):
        return [value(one) for one in given]
    if getattr(given, "__name__", None) == "<lambda>":
        raise ConfigurationError("an option is a lambda, which cannot be told from another; define a function with a name")
    if inspect.isroutine(given) or inspect.isclass(given):
        return {"kind": "function", "shown": given.__qualname__}
    kind = type(given).__qualname__
    if isinstance(given, np.ndarray):
        bits = json.dumps(value(given.tolist())).encode() if given.dtype.hasobject else np.ascontiguousarray(given).tobytes()
        contents = digest(bits, size=8).hex()
        return {"kind": kind, "shown": f"{given.dtype}{list(given.shape)}, contents {contents}"}
    own = given.identity() if hasattr(given, "identity") else _readable(given)
    if not own:  # no options can be read: by its repr
        return {"kind": kind, "shown": _ADDRESS.sub("", repr(given))}
    return {"kind": kind, "parameters": value(own), "chosen": chosen(given, own)}


def default(stored: Any) -> Any:
    """Return the value of an option from its JSON: the inverse of `value` for numbers, strings, and tuples of them."""
    if isinstance(stored, dict) and set(stored) == {"float"}:
        return float(stored["float"])
    return tuple(map(default, stored)) if isinstance(stored, list) else stored


def passed_on(of: Any) -> set[str]:
    """Return the options that only a base class takes."""
    return {*_arguments(of)} - {*inspect.signature(type(of).__init__).parameters}


def chosen(of: Any, own: Mapping[str, Any]) -> list[str]:
    """Return the options whose value is not the default."""
    defaults = {name: argument.default for name, argument in _arguments(of).items() if argument.default is not argument.empty}
    return [name for name, one in own.items() if name not in defaults or value(one) != value(defaults[name])]


def parameters(of: Any) -> dict[str, Any]:
    """Return the arguments that an object was made with: its attributes of the same names, as in River and scikit-learn."""
    return {name: getattr(of, name) for name in _arguments(of) if hasattr(of, name)}


def _readable(of: Any) -> dict[str, Any]:
    """Return the arguments of an object and the fields of a dataclass; raises `ConfigurationError` if one cannot be read."""
    own = {f.name: getattr(of, f.name) for f in fields(of)} if is_dataclass(of) else {}
    named_ones = (a for a in _arguments(of, type(of)).values() if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD))
    if lost := [a.name for a in named_ones if not hasattr(of, a.name)]:
        kind = type(of).__qualname__
        raise ConfigurationError(
            f"an option is a {kind}, whose argument {lost[0]!r} cannot be read, so that it cannot be told from another {kind}; "
            f"keep it as self.{lost[0]}, or give the class a method identity() that returns its options as a dict"
        )
    return parameters(of) | own


def _arguments(of: Any, *kinds: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of the class of an object and of its base classes, or of these `kinds`."""
    found = dict[str, inspect.Parameter]()
    for kind in kinds or reversed(type(of).__mro__):
        with suppress(ValueError):  # a compiled class has no signature
            made = vars(kind).get("__init__")
            found |= {} if made is None else dict(list(inspect.signature(made).parameters.items())[1:])
    return found
