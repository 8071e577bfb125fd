import ast
from pathlib import Path

import pytest

import berg

PACKAGE = Path(berg.__file__).parent

# Downwards only. A room may import itself and what stands here (design: who may import whom).
MAY = {
    "core": "", "interfaces": "core", "kernels": "core", "weights": "core",
    "features": "kernels core", "readouts": "kernels core",
    "responses": "core", "evaluation": "core", "plotting": "core",
    "models": "interfaces features readouts kernels weights responses core",
    "fitting": "models evaluation responses weights features readouts kernels interfaces core",
    "experiments": "models evaluation responses weights features readouts kernels interfaces core",
    "testing": "models interfaces features readouts kernels weights responses core",
    "cli": "*", "app": "*", "__init__": "features core", "__main__": "cli",
}  # fmt: skip
HEAVY = {"torch", "torchvision", "xarray", "matplotlib"}  # none of them in core, at any level


def imports(node: ast.AST, package: list[str]):
    """What a piece of code imports, as dotted names with their lines; not what is only for type checkers."""
    if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        yield from ((".".join(filter(None, [*above, node.module, alias.name])), node.lineno) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package)


def violations(folder: Path):
    """Each import that goes upwards or sideways, and each room or file without a word of its own."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        room, allowed = parts[0], MAY.get(parts[0])
        if allowed is None or {"utils", "helpers", "util", "helper", "common", "misc"} & set(parts):
            yield f"{path}: no such room"
        for name, line in imports(ast.parse(path.read_text("utf-8")), ["berg", *parts[:-1]]):
            top, _, rest = name.partition(".")
            other = rest.split(".")[0]
            is_room = top == "berg" and other and (folder / other).is_dir()
            if is_room and allowed not in (None, "*") and other not in (room, *allowed.split()):
                yield f"{path}:{line}: {room} may not import {other}"
            if room == "core" and top in HEAVY:
                yield f"{path}:{line}: core may not import {top}"


def test_every_import_goes_downwards():
    assert len(list(PACKAGE.rglob("*.py"))) > 20
    assert list(violations(PACKAGE)) == []


PLANTED = {
    "a room below": ("core/a.py", "from berg.models import device", "core may not import models"),
    "the room by its name": ("core/a.py", "from berg import features", "core may not import features"),
    "the whole name": ("features/a.py", "import berg.weights.model_files", "features may not import weights"),
    "by dots": ("readouts/a.py", "from ..models.device import resolve_device", "readouts may not import models"),
    "by dots alone": ("readouts/deep/a.py", "from ... import models", "readouts may not import models"),
    "inside a function": ("weights/a.py", "def f():\n    from berg.cli import app", "weights may not import cli"),
    "in the other branch": ("core/a.py", "if TYPE:\n    pass\nelse:\n    import torch", "core may not import torch"),
    "a heavy package": ("core/a.py", "def f():\n    import matplotlib.pyplot", "core may not import matplotlib"),
    "part of a heavy package": ("core/a.py", "from xarray import Dataset", "core may not import xarray"),
    "a room that is none": ("extras/a.py", "", "no such room"),
    "a file without a word": ("core/utils.py", "", "no such room"),
    "a folder without a word": ("models/helpers/a.py", "", "no such room"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case, tmp_path):
    file, code, words = PLANTED[case]
    for room in MAY:
        (tmp_path / room).mkdir()
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(code)
    found = list(violations(tmp_path))
    assert len(found) == 1
    assert found[0].startswith(str(path))
    assert found[0].endswith(words)


def test_an_import_for_type_checkers_only_is_none(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("if TYPE_CHECKING:\n    from berg.models import device\n")
    assert list(violations(tmp_path)) == []
