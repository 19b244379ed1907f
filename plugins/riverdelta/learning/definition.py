"""Definition: what a user declares about a scorer, checked once and shared by the service, the sidecar and replay."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.losses import Loss, loss_of
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import Stack, listed
from riverdelta.evaluation.drift import Response
from riverdelta.evaluation.slices import Slices
from riverdelta.graph import taps as tapping
from riverdelta.graph.signature import Signature

#: The attribute of a decorated class that holds its definition.
ATTRIBUTE = "__riverdelta__"


@dataclass(frozen=True)
class Definition:
    """A frozen base model, its taps, the columns that it lacks, and the corrections on top.

    `task` names the loss that corrections lower, or is one. `logit` or `probability` names the output that is corrected, as a
    raw output or a prediction; with neither, the only float output is taken.
    `on_drift` is what the learner does at a drift alarm; `slices` names values of id columns that are judged apart.
    `keep_inputs` has the journal keep every column of a request; `service` is what `--service` takes to name this definition.
    """

    name: str
    base: Path
    logit: str | None = None
    probability: str | None = None
    taps: Mapping[str, str] = field(default_factory=dict)
    columns: Schema = field(default_factory=Schema)
    corrections: Sequence[Correction] = ()
    on_drift: Response | None = None
    slices: Mapping[str, str | int | Sequence[str | int]] = field(default_factory=dict)
    task: str | Loss = "binary"
    keep_inputs: bool = False
    service: str = "SERVICE.py:CLASS"

    def __post_init__(self) -> None:
        object.__setattr__(self, "corrections", listed(self.corrections))

    @cached_property
    def loss(self) -> Loss:
        """The loss of the task; raises `ConfigurationError` where there is none of that name."""
        return loss_of(self.task)

    @cached_property
    def signature(self) -> Signature:
        """The base model, read and checked."""
        return Signature.read(self.base, self.logit, self.probability, self.loss)

    @cached_property
    def schema(self) -> Schema:
        """Every column that a correction may read: the base's inputs, the taps and the declared columns."""
        return tapping.full_schema(self.signature, self.taps, self.columns)

    @cached_property
    def request_schema(self) -> Schema:
        """The columns that a client sends: the base's inputs and the declared columns."""
        return Schema({**self.signature.inputs, **self.columns})

    def new_stack(self) -> Stack:
        """Return a fresh stack, bound to the schema."""
        stack = Stack([c.clone() for c in self.corrections], self.loss)
        stack.bind(self.schema)
        return stack

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The columns that the journal keeps of a row: what corrections read, what slices are made of, and with `keep_inputs`
        the rest of the request."""
        return (*self._learned, *(self.unread if self.keep_inputs else ()))

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """The columns of a request that no correction reads and no slice is made of."""
        return tuple(name for name in self.request_schema if name not in self._learned)

    @cached_property
    def _learned(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(name for c in self.corrections for name in c.reads), *self.slices]))

    def new_slices(self) -> Slices:
        """Return fresh slices; raises `ConfigurationError` where a column cannot be sliced by."""
        return Slices(self.slices, self.request_schema, self.loss)

    def fingerprint(self, of_0_1: bool = False) -> str:
        """Return what the file `owner` of a home without a `definition.json` holds: digests of the base and of the stack's
        make-up, `of_0_1` as that version had it."""
        return f"{self.signature.digest[:16]}-{self.new_stack().fingerprint(of_0_1)}"


def load(target: str) -> Definition:
    """Return the definition of `module:Class` or `path/to/file.py:Class`; raises `ConfigurationError`.

    The class may be left out when the module has one decorated class.
    """
    module_name, _, attribute = target.partition(":")
    module = _import(module_name)
    found = {name: d for name, d in ((n, _definition(v)) for n, v in vars(module).items()) if d is not None}
    if attribute:
        if attribute not in found:
            raise ConfigurationError(
                f"{target!r} is not a scorer; {module_name} has {', '.join(found) or 'none'}: decorate the class with @online"
            )
        return found[attribute]
    if len(found) != 1:
        raise ConfigurationError(
            f"{module_name} has {len(found)} scorers ({', '.join(found) or 'none'}); name one as {module_name}:Class"
        )
    return next(iter(found.values()))


def _definition(value: Any) -> Definition | None:
    """The definition of a decorated class, or of the BentoML service made of one."""
    definition = getattr(getattr(value, "inner", value), ATTRIBUTE, None)
    return definition if isinstance(definition, Definition) else None


def _import(name: str) -> Any:
    path = Path(name)
    # A module lies where the command is typed, as `bentoml serve` has it; what a file imports lies beside it.
    here = str(path.resolve().parent) if path.suffix == ".py" else os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    if path.suffix != ".py":
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            raise ConfigurationError(
                f"no module is named {name!r} in {here} or in what is installed; give a module or a path that ends in .py"
            ) from None
    if not path.is_file():
        raise ConfigurationError(f"{path} is not a file; give the service's file, as in service.py:Ranker")
    path = path.resolve()
    # A name of its own: two files may both be called service.py, and neither may pass for a package of that name.
    unique = f"{path.stem}_{id64(str(path)) % 2**32:08x}"
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    return module
