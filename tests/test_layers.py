"""Imports go down only, and each heavy dependency stays where it belongs (the table below is the architecture)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "plugins" / "riverdelta"

#: The layer of each top-level module of the package; `checks` stands beside them.
LAYERS = {
    "features": 0, "events": 0, "link": 0, "errors": 0, "log_loss": 0, "logs": 0, "durable": 0,
    "corrections": 1,
    "stack": 2, "joiner": 2, "prequential": 2, "drift": 2, "graph": 2, "convert": 2,
    "gate": 2, "breaker": 2, "insight": 2, "influence": 2, "confidence": 2, "trial": 2,
    "session": 3, "registry": 3, "journal": 3, "checkpoint": 3, "metrics": 3, "lock": 3,
    "__main__": 4, "oip": 4, "dataplane": 4, "trainer": 4, "settings": 4, "definition": 4, "home": 4, "access": 4,
    "cli": 4, "lab": 4, "fallback": 4,
    "operator": 4, "diff": 4, "reference": 4, "impression": 4, "backup": 4,
    "bento": 5,
}  # fmt: skip

#: Which modules may import which heavy dependency; a folder's name stands for all that it holds.
HEAVY = {
    "torch": ("lab/deepfm", "lab/train", "lab/export"),
    "onnxscript": ("lab/export",),
    "opentelemetry": ("bento",),
    "bentoml": ("bento",),
    "_bentoml_sdk": ("bento",),
    "_bentoml_impl": ("bento",),
    "starlette": ("bento",),
    "grpc": ("bento", "lab/client"),
    "google": ("oip", "graph/signature"),
    "uvicorn": ("bento",),
    "pydantic": ("bento", "settings"),
    "pydantic_settings": ("settings",),
    "onnxruntime": ("session", "lab/export", "checks"),
    "sqlite3": ("journal",),
    "safetensors": ("checkpoint", "registry", "corrections/lookup"),
    "fcntl": ("lock", "home"),
    "prometheus_client": ("metrics", "dataplane"),
    "numba": (
        "corrections",
        "prequential",
        "gate",
        "breaker",
        "influence",
        "confidence",
        "trial",
        "drift",
        "log_loss",
        "insight",
        "trainer/history",
    ),
    "river": ("corrections", "convert", "prequential"),
    "onnx": ("corrections", "convert", "graph", "checks", "lab/export", "session", "trainer/releases"),
    "pyarrow": ("events", "lab/datasets", "cli/reference"),
    "click": ("cli", "bento/address"),
    "psutil": ("bento/address",),
    "rich": ("cli",),
    "pandas": ("corrections/rows",),
}


def imports(path, where):
    """Yield (line, dotted name) of every import in a file: relative ones, and those in functions and TYPE_CHECKING, too."""
    inside = ("riverdelta", *where.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = [*inside[: -node.level], *(node.module or "").split(".")] if node.level else node.module.split(".")
            yield from ((node.lineno, ".".join([*filter(None, source), alias.name])) for alias in node.names)


def violations(package):
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package).with_suffix("")
        mine = where.parts[0]
        if mine != "__init__" and mine != "checks" and mine not in LAYERS:
            found.append(f"{where}.py: {mine!r} is in no layer; add it to LAYERS")
            continue
        for line, name in imports(path, where):
            parts = name.split(".")
            if parts[0] == "riverdelta" and mine != "__init__":
                found += arrow(where, line, mine, parts[1] if len(parts) > 1 else "")
            elif parts[0] in HEAVY and not any(f"{where.as_posix()}/".startswith(f"{place}/") for place in HEAVY[parts[0]]):
                found.append(f"{where}.py:{line}: imports {parts[0]}, which only {', '.join(HEAVY[parts[0]])} may")
    return found


def arrow(where, line, mine, other):
    if other == "checks":
        return [] if mine == "checks" else [f"{where}.py:{line}: imports checks, which nobody may"]
    if other not in LAYERS:
        return [f"{where}.py:{line}: imports {other or 'riverdelta'!r} by the package's face; name its module"]
    top = 3 if mine == "checks" else LAYERS[mine]
    if LAYERS[other] > top:
        return [f"{where}.py:{line}: {mine} (L{top}) imports {other} (L{LAYERS[other]}); imports go down only"]
    return []


def test_imports_go_down_only():
    assert violations(PACKAGE) == []


UP = "imports go down only"
FACE = "by the package's face; name its module"
PLANTED = {
    "an arrow up": ("stack.py", "from riverdelta.session import Session", f"1: stack (L2) imports session (L3); {UP}"),
    "a relative one": ("graph/merge.py", "from ..session import half", f"1: graph (L2) imports session (L3); {UP}"),
    "a bare relative one": ("link.py", "from . import stack", f"1: link (L0) imports stack (L2); {UP}"),
    "inside a package's face": ("graph/__init__.py", "from ..cli import main", f"1: graph (L2) imports cli (L4); {UP}"),
    "inside a function": ("joiner.py", "def f():\n    import sqlite3", "2: imports sqlite3, which only journal may"),
    "for types alone": (
        "stack.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import riverdelta.trainer",
        f"3: stack (L2) imports trainer (L4); {UP}",
    ),
    "by the package's face": ("link.py", "from riverdelta import Stack", f"1: imports 'Stack' {FACE}"),
    "of the package whole": ("link.py", "import riverdelta", f"1: imports 'riverdelta' {FACE}"),
    "of the laws": ("trainer.py", "from riverdelta.checks import LAWS", "1: imports checks, which nobody may"),
    "of the laws above L3": ("checks/laws.py", "import riverdelta.cli", f"1: checks (L3) imports cli (L4); {UP}"),
    "a name that only begins alike": (
        "lab/exporter.py",
        "import torch",
        "1: imports torch, which only lab/deepfm, lab/train, lab/export may",
    ),
    "a module in no layer": ("misc.py", "", " 'misc' is in no layer; add it to LAYERS"),
}


@pytest.mark.parametrize(("file", "source", "said"), PLANTED.values(), ids=PLANTED)
def test_a_planted_import_is_named_with_its_file_and_line(tmp_path, file, source, said):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(source + "\n")
    assert violations(tmp_path) == [f"{file}:{said}"]


def test_imports_of_the_same_layer_and_below_pass(tmp_path):
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "merge.py").write_text(
        "import onnx\nfrom . import names\nfrom .. import link\nfrom ..stack import Stack\n"
    )
    assert violations(tmp_path) == []


def test_the_package_imports_without_its_heavy_dependencies():
    heavy = ("bentoml", "torch", "pandas", "onnxruntime", "grpc")
    script = f"import sys, riverdelta; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
