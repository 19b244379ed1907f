"""Identity: the complete definition, including every default, as its home stores it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.features import Column, Schema
from riverdelta.core.strict import Strict, validated
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import named
from riverdelta.graph import taps as tapping
from riverdelta.learning.definition import Definition
from riverdelta.learning.options import chosen, default, parameters, passed_on, value

#: The version of `definition.json`; a later one is refused.
FORMAT: Literal[1] = 1
#: The module recorded for riverdelta's own corrections.
OWN = "riverdelta"


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
    names: dict[str, list[str]] = {}
    prepare: Any = None

    @property
    def reads_of_base(self) -> tuple[Any, ...]:
        """What the base's raw outputs of the same request depend on: the file, its output, and what prepares its inputs."""
        return self.base.digest, self.output.read, self.prepare

    def source(self, name: str) -> str:
        """Return a description of the tap or column `name`."""
        if tap := self.taps.get(name):
            found, kind = f"the tap of tensor {tap.tensor!r}, {tap.type}", tap.type
        elif part := next(((of, listed.index(name)) for of, listed in self.names.items() if name in listed), None):
            kind = self.base.inputs[part[0]]
            found = f"part {part[1]} of the column {part[0]!r}, {kind}"
        else:
            kind = str(self.sent(name))
            found = f"a column {kind}"
        read = self.journal.get(name, kind)
        return found if read == kind else f"{found} read as {read}"

    def sent(self, name: str) -> str | None:
        """Return the type of a column of requests; None if no request has it."""
        return self.base.inputs.get(name) or self.columns.get(name)


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
        journal=_columns(definition.journal),
        keep_inputs=definition.keep_inputs,
        names={name: list(listed) for name, listed in definition.names.items()},
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
        known, theirs_chosen = (was.parameters, was.chosen) if was and was.kind == type(c).__qualname__ else ({}, [])
        changed = {
            option: default(known[option])
            for option in inspect.signature(type(c).__init__).parameters
            if option in known and option not in {*c.given, *theirs_chosen} and value(getattr(c, option)) != known[option]
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
    # Earlier versions read an undeclared number [N, 1] as a vector of one.
    vectors = {
        name: Column(name, "float32", (1,))
        for name, column in definition.signature.inputs.items()
        if stored.journal.get(name) == str(column) == "float32[N, 1]" and name not in definition.columns
    }
    settled += [f"{name!r} stays a vector of 1, with which this home has learned; new homes read a number" for name in vectors]
    margin = definition.margin and (stored.output.kind != "probability" or bool(stored.output.margin))
    if stored.output.margin is None and not margin:
        settled.append(
            f"the output {stored.output.tensor!r} stays the logit of a probability, with which this home has learned; new "
            f"homes read the raw number of which the base makes it, where there is one"
        )
    if settled or margin != definition.margin:
        columns = Schema({**definition.columns, **vectors})
        definition = replace(definition, corrections=corrections, margin=margin, columns=columns)
    return definition, settled


def beyond_reach(definition: Definition) -> dict[str, set[str]]:
    """Return, by correction, the options at a default that `settle` cannot set back: its class does not take them itself."""
    names = named(definition.corrections)
    return {n: passed_on(c) - {*chosen(c, parameters(c))} for n, c in zip(names, definition.corrections, strict=True)}


def _of(name: str, correction: Correction) -> Corrected:
    module, own = type(correction).__module__, parameters(correction)
    return Corrected(
        name=name,
        kind=type(correction).__qualname__,
        module=OWN if module.partition(".")[0] == OWN else module,
        parameters=value(own),
        chosen=[n for n in chosen(correction, own) if n in correction.given or n in passed_on(correction)],
        incidental=list(correction.incidental),
        reads=list(correction.reads),
        tables={key: list(table.shape) for key, table in correction.served.items() if key not in correction.since},
    )


def _columns(columns: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(column) for name, column in columns.items()}
