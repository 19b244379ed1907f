"""Service: the definition in a module or a file, by the name that `--service` takes."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.hashing import id64
from riverdelta.learning.definition import ATTRIBUTE, Definition


def load(target: str) -> Definition:
    """Return the definition that `module:Class` or `path/to/file.py:Class` names; raises `ConfigurationError`.

    The class can be omitted if the module has one decorated class.
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
    """Return the definition of a decorated class or of its BentoML service, None for any other value."""
    definition = getattr(getattr(value, "inner", value), ATTRIBUTE, None)
    return definition if isinstance(definition, Definition) else None


def _import(name: str) -> Any:
    path = Path(name)
    # Modules are found in the working directory, as by `bentoml serve`; imports of a file, beside it.
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
                f"no module {name!r} in {here} or among the installed packages; give a module or a path that ends in .py"
            ) from None
    if not path.is_file():
        raise ConfigurationError(f"{path} is not a file; give the file of the service, for example service.py:Ranker")
    path = path.resolve()
    # A unique name: two files may both be called service.py, and neither may hide a package of that name.
    unique = f"{path.stem}_{id64(str(path)) % 2**32:08x}"
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    return module
