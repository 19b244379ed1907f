"""Imports go down only, and each heavy dependency stays where it belongs (the table below is the architecture)."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "plugins" / "riverdelta"

#: The layer of each top-level module of the package; `checks` stands beside them.
LAYERS = {
    "features": 0, "events": 0, "link": 0, "errors": 0,
    "corrections": 1,
    "stack": 2, "joiner": 2, "prequential": 2, "drift": 2, "gate": 2, "graph": 2, "convert": 2,
    "session": 3, "registry": 3, "journal": 3, "checkpoint": 3, "metrics": 3, "lock": 3,
    "__main__": 4, "oip": 4, "dataplane": 4, "trainer": 4, "settings": 4, "definition": 4, "home": 4, "cli": 4, "lab": 4,
    "bento": 5,
}  # fmt: skip

#: Which modules may import which heavy dependency; a prefix names a folder.
HEAVY = {
    "torch": ("lab/deepfm", "lab/train", "lab/export"),
    "onnxscript": ("lab/export",),
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
    "numba": ("corrections", "prequential"),
    "river": ("corrections", "convert", "prequential"),
    "onnx": ("corrections", "convert", "graph", "checks", "lab/export", "session", "trainer/releases"),
    "pyarrow": ("events", "lab/datasets"),
    "click": ("cli",),
    "rich": ("cli",),
    "pandas": ("corrections/rows",),
}


def imports(path):
    """Yield (line, dotted name) of every import in a file, those inside functions and TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(package):
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package).with_suffix("")
        mine = where.parts[0]
        if mine != "__init__" and mine != "checks" and mine not in LAYERS:
            found.append(f"{where}.py: {mine!r} is in no layer; add it to LAYERS")
            continue
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] == "riverdelta" and len(parts) > 1 and mine != "__init__":
                found += arrow(where, line, mine, parts[1])
            elif parts[0] in HEAVY and not any(where.as_posix().startswith(place) for place in HEAVY[parts[0]]):
                found.append(f"{where}.py:{line}: imports {parts[0]}, which only {', '.join(HEAVY[parts[0]])} may")
    return found


def arrow(where, line, mine, other):
    if other == "checks" and mine != "checks":
        return [f"{where}.py:{line}: imports checks, which nobody may"]
    top = 3 if mine == "checks" else LAYERS[mine]
    if LAYERS.get(other, 0) > top:
        return [f"{where}.py:{line}: {mine} (L{top}) imports {other} (L{LAYERS[other]}); imports go down only"]
    return []


def test_imports_go_down_only():
    assert violations(PACKAGE) == []


def test_an_arrow_that_points_up_is_named_with_its_file(tmp_path):
    (tmp_path / "stack.py").write_text("from riverdelta.session import Session\n")
    (tmp_path / "joiner.py").write_text("def f():\n    import sqlite3\n")
    (tmp_path / "misc.py").write_text("")
    (tmp_path / "trainer.py").write_text("from riverdelta.checks import LAWS\n")
    assert violations(tmp_path) == [
        "joiner.py:2: imports sqlite3, which only journal may",
        "misc.py: 'misc' is in no layer; add it to LAYERS",
        "stack.py:1: stack (L2) imports session (L3); imports go down only",
        "trainer.py:1: imports checks, which nobody may",
    ]


def test_the_package_imports_without_its_heavy_dependencies():
    heavy = ("bentoml", "torch", "pandas", "onnxruntime", "grpc")
    script = f"import sys, riverdelta; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
