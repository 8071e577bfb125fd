"""The documentation site: every page is reached, and what is built needs no network."""

import ast
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import berg.responses
from berg import BERG

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {"_build", "models", "parts", "recipes"}
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "use": "href"}


def pages(folder=DOCS):
    """Every page written by hand, as a path in docs/ without its ending."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".md", ".rst", ".ipynb")]
    return {path.with_suffix("").as_posix() for path in paths if path.parts[0] not in GENERATED}


def entries(text):
    """What the tables of contents on a page name."""
    for options in re.findall(r"(?:```\{toctree\}|\.\. toctree::)\n(.*?)(?:```|\Z)", text, re.DOTALL):
        lines = [line.strip() for line in options.splitlines()]
        yield from (line for line in lines if line and not line.startswith(":"))


def in_a_table_of_contents(folder=DOCS):
    for page in pages(folder):
        path = next(path for path in folder.glob(f"{page}.*") if path.suffix in (".md", ".rst"))
        yield from ((path.parent / entry).relative_to(folder).as_posix() for entry in entries(path.read_text("utf-8")))


def test_every_page_is_in_exactly_one_table_of_contents():
    named = list(in_a_table_of_contents())
    assert len(named) > 15
    assert pages() | {"models/*", "recipes/*"} == {*named, "index"}
    assert len(set(named)) == len(named)


def test_a_page_that_nobody_names_is_seen(tmp_path):
    (tmp_path / "index.md").write_text("# A\n\n```{toctree}\n:hidden:\n\nnamed\n```\n")
    (tmp_path / "named.rst").write_text("B\n=\n")
    (tmp_path / "lost.md").write_text("# C\n")
    assert pages(tmp_path) - set(in_a_table_of_contents(tmp_path)) == {"index", "lost"}


def public_modules(package):
    """Modules of a package that have a public function or class with a docstring."""
    for module in pkgutil.iter_modules(package.__path__):
        tree = ast.parse(Path(package.__path__[0], f"{module.name}.py").read_text("utf-8"))
        if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_" for node in tree.body):
            yield f"{package.__name__}.{module.name}"


def test_every_way_to_keep_responses_is_in_the_reference():
    text = (DOCS / "api" / "responses.rst").read_text("utf-8")
    modules = set(public_modules(berg.responses))
    assert len(modules) > 4
    assert modules == set(re.findall(r"automodule:: (\S+)", text))


def test_every_benchmark_is_named():
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert len(scripts) > 3
    assert scripts == set(re.findall(r"^\| `(\w+\.py)`", (DOCS / "benchmarks.md").read_text("utf-8"), re.MULTILINE))


class Loaded(HTMLParser):
    """Addresses that a browser fetches for a page, and pictures without a text in their place."""

    def __init__(self):
        super().__init__()
        self.addresses, self.without_alt = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if address := attributes.get(LOADED.get(tag, "")):
            self.addresses.append(address)
        if tag == "img" and not (attributes.get("alt") or "").strip():
            self.without_alt.append(attributes.get("src"))


def read(text):
    parser = Loaded()
    parser.feed(text)
    return parser


def outside(text):
    """Addresses in a page or a style sheet that lead out of the site when it is looked at."""
    styles = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", text)
    return [*styles, *(address for address in read(text).addresses if re.match(r"(https?:)?//", address))]


@pytest.mark.parametrize(
    "text",
    [
        '<script async src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        '<img alt="a" src="http://example/a.png">',
        "@font-face { src: url('https://fonts.example/a.woff2') }",
        '@import "https://example/a.css";',
    ],
)
def test_an_outside_address_is_seen(text):
    assert len(outside(text)) == 1


def test_links_that_are_only_followed_by_a_click_are_none():
    assert outside('<a href="https://example">a</a><script src="_static/a.js"></script>') == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, as `make docs` builds it."""
    pytest.importorskip("sphinx", reason="make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    command = ["sphinx", "-E", "-q", "-n", "-W", "--keep-going", "-b", "html", "-d", folder / "trees", DOCS, folder]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.slow
def test_the_site_has_a_page_for_every_model_with_what_its_card_says(site):
    models = BERG().list_models()
    assert len(models) >= 2
    assert {path.stem for path in (site / "models").glob("*.html")} == set(models)
    overview = (site / "models.html").read_text("utf-8")
    assert all(f'href="models/{model}.html"' in overview for model in models)
    page = (site / "models" / "fmri-szinte2024-prf_css.html").read_text("utf-8")
    assert "min_held_out_r2" in page
    assert "<th" not in page  # the tables of a card have no heads


@pytest.mark.slow
def test_the_site_has_every_verb_and_what_the_cells_gave(site):
    from berg.cli.app import app

    text = (site / "command_line.html").read_text("utf-8")
    verbs = [verb for verb in app if not verb.startswith("-")]
    assert len(verbs) > 5
    assert all(f'id="berg-{verb}"' in text for verb in verbs)
    quickstart = (site / "quickstart.html").read_text("utf-8")
    assert "Responses of fmri-szinte2024-prf_css to 2 pictures: from_the_shell.nc" in quickstart
    assert "Did you mean" in quickstart
    assert "Traceback" not in quickstart


@pytest.mark.slow
def test_nothing_on_the_site_comes_from_outside_and_every_picture_has_a_text(site):
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    texts = {path: path.read_text("utf-8") for path in files}
    assert len(texts) > 25
    assert {path.name: outside(text) for path, text in texts.items() if outside(text)} == {}
    assert {path.name: found for path, text in texts.items() if (found := read(text).without_alt)} == {}


@pytest.mark.slow
def test_formulas_are_mathml(site):
    text = (site / "api" / "equations.html").read_text("utf-8")
    assert text.count("<math") > 5
    assert "mathjax" not in text.lower()
