"""Who may import whom. Every way of importing counts: at the top, inside a function, for types, and by a string."""

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

import berg

PACKAGE = Path(berg.__file__).parent

# From the bottom up. A file may import the rooms on the lines below its own, and its own room.
FLOORS = (
    "core",
    "system",
    "interfaces",
    "transfer",
    "stimuli statistics plotting",
    "weights responses features",
    "models",
    "families datasets encoding",
    "fitting evaluation testing",
    "families/fit",
    "facade experiments",
    "server",
    "cli",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
BESIDE = {("fitting", "evaluation"), ("plotting", "responses")}
"""Rooms on one line, or one line up, that may be imported all the same: a fit is evaluated, responses are drawn."""

BY_NAME = {
    "core/model_registry.py": "models families",
    "models/new_model.py": "families",
    "fitting/family.py": "families",
}
"""The one exception: a family is reached by its name in a card, and classes written by hand by their folder."""

HEAVY = {"torch", "torchvision", "xarray", "matplotlib"}  # none of them in core, at any level
NO_WORDS = {"utils", "helpers", "util", "helper", "common", "misc"}
FOR_THE_MODEL = "model.py"


Nodes = Collection[ast.AST]


def nodes_of(path: Path) -> Nodes:
    """All parts of a file's syntax."""
    return nodes_in(path.read_text("utf-8"))


@cache
def nodes_in(text: str) -> Nodes:
    """All parts of the syntax of a text, walked through once for all tests."""
    return list(ast.walk(ast.parse(text)))


@pytest.fixture(scope="module", autouse=True)
def syntax_is_forgotten() -> Iterator[None]:
    """After the last of these tests: it takes 100 MB."""
    yield
    nodes_in.cache_clear()


def imports(nodes: Nodes, package: list[str]) -> Iterator[tuple[str, int]]:
    """What a file imports, as dotted names with their lines."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            yield from ((".".join([*base, alias.name]), node.lineno) for alias in node.names)
    yield from in_strings(nodes)


def in_strings(nodes: Nodes) -> Iterator[tuple[str, int]]:
    """Texts that are the name of a module, or the beginning of one (of an f-string): `import_module` takes those."""
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"berg(\.\w+)+\.?", text):
            yield text.rstrip("."), node.lineno


def private_names(nodes: Nodes) -> Iterator[tuple[str, int]]:
    """Names with a leading underscore that are taken from another file."""
    modules = {"berg"}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "berg"):
            for alias in node.names:
                modules.add(alias.asname or alias.name)
                if alias.name.startswith("_") and not alias.name.startswith("__"):
                    yield alias.name, node.lineno
    for node in nodes:
        of_module = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in modules
        if of_module and re.match("_[^_]", node.attr):
            yield f"{node.value.id}.{node.attr}", node.lineno


def room_of(parts: tuple[str, ...], of_models: set[str]) -> str:
    """The room of a file; what a family needs for its fit alone stands above what its model needs."""
    name = parts[0].removesuffix(".py")
    return "families/fit" if name == "families" and len(parts) > 2 and "/".join(parts[1:]) not in of_models else name


def files_of_models(folder: Path) -> set[str]:
    """The files of families that a model needs: `model.py`, and what it imports beside itself."""
    found = {f"{path.parent.name}/{FOR_THE_MODEL}" for path in folder.glob(f"families/*/{FOR_THE_MODEL}")}
    todo = set(found)
    while todo:
        family, file = todo.pop().split("/")
        nodes = nodes_of(folder / "families" / family / file)
        names = {name.split(".")[3] for name, _ in imports(nodes, []) if name.startswith(f"berg.families.{family}.")}
        new = {
            f"{family}/{name}.py" for name in names if (folder / "families" / family / f"{name}.py").exists()
        } - found
        found, todo = found | new, todo | new
    return found | {f"{path.parent.name}/__init__.py" for path in folder.glob("families/*/__init__.py")}


def target(name: str, folder: Path, of_models: set[str]) -> tuple[str, str] | None:
    """Room and family of what is imported; None if it is not of the package, or the package itself."""
    parts = name.split(".")
    if parts[0] != "berg" or len(parts) < 2:
        return None
    room = parts[1]
    if not (folder / room).is_dir() and not (folder / f"{room}.py").exists():
        return None
    if room == "families" and len(parts) > 3:
        return room_of(("families", parts[2], f"{parts[3]}.py"), of_models), parts[2]
    return room, ""


def may(room: str, other: str) -> bool:
    """Whether a file of one room may import the other."""
    return room == other or (room, other) in BESIDE or FLOOR[other] < FLOOR[room]


def violations(folder: Path) -> Iterator[str]:
    """Each import that goes up or sideways, each private name of another file, each room without a word of its own."""
    of_models = files_of_models(folder)
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        parts, nodes = relative.parts, nodes_of(path)
        yield from (f"{path}:{line}: {name} is private to another file" for name, line in private_names(nodes))
        if len(parts) == 1 and parts[0] in ("__init__.py", "__main__.py"):
            continue
        room = room_of(parts, of_models)
        if room not in FLOOR or NO_WORDS & {part.removesuffix(".py") for part in parts}:
            yield f"{path}: no such room"
            continue
        strings = set(in_strings(nodes))
        for name, line in sorted(set(imports(nodes, ["berg", *parts[:-1]])), key=lambda found: found[1]):
            if room == "core" and name.split(".")[0] in HEAVY:
                yield f"{path}:{line}: core may not import {name.split('.')[0]}"
            found = target(name, folder, of_models)
            if found is None:
                continue
            other, family = found
            if other.split("/")[0] in BY_NAME.get(relative.as_posix(), "").split() and (name, line) in strings:
                continue
            if other not in FLOOR or not may(room, other):
                yield f"{path}:{line}: {room} may not import {other}"
            elif family and parts[0] == "families" and family != parts[1]:
                yield f"{path}:{line}: the family {parts[1]} may not import {family}"


def module_name(path: Path, folder: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(("berg", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def arrows_between_files(folder: Path) -> dict[str, set[str]]:
    """The files of the package that each file imports."""
    files = {module_name(path, folder): path for path in sorted(folder.rglob("*.py"))}
    return {name: set(imported(path, folder, files)) - {name, "berg"} for name, path in files.items()}


def imported(path: Path, folder: Path, files: Collection[str]) -> Iterator[str]:
    """The files that one file imports, for whatever name in them."""
    for name, _ in imports(nodes_of(path), ["berg", *path.relative_to(folder).parts[:-1]]):
        yield from [short for short in (name, name.rpartition(".")[0]) if short in files][:1]


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Files that import each other, directly or by way of others."""
    reached = {name: reachable(name, arrows) for name in arrows}
    found = [{other for other in reached[name] if name in reached[other]} for name in arrows if name in reached[name]]
    return [circle for number, circle in enumerate(found) if circle not in found[:number]]


def reachable(name: str, arrows: dict[str, set[str]]) -> set[str]:
    """The files that are imported by a file, and by those, and so on."""
    reached, todo = set(), set(arrows[name])
    while todo:
        reached |= todo
        todo = set().union(*(arrows[other] for other in todo)) - reached
    return reached


def test_no_files_import_each_other_in_a_circle():
    found = circles(arrows_between_files(PACKAGE))
    assert found == []


CIRCLES = {
    "two files": {"models/a.py": "from berg.models import b", "models/b.py": "def f():\n    import berg.models.a"},
    "for types": {
        "models/a.py": "from berg.models.b import c",
        "models/b.py": "if TYPE_CHECKING:\n    from berg.models.a import d",
    },
    "over a third": {
        "models/a.py": "from .b import x",
        "models/b.py": "from berg.models.c import x",
        "models/c.py": "import_module('berg.models.a')",
    },
}


@pytest.mark.parametrize("case", CIRCLES)
def test_a_planted_circle_is_found(case, house):
    before = circles(arrows_between_files(house))
    for file, code in CIRCLES[case].items():
        (house / file).write_text(code)
    names = {"berg." + file.removesuffix(".py").replace("/", ".") for file in CIRCLES[case]}
    assert before == []
    assert circles(arrows_between_files(house)) == [names]


def test_files_that_import_a_third_are_no_circle(house):
    for name, code in {"a": "from berg.models import b, c", "b": "from berg.models import c", "c": ""}.items():
        (house / "models" / f"{name}.py").write_text(code)
    assert circles(arrows_between_files(house)) == []


def test_every_import_goes_downwards():
    assert len(list(PACKAGE.rglob("*.py"))) > 20
    assert list(violations(PACKAGE)) == []


PLANTED = {
    "a room above": ("core/a.py", "from berg.models import device", "core may not import models"),
    "the room by its name": ("core/a.py", "from berg import features", "core may not import features"),
    "the whole name": ("stimuli/a.py", "import berg.weights.npy_files", "stimuli may not import weights"),
    "a room beside": ("weights/a.py", "from berg.responses import store", "weights may not import responses"),
    "by dots": ("features/a.py", "from ..models.device import resolve_device", "features may not import models"),
    "by dots alone": ("features/deep/a.py", "from ... import models", "features may not import models"),
    "inside a function": ("weights/a.py", "def f():\n    from berg.cli import app", "weights may not import cli"),
    "the facade": ("testing/a.py", "from berg.facade import BERG", "testing may not import facade"),
    "for types": ("core/a.py", "if TYPE_CHECKING:\n    from berg import models", "core may not import models"),
    "by a string": ("core/a.py", "import_module('berg.models.device')", "core may not import models"),
    "by a string put together": ("fitting/a.py", "import_module(f'berg.cli.{name}')", "fitting may not import cli"),
    "the exception, of another room": ("core/model_registry.py", "x = 'berg.weights'", "core may not import weights"),
    "the exception, not by name": ("core/model_registry.py", "from berg import models", "core may not import models"),
    "a family, from below": ("models/a.py", "from berg.families.prf import model", "models may not import families"),
    "another family": ("families/x/model.py", "from berg.families.prf import model", "x may not import prf"),
    "a fit, by its model": ("families/x/model.py", "import berg.fitting.fit", "families may not import fitting"),
    "what a model needs, too": ("families/y/readout.py", "import berg.fitting.fit", "families may not import fitting"),
    "a private name": ("fitting/a.py", "from berg.fitting.fit import _stored", "_stored is private to another file"),
    "a private name of a module": (
        "fitting/a.py",
        "from berg.fitting import fit\nfit._stored(1)",
        "fit._stored is private to another file",
    ),
    "a heavy package": ("core/a.py", "def f():\n    import matplotlib.pyplot", "core may not import matplotlib"),
    "part of a heavy package": ("core/a.py", "from xarray import Dataset", "core may not import xarray"),
    "a room that is none": ("extras/a.py", "", "no such room"),
    "a file without a word": ("core/utils.py", "", "no such room"),
    "a folder without a word": ("models/helpers/a.py", "", "no such room"),
}


@pytest.fixture
def house(tmp_path):
    """Empty rooms, and two families of which one has a file that its model needs."""
    for room in FLOOR:
        (tmp_path / room).mkdir(parents=True, exist_ok=True)
    for family in ("prf", "x", "y"):
        (tmp_path / "families" / family).mkdir()
        (tmp_path / "families" / family / "model.py").write_text("")
    (tmp_path / "families" / "y" / "model.py").write_text("from berg.families.y.readout import predict")
    (tmp_path / "families" / "y" / "readout.py").write_text("")
    return tmp_path


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case, house):
    file, code, words = PLANTED[case]
    path = house / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(code)
    found = list(violations(house))
    assert len(found) == 1
    assert found[0].startswith(str(path))
    assert found[0].endswith(words)


ALLOWED = {
    "a room below": ("models/a.py", "from berg.weights import npy_files"),
    "inside a room": ("fitting/a.py", "from berg.fitting import fit_job"),
    "a fit may see recordings": ("families/x/fit.py", "from berg.datasets.dataset import EncodingDataset"),
    "what only a fit needs": ("families/y/training.py", "from berg.fitting import fit_job"),
    "the exception": ("core/model_registry.py", "import_module('berg.families')"),
    "the facade sees all": ("facade.py", "def f():\n    from berg.encoding.stream import encode_to_store"),
    "its own private names": ("fitting/a.py", "import berg\n_here = 1\n_here"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_is_not_found(case, house):
    file, code = ALLOWED[case]
    (house / file).write_text(code)
    assert list(violations(house)) == []
