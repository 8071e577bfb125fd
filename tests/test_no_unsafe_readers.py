"""No file of a user can run code: what could, does not stand in the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import berg

PACKAGE = Path(berg.__file__).parent

NEVER_IMPORTED = {"_pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle", "runpy"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "BaseLoader"}
UNSAFE_YAML = {"unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "UnsafeLoader", "FullLoader", "Loader"}
RUN_CODE = {"eval", "exec", "__import__"}
UNSAFE_ANYWHERE = {"read_pickle", "Unpickler", "load_state_dict_from_url"}


def violations(folder: Path) -> Iterator[str]:
    """Each place that could run code out of a file, as path:line: what."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        modules = _modules(tree)
        for node in ast.walk(tree):
            for what in _found(node, modules):
                yield f"{path}:{node.lineno}: {what}"


def _modules(tree: ast.AST) -> dict[str, str]:
    """The names that modules go by in a file, and what of a module was imported by its own name."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _found(node: ast.AST, modules: dict[str, str]) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from _of_import(node)
    elif isinstance(node, ast.Attribute):
        yield from _of_name(_dotted(node, modules))
    elif isinstance(node, ast.Call):
        yield from _of_call(node, _dotted(node.func, modules))
        if any(isinstance(argument, ast.Name) and modules.get(argument.id) == "pickle" for argument in node.args):
            yield "pickle handed on"


def _of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    above = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        dotted = f"{above}.{alias.name}".lstrip(".")
        if NEVER_IMPORTED & {dotted.split(".")[0]}:
            yield f"import of {dotted}"
        yield from _of_name(dotted)


def _of_name(dotted: str) -> Iterator[str]:
    parent, _, name = dotted.rpartition(".")
    unsafe = {"yaml": UNSAFE_YAML, "builtins": RUN_CODE, "torch.hub": {"load"}, "torch.jit": {"load"}}
    # Of pickle only the letters of its language may be used, which are spelt in capitals, and its error.
    harmless = name.isupper() or name == "UnpicklingError"
    if name in unsafe.get(parent, UNSAFE_ANYWHERE) or (parent == "pickle" and not harmless):
        yield dotted


def _of_call(node: ast.Call, called: str) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if called in RUN_CODE:
        yield f"call of {called}"
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield "allow_pickle"
    if called in ("numpy.load", "numpy.lib.format.read_array") and len(node.args) > 2:
        yield "allow_pickle by its place"
    if "weights_only" in keywords and not _is(keywords["weights_only"], True):
        yield "weights_only"
    if called == "torch.load" and "weights_only" not in keywords:
        yield "torch.load without weights_only=True"
    if None in keywords and called in ("torch.load", "numpy.load"):
        yield f"{called} with keywords that nobody sees"
    if called in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader", node.args[1] if len(node.args) > 1 else None)
        if not isinstance(loader, ast.Attribute) or loader.attr not in SAFE_LOADERS:
            yield f"{called} without a safe loader"


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _dotted(node: ast.expr, modules: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return modules.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, modules)}.{node.attr}"
    return ""


def test_no_reader_of_the_package_can_run_code() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 40
    assert list(violations(PACKAGE)) == []


PLANTED = {
    "allow_pickle": "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
    "allow_pickle in a variable": "import numpy as np\nnp.load('a.npy', allow_pickle=trusted)",
    "allow_pickle by its place": "import numpy\nnumpy.load('a.npy', None, True)",
    "keywords unseen": "import numpy as np\nnp.load('a.npy', **options)",
    "weights_only": "import torch\ntorch.load('a.pt', weights_only=False)",
    "torch.load alone": "import torch\ntorch.load('a.pt')",
    "torch.load by its name": "from torch import load as read\nread('a.pt')",
    "torch hub": "import torch\ntorch.hub.load('a/b', 'model')",
    "pickle.load": "import pickle\npickle.load(file)",
    "pickle.loads under another name": "import pickle as p\np.loads(data)",
    "pickle.loads as a value": "import pickle\nread = pickle.loads",
    "Unpickler": "import pickle\nclass Reader(pickle.Unpickler): pass",
    "loads imported": "from pickle import loads",
    "inside a function": "def f(file):\n    from pickle import Unpickler",
    "pickle by getattr": "import pickle\ngetattr(pickle, 'lo' + 'ad')(file)",
    "the C module": "import _pickle",
    "pandas": "import pandas as pd\npd.read_pickle('a')",
    "yaml.load": "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "yaml.load by its place": "import yaml\nyaml.load(text, yaml.FullLoader)",
    "yaml.load alone": "import yaml\nyaml.load(text)",
    "yaml.unsafe_load": "import yaml\nyaml.unsafe_load(text)",
    "eval": "eval(text)",
    "exec": "def f(text):\n    exec(text)",
    "builtins.eval": "import builtins\nbuiltins.eval(text)",
    "joblib": "import joblib",
    "part of dill": "from dill import load",
    "shelve": "import shelve",
    "marshal": "from marshal import loads",
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case: str, tmp_path: Path) -> None:
    path = tmp_path / "reader.py"
    path.write_text(PLANTED[case])
    found = list(violations(tmp_path))
    assert found
    assert all(each.startswith(f"{path}:") for each in found)


HARMLESS = {
    "the letters of pickle": "import pickle\nif opcode == pickle.REDUCE[0]: pass",
    "safe torch": "import torch\ntorch.load('a.pt', weights_only=True)",
    "safe yaml": "import yaml\nyaml.safe_load(text)\nyaml.load(text, Loader=yaml.CSafeLoader)",
    "plain numpy": "import numpy as np\nnp.load('a.npy')\nnp.load('b.npy', allow_pickle=False)",
    "methods of these names": "import re\nmodel.eval()\nsession.exec(query)\njson.load(file)\nre.compile('a')",
    "words": "'''pickle.load and numpy.load(allow_pickle=True) are never used.'''",
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_harmless_is_not_found(case: str, tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(HARMLESS[case])
    assert list(violations(tmp_path)) == []
