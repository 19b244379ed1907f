"""Imports go down only, and each heavy dependency stays where it belongs (the table below is the architecture)."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "plugins" / "riverdelta"

#: The packages, lowest first: each may import itself and those before it. `checks` stands beside them.
ORDER = (
    "core", "corrections", "river", "graph", "evaluation", "learning", "storage", "metrics", "serving", "sidecar", "lab", "cli",
    "bento", "__main__",
)  # fmt: skip

#: Which modules may import which heavy dependency; a folder's name stands for all that it holds.
HEAVY = {
    "torch": ("lab/base", "lab/deepfm", "lab/export", "lab/network", "lab/similarity"),
    "onnxscript": ("lab/export",),
    "opentelemetry": ("bento",),
    "bentoml": ("bento",),
    "bentoml._internal": ("bento/internals",),
    "_bentoml_sdk": ("bento/internals",),
    "_bentoml_impl": ("bento/internals",),
    "bentoml_cli": ("bento/internals",),
    "starlette": ("bento",),
    "grpc": ("bento", "lab/client"),
    "google": ("serving/oip", "graph/reading"),
    "uvicorn": ("bento",),
    "pydantic": ("bento", "core/settings", "core/strict", "learning/commands", "learning/forget"),
    "pydantic_settings": ("core/settings",),
    "onnxruntime": ("graph/runtime", "serving/session", "lab/export", "checks"),
    "sqlite3": ("storage/log",),
    "safetensors": ("core/arrays", "corrections/lookup"),
    "fcntl": ("core/locks",),
    "prometheus_client": ("metrics", "serving/dataplane"),
    "numba": ("corrections", "core/losses", "evaluation", "learning/breaker", "learning/influence", "learning/shares"),
    "river": ("corrections", "river"),
    "onnx": ("core/nodes", "corrections", "river", "graph", "checks", "serving/session", "sidecar/releaser"),
    "pyarrow": ("core/arrow", "core/records", "lab/datasets", "cli/rows"),
    "click": ("cli", "bento/internals"),
    "psutil": ("bento/address", "metrics/files"),
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
        if mine not in ("__init__", "checks", *ORDER):
            found.append(f"{where}.py: {mine!r} is in no layer; add it to ORDER")
            continue
        for line, name in imports(path, where):
            parts = name.split(".")
            if parts[0] == "riverdelta" and mine != "__init__":
                found += arrow(where, line, mine, parts[1] if len(parts) > 1 else "")
                continue
            for heavy in sorted({parts[0], ".".join(parts[:2])}):
                if heavy in HEAVY and not any(f"{where.as_posix()}/".startswith(f"{place}/") for place in HEAVY[heavy]):
                    found.append(f"{where}.py:{line}: imports {heavy}, which only {', '.join(HEAVY[heavy])} may")
    return found


def arrow(where, line, mine, other):
    if other == "checks":
        return [] if mine == "checks" else [f"{where}.py:{line}: imports checks, which nobody may"]
    if other not in ORDER:
        return [f"{where}.py:{line}: imports {other or 'riverdelta'!r} by the package's face; name its module"]
    top = "storage" if mine == "checks" else mine
    if ORDER.index(other) > ORDER.index(top):
        return [f"{where}.py:{line}: {mine} imports {other}, which is above it; imports go down only"]
    return []


def circles(package):
    """Return each set of modules that import one another, `TYPE_CHECKING` and functions included."""
    files = {path.relative_to(package).with_suffix(""): path for path in sorted(package.rglob("*.py"))}
    modules = {".".join(where.parts).removesuffix(".__init__"): where for where in files}
    graph = {}
    for module, where in modules.items():
        targets = {
            name.removeprefix("riverdelta.") for _, name in imports(files[where], where) if name.startswith("riverdelta.")
        }
        found = {target if target in modules else target.rpartition(".")[0] for target in targets}
        graph[module] = found & modules.keys() - {module}
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None


def test_imports_go_down_only():
    assert violations(PACKAGE) == []


def test_no_module_imports_itself_by_way_of_others():
    assert circles(PACKAGE) is None


UP = "which is above it; imports go down only"
FACE = "by the package's face; name its module"
PLANTED = {
    "an arrow up": (
        "corrections/stack.py",
        "from riverdelta.serving import Session",
        f"1: corrections imports serving, {UP}",
    ),
    "a relative one": ("graph/merge.py", "from ..serving import half", f"1: graph imports serving, {UP}"),
    "a bare relative one": ("core/logs.py", "from .. import graph", f"1: core imports graph, {UP}"),
    "inside a package's face": ("graph/__init__.py", "from ..cli import main", f"1: graph imports cli, {UP}"),
    "inside a function": (
        "learning/joiner.py",
        "def f():\n    import sqlite3",
        "2: imports sqlite3, which only storage/log may",
    ),
    "for types alone": (
        "graph/merge.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import riverdelta.sidecar",
        f"3: graph imports sidecar, {UP}",
    ),
    "by the package's face": ("core/logs.py", "from riverdelta import Stack", f"1: imports 'Stack' {FACE}"),
    "of the package itself": ("core/logs.py", "import riverdelta", f"1: imports 'riverdelta' {FACE}"),
    "of the laws": ("sidecar/trainer.py", "from riverdelta.checks import LAWS", "1: imports checks, which nobody may"),
    "of the laws above storage": ("checks/corrections.py", "import riverdelta.cli", f"1: checks imports cli, {UP}"),
    "a name that only begins alike": (
        "lab/based.py",
        "import torch",
        "1: imports torch, which only lab/base, lab/deepfm, lab/export, lab/network, lab/similarity may",
    ),
    "a private part of one that is allowed": (
        "bento/guard.py",
        "from bentoml._internal.utils import first",
        "1: imports bentoml._internal, which only bento/internals may",
    ),
    "a module in no layer": ("misc.py", "", " 'misc' is in no layer; add it to ORDER"),
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
        "import onnx\nfrom . import names\nfrom .. import core\nfrom ..corrections.stack import Stack\n"
    )
    assert violations(tmp_path) == []


def test_a_planted_circle_is_named(tmp_path):
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "a.py").write_text("from riverdelta.graph.b import f\n")
    (tmp_path / "graph" / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from riverdelta.graph import a\n"
    )
    assert circles(tmp_path) in ("graph.a <- graph.b <- graph.a", "graph.b <- graph.a <- graph.b")


def test_the_package_imports_without_its_heavy_dependencies():
    heavy = ("bentoml", "torch", "pandas", "onnxruntime", "grpc")
    script = f"import sys, riverdelta; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_of_the_tests_hides_an_installed_package():
    # Folders of tests stand first on sys.path once their conftest has run: a file named like a package would be that package.
    tests = Path(__file__).parent
    installed = set(metadata.packages_distributions()) | sys.stdlib_module_names
    hidden = {str(file.relative_to(tests)) for file in tests.rglob("*.py") if file.stem in installed}
    assert hidden == set()
