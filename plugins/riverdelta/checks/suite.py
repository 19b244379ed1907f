"""Suite: the checks of an object, chosen by its type, to run in a loop, in one call or in pytest."""

from __future__ import annotations

import inspect
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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

#: pytest leaves the frames of this module out of a failure.
__tracebackhide__ = True
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
    """One law of one object: calling it raises `LawBroken` if the object breaks the law.

    Parameters
    ----------
    name, of
        The names of the law and of the object's class.
    law
        The function that checks the law.
    expected
        Why the object is known to break the law, or None.
    """

    name: str
    of: str
    law: Callable[[], None]
    expected: str | None = None

    def __call__(self) -> None:
        """Check the law; any other error that the object raises counts as a broken law."""
        try:
            self.law()
        except ConfigurationError:
            raise
        except LawBroken as broken:
            raise LawBroken(f"{self.of}: {self.name}: {broken}") from None
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raised = f"raised {type(error).__name__}: {error} (in {at.name}, {Path(at.filename).name}:{at.lineno})"
            raise LawBroken(f"{self.of}: {self.name}: {raised}") from error

    def __repr__(self) -> str:
        return f"{self.of}-{self.name}"


def yield_checks(
    obj: Any, schema: Schema | None = None, loss: Loss = LOG_LOSS, expected_failed_checks: Mapping[str, str] | None = None
) -> Iterator[Check]:
    """Yield the checks of an object, each a function without arguments; the type of the object decides which.

    Parameters
    ----------
    obj
        An instance of a `Correction` or a `Loss`; a `Part`, which makes and feeds a part whose state is saved; or a function
        of a folder that opens a log or a registry there, as another process would at each call. The log must delete records
        in small groups, of a few records of 300 bytes, so that retention can be checked.
    schema
        The columns of a correction, by default none.
    loss
        The loss that a correction lowers, by default log loss. Check a correction for several losses with each of them.
    expected_failed_checks
        The reason, by name, of each check that is known to fail. `check` then returns its failure instead of raising it, and
        raises `LawBroken` if the law holds after all; in pytest it is a strict `xfail`.

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
    """Check every law of an object, and return what was found, by name, for checks that were expected to fail.

    The arguments are those of `yield_checks`. Raises `LawBroken` at the first law that the object breaks.

    >>> from riverdelta import Entity
    >>> check(Entity("user", slots=64), Schema.of({"user": "int64"}))
    {}
    """
    found = {}
    for each in yield_checks(obj, schema, loss, expected_failed_checks):
        try:
            each()
        except LawBroken as broken:
            if each.expected is None:
                raise
            found[each.name] = str(broken)
        else:
            if each.expected is not None:
                raise LawBroken(f"{each.of}: {each.name} holds; remove it from expected_failed_checks")
    return found


def parametrize_with_checks(
    objects: Iterable[Any] | Mapping[str, Any],
    schema: Schema | None = None,
    loss: Loss = LOG_LOSS,
    expected_failed_checks: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Return a decorator that turns a pytest test with the argument `check` into one test for each law of each object.

    The keys of a mapping of objects begin the ids of the tests; by default these are class names. Checks that are expected to
    fail are strict `xfail`s. The other arguments are those of `yield_checks`.

    >>> from riverdelta import Calibration
    >>> @parametrize_with_checks([Calibration(), LOG_LOSS])
    ... def test_it_keeps_the_laws(check):
    ...     check()
    """
    import pytest  # only this function needs it

    named = objects.items() if isinstance(objects, Mapping) else ((None, obj) for obj in objects)
    params = []
    for name, obj in named:
        for each in yield_checks(obj, schema, loss, expected_failed_checks):
            why = [pytest.mark.xfail(reason=each.expected, raises=LawBroken, strict=True)] if each.expected else []
            params.append(pytest.param(each, id=f"{name or each.of}-{each.name}", marks=why))
    return pytest.mark.parametrize("check", params)


def its_methods_are_those_of_the_contract(contract: type, made: Any) -> None:
    """The object has every method of its contract, with the same arguments; only lists need a `group`."""
    for name, method in inspect.getmembers(contract, lambda each: inspect.isfunction(each) and each.__name__[0] != "_"):
        expected, mine = inspect.signature(method), getattr(made, name, None)
        if not callable(mine):
            raise LawBroken(f"it has no method {name}; expected {name}{expected}")
        parameters = [each for each in list(expected.parameters.values())[1:] if each.name != "group"]
        given = [None for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.VAR_POSITIONAL)]
        try:
            inspect.signature(mine).bind(*given, **{each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY})
        except TypeError as error:
            raise LawBroken(f"its method is {name}{inspect.signature(mine)}; expected {name}{expected}: {error}") from None


def _kind(obj: Any, schema: Schema, loss: Loss) -> tuple[type, Any, Callable[..., None]]:
    """Return the contract of an object, an instance with its methods, and the function that runs a law on it."""
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
