"""The documentation site: every page is reached, and what is built needs no network."""

import ast
import pkgutil
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

import berg.responses
from berg import BERG
from berg.core import model_registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {"_build", "model_figures", "models", "parts", "recipes"}
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "use": "href"}


def pages(folder=DOCS):
    """Every page written by hand, as a path in docs/ without its ending."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".md", ".rst", ".ipynb")]
    return {path.with_suffix("").as_posix() for path in paths if path.parts[0] not in GENERATED}


def entries(text):
    """What the tables of contents on a page name."""
    for options in re.findall(r"(?:```\{toctree\}|\.\. toctree::)\n(.*?)(?:```|\Z)", text, re.DOTALL):
        lines = [line.strip() for line in options.splitlines()]
        found = (line for line in lines if line and not line.startswith(":"))
        yield from (re.sub(r".* <(.*)>", r"\1", line) for line in found)


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


def test_every_example_can_be_downloaded_and_the_others_are_five_entries_on_top():
    examples = {path.stem: path.read_text("utf-8") for path in (DOCS / "examples").glob("*.md") if path.stem != "index"}
    assert len(examples) > 8
    for name, text in examples.items():
        assert f"{{nb-download}}`Download this notebook <{name}.ipynb>`" in text
        assert "```{code-cell}" in text
        assert f":link: {name}\n" in (DOCS / "examples" / "index.md").read_text("utf-8")
    top = list(entries((DOCS / "index.md").read_text("utf-8")))
    assert top == ["install", "guide", "models", "examples/index", "api/index"]


def test_every_built_in_model_has_a_figure_to_copy():
    built_in = {
        card.model_id for card in model_registry.readable_cards() if card.files and card.files.store == "built_in"
    }
    assert len(built_in) > 1
    assert built_in == {path.stem for path in (DOCS / "model_figures").glob("*.md")}


def test_every_extra_is_on_the_install_page():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    shown = re.findall(r"^\| `\"\.\[(\w+)\]\"`", (DOCS / "install.md").read_text("utf-8"), re.MULTILINE)
    assert set(shown) == set(extras) - {"dev", "docs"}


SMALL_SITE = """
import sys
from pathlib import Path
sys.path.insert(0, {ext!r})
import executed
executed.CACHE = Path({cache!r})
from sphinx.cmd.build import main
options = {{"extensions": "executed,myst_nb", "nb_execution_mode": "cache", "nb_execution_raise_on_error": "0"}}
given = [word for pair in options.items() for word in ("-D", "=".join(pair))]
sys.exit(main(["-C", "-E", "-q", "-W", "--keep-going", *given, "-b", "html", {source!r}, {built!r}]))
"""


def notebook(code):
    kernel = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: Python 3}\n---\n"
    return f"{kernel}# Page\n\n```{{code-cell}} ipython3\n{code}\n```\n"


@pytest.mark.slow
def test_a_page_that_fails_is_named_last_and_costs_no_other_and_what_ran_is_not_run_again(tmp_path):
    pytest.importorskip("myst_nb", reason="make docs installs it")
    source, built, runs = tmp_path / "site", tmp_path / "out" / "html", tmp_path / "runs"
    source.mkdir()
    (source / "index.md").write_text("# A\n\n```{toctree}\nbad\ngood\n```\n")
    (source / "bad.md").write_text(notebook("1 / 0"))
    (source / "good.md").write_text(notebook(f"with open({str(runs)!r}, 'a') as f: f.write('x')\nprint(6 * 7)"))
    program = SMALL_SITE.format(
        ext=str(DOCS / "_ext"), cache=str(tmp_path / "kept"), source=str(source), built=str(built)
    )

    def build():
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)

    for _ in range(2):
        done = build()
        assert done.returncode == 1, done.stderr
        assert re.search(r"bad\.md.*code of this page failed: ZeroDivisionError", done.stderr.strip().splitlines()[-1])
        assert "42" in (built / "good.html").read_text("utf-8")
    assert runs.read_text() == "x"
    (source / "bad.md").write_text(notebook("1 / 1"))
    assert build().returncode == 0


def test_what_was_run_is_kept_until_the_package_changes(tmp_path, monkeypatch):
    pytest.importorskip("sphinx", reason="make docs installs it")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    from executed import fingerprint

    (tmp_path / "berg" / "__pycache__").mkdir(parents=True)
    (tmp_path / "berg" / "a.py").write_text("1")
    first = fingerprint(tmp_path)
    (tmp_path / "berg" / "__pycache__" / "a.pyc").write_text("anything")
    assert fingerprint(tmp_path) == first
    (tmp_path / "berg" / "a.py").write_text("2")
    assert fingerprint(tmp_path) != first


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


def test_the_accuracy_of_a_built_in_model_runs_on_its_page(monkeypatch):
    pytest.importorskip("sphinx", reason="make docs installs it")
    pytest.importorskip("networkx", reason="make docs installs it")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    import matplotlib
    from generated_pages import accuracy, is_built_in

    matplotlib.use("agg")
    cards = [card for card in model_registry.readable_cards() if is_built_in(card)]
    assert len(cards) > 1
    for card in cards:
        (cell,) = re.findall(r"```\{code-cell\} ipython3\n---\n.*?---\n(.*?)```", accuracy(card), re.DOTALL)
        exec(compile(cell, card.model_id, "exec"), {"toolkit": BERG()})
        matplotlib.pyplot.close("all")


def test_the_size_of_a_download_is_told_or_said_to_be_unknown(monkeypatch):
    pytest.importorskip("sphinx", reason="make docs installs it")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    from generated_pages import is_built_in, where

    words = {card.model_id: where(card) for card in model_registry.readable_cards() if card.files}
    to_download = [text for model_id, text in words.items() if text.startswith("to be downloaded")]
    assert len(to_download) > 5
    assert all(re.fullmatch(r"to be downloaded, (size not known|[\d.,]+ [kMGT]?B)", text) for text in to_download)
    built_in = [words[card.model_id] for card in model_registry.readable_cards() if is_built_in(card)]
    assert all(re.fullmatch(r"built in, [\d,]+ kB", text) for text in built_in)
