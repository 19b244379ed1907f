"""Snapshot: the learned state of a River estimator as JSON, exact to the last bit and without pickle."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, Literal

import numpy as np
from river.base import Base
from river.utils import VectorDict

from riverdelta.core.errors import Unsupported

# Attributes in which a pipeline caches its steps.
_CACHES = ("_plan", "_inference_transformers", "_last_step_cached", "_last_step_params")


def freeze(estimator: Any) -> bytes:
    """Return the state of an estimator as UTF-8 JSON; raises `Unsupported` naming an attribute that JSON cannot hold."""
    return json.dumps(_freeze(estimator, type(estimator).__name__), separators=(",", ":")).encode()


def thaw(estimator: Any, data: bytes) -> None:
    """Restore the state of an estimator with the same options; raises `ValueError` or `LookupError` for damaged data."""
    saved = json.loads(data)
    if not isinstance(saved, dict):
        raise ValueError(f"the snapshot is {saved!r:.80}; expected an object")
    _thaw(estimator, saved)


def without(data: bytes, name: str, own: int) -> bytes:
    """Return a state without what it holds for one id of the column `name`: weights under `<name>_<id>`, and the id itself.

    >>> without(b'{"object": {"weights": {"dict": [["user_7", 0.5], ["user_8", 0.25]]}}}', "user", 7)
    b'{"object":{"weights":{"dict":[["user_8",0.25]]}}}'
    """
    key = f"{name}_{own}"

    def kept(value: Any, column: Any = None) -> Any:
        if isinstance(value, list):
            return [kept(each) for each in value]
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for kind, content in value.items():
            if kind in ("dict", "vector"):
                found[kind] = [[k, kept(v, k)] for k, v in content if k != key and not (column == name and k == own)]
            elif kind == "set":
                found[kind] = [each for each in content if each != key and not (column == name and each == own)]
            elif kind == "object":
                found[kind] = {attribute: kept(each) for attribute, each in content.items()}
            else:
                found[kind] = kept(content)
        return found

    return json.dumps(kept(json.loads(data)), separators=(",", ":")).encode()


def _freeze(value: Any, where: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        # River's FTRL keeps numpy scalars, whose powers may round differently from a float's.
        return {"scalar": [value.dtype.str, value.item()]}
    if isinstance(value, np.ndarray):
        # Newton updates a matrix in Fortran order, in place.
        order: Literal["C", "F"] = "C" if value.flags.c_contiguous else "F"
        return {"array": [value.dtype.str, list(value.shape), order, base64.b64encode(value.tobytes(order)).decode()]}
    if isinstance(value, VectorDict):
        return {"vector": [[_freeze(k, where), _freeze(v, where)] for k, v in value.to_dict().items()]}
    if isinstance(value, Mapping):
        return {"dict": [[_freeze(k, where), _freeze(v, where)] for k, v in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": [_freeze(v, where) for v in sorted(value, key=lambda v: (str(type(v)), v))]}
    if type(value) in (list, tuple, deque):
        return {type(value).__name__: [_freeze(v, where) for v in value]}
    if isinstance(value, Base) or type(value).__module__.startswith("river."):
        return {"object": {name: _freeze(v, f"{where}.{name}") for name, v in _attributes(value).items()}}
    raise Unsupported(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; River(...) cannot save it")


def _attributes(value: Any) -> dict[str, Any]:
    skipped = (*_CACHES, *getattr(type(value), "derived", ()))
    # Classes and functions are options, which the estimator has already.
    return {n: v for n, v in vars(value).items() if n not in skipped and not isinstance(v, type | FunctionType)}


def _thaw(now: Any, saved: Any) -> Any:
    """Return the value of `saved`, written into the object `now` if there is one."""
    if not isinstance(saved, dict):
        return saved
    ((kind, content),) = saved.items()
    if kind == "scalar":
        return np.dtype(content[0]).type(content[1])
    if kind == "array":
        flat = np.frombuffer(base64.b64decode(content[3]), np.dtype(content[0]))
        return flat.reshape(content[1], order=content[2]).copy(order=content[2])
    if kind == "vector":
        factory = now.__reduce__()[1][1] if isinstance(now, VectorDict) else None
        return VectorDict({_thaw(None, k): _thaw(None, v) for k, v in content}, factory)
    if kind == "dict":
        return _thaw_dict(now if now is not None else {}, content)
    if kind == "object":
        _same_names(content, _attributes(now))
        for name, v in content.items():
            setattr(now, name, _thaw(getattr(now, name, None), v))
        return now
    values = [_thaw(None, v) for v in content]
    return deque(values, now.maxlen) if kind == "deque" else {"set": set, "list": list, "tuple": tuple}[kind](values)


def _same_names(saved: Iterable[Any], now: Iterable[Any]) -> None:
    if list(saved) != list(now):
        raise ValueError(f"the snapshot has {list(saved)}; expected {list(now)}")


def _thaw_dict(now: Any, content: list[Any]) -> Any:
    make = getattr(now, "default_factory", None)
    if not make and any(hasattr(v, "__dict__") for v in now.values()):
        _same_names([k for k, _ in content], now)  # the steps of a pipeline
    items = {}
    for k, v in content:
        key = _thaw(None, k)
        items[key] = _thaw(now[key] if key in now else make() if make else None, v)
    now.clear()
    now.update(items)
    return now
