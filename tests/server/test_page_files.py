"""The page as files: nothing from elsewhere, the colours of Python, what was vendored as it came."""

import hashlib
import json
import re

import matplotlib
import numpy as np
import pytest

from berg.server.app import PAGE

OWN = sorted(path for path in PAGE.iterdir() if path.is_file())
VENDORED = sorted(PAGE.glob("vendor/*/vendored.json"))


def test_the_first_load_is_small():
    sizes = [path.stat().st_size for path in PAGE.rglob("*") if path.is_file()]
    assert sum(sizes) <= 3_500_000
    assert sum(path.stat().st_size for path in OWN) <= 150_000


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_names_nothing_elsewhere(path):
    addresses = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"']*", path.read_text("utf-8"))
    assert [own for own in addresses if own != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("path", [own for own in OWN if own.suffix == ".js"], ids=lambda path: path.name)
def test_what_a_module_imports_is_there_and_exported(path):
    for names, module in re.findall(r"import \{([^}]*)\} from \"\./([\w.]+)\"", path.read_text("utf-8")):
        exported = re.findall(r"export (?:async )?(?:function|class|const) (\w+)", (PAGE / module).read_text("utf-8"))
        wanted = {name.split(" as ")[0].strip() for name in names.split(",") if name.strip()}
        assert wanted <= set(exported), module


def test_no_markup_is_made_of_text():
    for path in OWN:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text("utf-8"))


@pytest.mark.parametrize("path", VENDORED, ids=lambda path: path.parent.name)
def test_what_is_vendored_is_as_it_came_with_its_licence(path):
    facts = json.loads(path.read_text("utf-8"))
    assert hashlib.sha256((path.parent / facts["file"]).read_bytes()).hexdigest() == facts["sha256"]
    assert facts["licence"] == "BSD-2-Clause"
    assert "Redistributions in binary form" in (path.parent / "LICENSE").read_text("utf-8")
    assert path.parent.name == f"{facts['name'].split('/')[1]}-{facts['version']}"


@pytest.mark.parametrize("name", ["RdBu_r", "magma"])
def test_colours_are_those_of_the_figures_in_python(name):
    table = re.sub(r'["\s+]', "", (PAGE / "colour_maps.js").read_text("utf-8"))
    digits = re.search(rf"{name}:([0-9a-f]+)", table)[1]
    stops = np.array([[int(digits[i + k : i + k + 2], 16) for k in (0, 2, 4)] for i in range(0, len(digits), 6)])
    shares = np.linspace(0, 1, 101)
    ours = np.stack([np.interp(shares, np.linspace(0, 1, len(stops)), stops[:, k]) for k in range(3)], axis=1)
    theirs = matplotlib.colormaps[name](shares)[:, :3] * 255
    np.testing.assert_allclose(ours, theirs, atol=2.5)  # of 255: Matplotlib mixes no colours, it has 256
