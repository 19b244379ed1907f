"""Suite: the checks of an object, chosen by what it is, for a loop, for one call and for pytest."""

from __future__ import annotations

import inspect
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riverdelta.checks import conduct, corrections, logs, losses, registries, stateful
from riverdelta.checks.law import LawBroken
from riverdelta.core.arrays import Stateful
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.corrections.base import Correction
from riverdelta.storage.log import Log
from riverdelta.storage.registry import Registry

if TYPE_CHECKING:
    import pytest

#: The laws of each kind of object.
LAWS: dict[type, tuple[Callable[..., None], ...]] = {
    Correction: corrections.LAWS + conduct.LAWS,
    Loss: losses.LAWS,
    Log: logs.LAWS,
    Registry: registries.LAWS,
    Stateful: stateful.LAWS,
}
_EXPECTED = (
    "a correction or a loss such as Calibration(), a Part(make, feed, rows), or a function of a folder that opens a log or a "
    "registry, such as lambda folder: MyLog(folder)"
)


@dataclass(frozen=True)
class Check:
    """One law of one object: a call raises `LawBroken` where the object breaks it.

    With a reason in `expected` it is the other way round: the call returns what was found, and raises where nothing was.
    """

    name: str
    of: str
    law: Callable[[], None]
    expected: str | None = None

    def __call__(self) -> str | None:
        """Check the law; an error that the object raises by mistake is a broken law, too."""
        try:
            self.law()
        except ConfigurationError:
            raise
        except Exception as error:
            found = f"{self.of}: {self.name}: {_told(error)}"
            if self.expected is None:
                raise LawBroken(found) from error
            return found
        if self.expected is not None:
            raise LawBroken(f"{self.of}: {self.name} holds; remove it from expected_failed_checks")
        return None

    def __repr__(self) -> str:
        return f"{self.of}-{self.name}"


def yield_checks(
    obj: Any, schema: Schema | None = None, loss: Loss = LOG_LOSS, expected_failed_checks: Mapping[str, str] | None = None
) -> Iterator[Check]:
    """Yield the checks of an object, each a function without arguments; which ones depends on what the object is.

    Parameters
    ----------
    obj
        An instance of a `Correction` or a `Loss`; a `Part`, which says how one whose state is saved is made and fed; or a
        function of a folder that opens the log or the registry there, each time anew, as another process would. For these
        laws a log may hold at most a few records of 300 bytes together that are deleted as one.
    schema
        The columns that a correction is given, by default none.
    loss
        The loss that a correction lowers, by default log loss. One that takes several losses is checked with each.
    expected_failed_checks
        The reason by name of each check that is known to fail. It is reported rather than raised, and is an error once it
        holds.

    >>> from riverdelta import Calibration
    >>> [check.name for check in yield_checks(Calibration())][:2]
    ['its_methods_are_those_of_the_contract', 'fresh_residual_is_zero']
    """
    reasons, (kind, made, run) = expected_failed_checks or {}, _kind(obj, schema or Schema(), loss)
    methods = its_methods_are_those_of_the_contract
    laws = {methods.__name__: partial(methods, kind, made)} | {law.__name__: partial(run, law) for law in LAWS[kind]}
    of = type(made).__name__
    if unknown := [name for name in reasons if name not in laws]:
        raise ConfigurationError(f"expected_failed_checks names {unknown[0]!r}; the checks of {of} are {', '.join(laws)}")
    for name, law in laws.items():
        yield Check(name, of, law, reasons.get(name))


def check(
    obj: Any, schema: Schema | None = None, loss: Loss = LOG_LOSS, expected_failed_checks: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Check every law of an object; raises `LawBroken` at the first that it breaks. The arguments are those of `yield_checks`.

    Returns what was found of each check that was expected to fail, by name.

    >>> from riverdelta import Entity
    >>> check(Entity("user", slots=64), Schema.of({"user": "int64"}))
    {}
    """
    checks = yield_checks(obj, schema, loss, expected_failed_checks)
    return {each.name: found for each in checks if (found := each()) is not None}


def parametrize_with_checks(
    objects: Iterable[Any] | Mapping[str, Any],
    schema: Schema | None = None,
    loss: Loss = LOG_LOSS,
    expected_failed_checks: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Return a decorator that makes a pytest test of `check` one test for each law of each object.

    `objects` may be a mapping, whose keys are then the beginning of each test's id. Checks that are expected to fail are
    marked `xfail`, strictly. The other arguments are those of `yield_checks`.

    >>> from riverdelta import Calibration
    >>> @parametrize_with_checks([Calibration(), LOG_LOSS])
    ... def test_it_keeps_the_laws(check):
    ...     check()
    """
    import pytest  # what runs the laws in another way does without it

    named = objects.items() if isinstance(objects, Mapping) else ((None, obj) for obj in objects)
    params = []
    for name, obj in named:
        for each in yield_checks(obj, schema, loss, expected_failed_checks):
            why = [pytest.mark.xfail(reason=each.expected, raises=LawBroken, strict=True)] if each.expected else []
            params.append(pytest.param(replace(each, expected=None), id=f"{name or each.of}-{each.name}", marks=why))
    return pytest.mark.parametrize("check", params)


def its_methods_are_those_of_the_contract(contract: type, made: Any) -> None:
    """It has every method of its contract, and each takes the arguments that are passed."""
    for name, method in inspect.getmembers(contract, lambda each: inspect.isfunction(each) and each.__name__[0] != "_"):
        expected, mine = inspect.signature(method), getattr(made, name, None)
        if not callable(mine):
            raise LawBroken(f"it has no method {name}; expected {name}{expected}")
        parameters = list(expected.parameters.values())[1:]
        given = [None for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.VAR_POSITIONAL)]
        try:
            inspect.signature(mine).bind(*given, **{each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY})
        except TypeError as error:
            raise LawBroken(f"its method is {name}{inspect.signature(mine)}; expected {name}{expected}: {error}") from None


def _kind(obj: Any, schema: Schema, loss: Loss) -> tuple[type, Any, Callable[..., None]]:
    """Return the contract of an object, what has its methods, and what runs a law of it."""
    if isinstance(obj, Correction):
        return Correction, obj, lambda law: law(obj, schema, loss)
    if isinstance(obj, Loss):
        return Loss, obj, lambda law: law(obj)
    if isinstance(obj, stateful.Part):
        return Stateful, obj.make(), lambda law: law(obj)
    if inspect.isclass(obj) and issubclass(obj, (Correction, Loss)):
        raise ConfigurationError(f"{obj.__name__} is a class; expected an instance of it: {obj.__name__}(...)")
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = obj(Path(folder) / "opened")
        except Exception as error:
            raise ConfigurationError(f"{obj!r:.200} cannot be checked; expected {_EXPECTED} ({error!r})") from error
        if hasattr(made, "transaction"):
            made.close()
            return Log, made, partial(logs.in_a_folder, obj)
    if hasattr(made, "write"):
        return Registry, made, partial(registries.in_a_folder, obj)
    raise ConfigurationError(
        f"{obj!r:.200} opened {made!r:.200}; expected a log, which has `transaction`, or a registry, which has `write`"
    )


def _told(error: Exception) -> str:
    """Return what a law found, or what else was raised, and where."""
    if isinstance(error, LawBroken):
        return str(error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} (in {at.name}, {Path(at.filename).name}:{at.lineno})"
