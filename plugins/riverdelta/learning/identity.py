"""Identity: the complete definition, including every default, as its home stores it."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.hashing import digest
from riverdelta.core.strict import Strict, validated
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import named
from riverdelta.graph import taps as tapping
from riverdelta.learning.definition import Definition

#: The version of `definition.json`; a later one is refused.
FORMAT: Literal[1] = 1
#: The module recorded for riverdelta's own corrections.
OWN = "riverdelta"
#: The part of a `repr` that differs between processes.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Base(Strict):
    """The base model: its file name, the digest of the file with its external data, and its inputs."""

    file: str
    digest: str
    inputs: dict[str, str]


class Output(Strict):
    """The output that is corrected, its kind (logit or probability), and whether a probability is read at its raw margin.

    `margin` is None in homes made before there was a choice: they have the logit of the probability.
    """

    tensor: str
    kind: str
    margin: bool | None = None

    @property
    def read(self) -> tuple[str, str, bool]:
        """What is read, to compare two outputs by."""
        return self.tensor, self.kind, bool(self.margin)


class Tap(Strict):
    """The tensor that a tap reads, and its type."""

    tensor: str
    type: str


class Corrected(Strict):
    """One correction: its class, the value of every option, the columns that it reads, and the shapes of its tables.

    `chosen` are the options that the code gives a value other than the default, `incidental` those that do not affect learning.
    """

    name: str
    kind: str
    module: str
    parameters: dict[str, Any]
    chosen: list[str]
    incidental: list[str]
    reads: list[str]
    tables: dict[str, list[int]]


class Identity(Strict):
    """The contents of `definition.json`; `journal` are the columns of a scored row that the journal keeps."""

    format: Literal[1]
    name: str
    base: Base
    output: Output
    task: str
    taps: dict[str, Tap]
    columns: dict[str, str]
    corrections: list[Corrected]
    journal: dict[str, str]
    keep_inputs: bool
    prepare: Any = None

    @property
    def reads_of_base(self) -> tuple[Any, ...]:
        """What the base's raw outputs of the same request depend on: the file, its output, and what prepares its inputs."""
        return self.base.digest, self.output.read, self.prepare

    def source(self, name: str) -> str:
        """Return a description of the tap or column `name`."""
        if tap := self.taps.get(name):
            return f"the tap of tensor {tap.tensor!r}, {tap.type}"
        return f"a column {self.columns.get(name) or self.base.inputs.get(name)}"


def describe(definition: Definition) -> Identity:
    """Return the complete definition, including defaults."""
    signature, stack = definition.signature, definition.new_stack()
    tapped = tapping.tap_columns(signature, definition.taps)
    return Identity(
        format=FORMAT,
        name=definition.name,
        base=Base(file=definition.base.name, digest=signature.digest, inputs=_columns(signature.inputs)),
        output=Output(tensor=signature.output, kind="probability" if signature.predicts else "logit", margin=signature.margin),
        task=repr(definition.loss),
        taps={name: Tap(tensor=tensor, type=str(tapped[name])) for name, tensor in definition.taps.items()},
        columns=_columns(definition.columns),
        corrections=[_of(name, c) for name, c in zip(stack.names, stack.corrections, strict=True)],
        journal=_columns({name: definition.schema[name] for name in definition.kept}),
        keep_inputs=definition.keep_inputs,
        prepare=value(definition.prepare),
    )


def read(written: bytes) -> Identity:
    """Return the identity in the JSON `written`; raises `Corrupt` if it is damaged, `ConfigurationError` if it is newer."""
    try:
        stored = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"its {len(written)} bytes are not valid JSON ({error})") from error
    number = stored.get("format") if isinstance(stored, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise ConfigurationError(
            f"its format is {number}, and this version of riverdelta reads formats up to {FORMAT}; serve this home with the "
            f"version that wrote it, or a later one"
        )
    try:
        return validated(Identity, stored, "it")
    except InvalidInput as error:
        raise Corrupt(str(error)) from error


def settle(definition: Definition, stored: Identity) -> tuple[Definition, list[str]]:
    """Return the definition with every changed default set back to its `stored` value, and a sentence for each.

    Only options that had their default when `stored` was written, and that the code leaves at it now, are affected: one that
    was deleted from the code is a change. A probability is read at its raw margin only if it was then.
    """
    theirs = {c.name: c for c in stored.corrections}
    corrections, settled = list[Correction](), list[str]()
    for name, c in zip(named(definition.corrections), definition.corrections, strict=True):
        was = theirs.get(name)
        known, chosen = (was.parameters, was.chosen) if was and was.kind == type(c).__qualname__ else ({}, [])
        changed = {
            option: default(known[option])
            for option in inspect.signature(type(c).__init__).parameters
            if option in known and option not in {*c.given, *chosen} and value(getattr(c, option)) != known[option]
            if not isinstance(default(known[option]), dict)  # an object: the difference is for the user to see
        }
        settled += [
            f"{type(c).__qualname__} {name!r}: {option} stays {kept!r}, with which this home has learned; new homes use the "
            f"current default, {getattr(c, option)!r}"
            for option, kept in changed.items()
        ]
        given, c = c.given, c.clone(changed) if changed else c
        c.given = given
        corrections.append(c)
    margin = definition.margin and (stored.output.kind != "probability" or bool(stored.output.margin))
    if stored.output.margin is None and not margin:
        settled.append(
            f"the output {stored.output.tensor!r} stays the logit of a probability, with which this home has learned; new "
            f"homes read the raw number of which the base makes it, where there is one"
        )
    if settled or margin != definition.margin:
        definition = replace(definition, corrections=corrections, margin=margin)
    return definition, settled


def beyond_reach(definition: Definition) -> dict[str, set[str]]:
    """Return, by correction, the options at a default that `settle` cannot set back: its class does not take them itself."""
    names = named(definition.corrections)
    return {n: _passed_on(c) - {*_chosen(c, _parameters(c))} for n, c in zip(names, definition.corrections, strict=True)}


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
    return {"kind": kind, "parameters": value(own), "chosen": _chosen(given, own)}


def default(stored: Any) -> Any:
    """Return the value of an option from its JSON: the inverse of `value` for numbers, strings, and tuples of them."""
    if isinstance(stored, dict) and set(stored) == {"float"}:
        return float(stored["float"])
    return tuple(map(default, stored)) if isinstance(stored, list) else stored


def _of(name: str, correction: Correction) -> Corrected:
    module, own = type(correction).__module__, _parameters(correction)
    return Corrected(
        name=name,
        kind=type(correction).__qualname__,
        module=OWN if module.partition(".")[0] == OWN else module,
        parameters=value(own),
        chosen=[n for n in _chosen(correction, own) if n in correction.given or n in _passed_on(correction)],
        incidental=list(correction.incidental),
        reads=list(correction.reads),
        tables={key: list(table.shape) for key, table in correction.served.items() if key not in correction.since},
    )


def _passed_on(correction: Correction) -> set[str]:
    """Return the options that only a base class takes."""
    return {*_arguments(correction)} - {*inspect.signature(type(correction).__init__).parameters}


def _chosen(of: Any, own: Mapping[str, Any]) -> list[str]:
    """Return the options whose value is not the default."""
    defaults = {name: argument.default for name, argument in _arguments(of).items() if argument.default is not argument.empty}
    return [name for name, one in own.items() if name not in defaults or value(one) != value(defaults[name])]


def _parameters(of: Any) -> dict[str, Any]:
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
    return _parameters(of) | own


def _arguments(of: Any, *kinds: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of the class of an object and of its base classes, or of these `kinds`."""
    found = dict[str, inspect.Parameter]()
    for kind in kinds or reversed(type(of).__mro__):
        with suppress(ValueError):  # a compiled class has no signature
            made = vars(kind).get("__init__")
            found |= {} if made is None else dict(list(inspect.signature(made).parameters.items())[1:])
    return found


def _columns(columns: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(column) for name, column in columns.items()}
