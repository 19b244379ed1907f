"""Nothing that is loaded can run code: no module unpickles, by any of the ways that Python, numpy and torch have."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "plugins" / "riverdelta"
_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch.package"}
_CALLS = {"eval", "exec", "read_pickle"}


def loaders(path):
    """Yield (line, what) for each import or call in a file that could run what it loads."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        source = getattr(node, "module", None) or ""
        for name in [source, *names, *(f"{source}.{name}" for name in names)]:
            if name in _MODULES or name.split(".")[0] in _MODULES:
                yield node.lineno, f"imports {name}"
                break
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if (called.split(".")[-1] in _CALLS and called.split(".")[-1] == called) or called.endswith(".read_pickle"):
                yield node.lineno, f"calls {called}"
            if given.get("allow_pickle", "False") != "False":
                yield node.lineno, f"calls {called} with allow_pickle"
            if called == "torch.load" and given.get("weights_only") != "True":
                yield node.lineno, f"calls {called} without weights_only=True"


def test_no_module_loads_what_could_run():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {what}" for path in sorted(PACKAGE.rglob("*.py")) for line, what in loaders(path)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "def f():\n    import marshal", "import numpy, shelve",
        "import joblib.memory", "from torch import package", "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=given)", "torch.load(path)", "torch.load(path, weights_only=False)",
        "pandas.read_pickle(path)", "eval(text)",
    ],
)  # fmt: skip
def test_a_planted_loader_is_found(tmp_path, source):
    (tmp_path / "planted.py").write_text(source)
    assert len(list(loaders(tmp_path / "planted.py"))) == 1


@pytest.mark.parametrize("source", ["model.eval()", "np.load(path)", "torch.load(path, weights_only=True)", "import json"])
def test_what_loads_data_alone_passes(tmp_path, source):
    (tmp_path / "planted.py").write_text(source)
    assert list(loaders(tmp_path / "planted.py")) == []
