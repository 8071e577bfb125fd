"""docs/adding_a_model.md, done: each section in a checkout of its own, with a Python of its own."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from itertools import groupby
from pathlib import Path
from textwrap import dedent

import pytest
from marks import slow

import berg

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding_a_model.md").read_text("utf-8")
PLUGIN = ROOT / "examples" / "berg-example-plugin"
SECTIONS = {text.split("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)}
CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
RUN = """
    import json, runpy, shlex, sys
    import berg, pytest
    from berg.cli.app import main
    assert berg.__file__.startswith({checkout!r}), berg.__file__
    for kind, text in json.load(sys.stdin):
        command, *words = [""] if kind == "python" else shlex.split(text)
        if kind == "python":
            exec(compile(text, "adding_a_model.md", "exec"), {{"__name__": "__main__"}})
        elif words[:2] == ["-m", "pytest"]:
            assert pytest.main(words[2:]) == 0
        elif command == "python":
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        else:
            assert command == "berg", text
            main(words)
"""


def blocks(text):
    """The language, the file name (or None) and the text of each fenced block."""
    for language, content in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        named = re.match(r"# (\S+/\S+\.\w+)\n", content)
        yield language, named and named[1], content


class Checkout:
    """A copy of the package and of the example, and an environment where pip may install into."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(Path(berg.__file__).parent, folder / "berg", ignore=CACHES)
        shutil.copytree(PLUGIN, folder / "examples" / PLUGIN.name, ignore=CACHES)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
        paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        installed = Path(sysconfig.get_path("purelib", vars=paths))
        # What is installed beside these tests is seen here too, and not copied.
        (installed / "tests.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")

    def python(self, *words, stdin=""):
        done = subprocess.run(
            [self.folder / "venv" / "bin" / "python", *words],
            cwd=self.folder, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.folder), "HOME": str(self.folder)},
            input=stdin, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def pip(self, command, *words):
        offline = ["--no-deps", "--no-build-isolation", "--no-index"] if command == "install" else []
        self.python("-m", "pip", "--quiet", "--disable-pip-version-check", command, *offline, *words)

    def run(self, items):
        """What Python blocks and lines of the shell print."""
        return self.python("-c", dedent(RUN).format(checkout=str(self.folder)), stdin=json.dumps(items))


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def work_through(checkout, section):
    """Write the files of a section, then run its blocks in their order; what they print, by line of the shell."""
    items = []
    for language, name, text in blocks(section):
        if name and not name.startswith("examples/"):
            (checkout.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout.folder / name).write_text(text)
        elif language == "python":
            items.append(("python", text))
        elif language == "bash":
            items += [("bash", line.partition("#")[0]) for line in text.splitlines()]
    printed = []
    for is_pip, group in groupby(items, lambda item: item[1].startswith("pip ")):
        if not is_pip:
            printed.append(checkout.run(list(group)))
            continue
        for _, line in group:
            checkout.pip(*shlex.split(line)[1:])
    return printed


def test_the_page_begins_with_the_table_of_ways():
    assert re.match(r"# .*\n\n\| your model \| way \|", PAGE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in SECTIONS}
    links = re.findall(r"\]\(#([\w-]+)\)", PAGE)
    assert len(links) == 4
    assert set(links) <= anchors
    assert not re.search(r"</?[a-z]+[ >]", re.sub(r"```.*?```|`[^`\n]*`", "", PAGE, flags=re.DOTALL))  # no HTML


@pytest.mark.slow
def test_new_writes_drafts(checkout):
    (explained,) = work_through(checkout, next(iter(SECTIONS.values())))
    assert "--family" in explained
    card = (checkout.folder / "drafts" / "fmri-example-prf.yaml").read_text()
    assert "family: prf\n" in card
    assert "TODO" in card
    assert (checkout.folder / "drafts" / "berg-meg-example-linear" / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("way", "model_id"),
    [slow("Way 1", "fmri-example-prf"), slow("Way 2", "eeg-example-grid"), ("Way 3", "meg-guide-sensors")],
)
def test_a_way_in_a_checkout(way, model_id, checkout):
    section = next(text for title, text in SECTIONS.items() if title.startswith(way))
    printed = "".join(work_through(checkout, section))
    assert model_id in printed or way == "Way 3"
    assert (checkout.folder / "my-berg-dir" / "encoding_models").is_dir()


@pytest.mark.slow
def test_a_plug_in_is_installed_used_and_uninstalled(checkout):
    (used,) = work_through(checkout, SECTIONS[way_4()])
    assert "eeg-example-grid" in used
    assert "eeg-example-grid" not in checkout.run([("bash", "berg list")])


@pytest.mark.slow
def test_the_commands_of_the_example_work(checkout):
    readme = (PLUGIN / "README.md").read_text("utf-8")
    folder = f"examples/{PLUGIN.name}"
    from_above = readme.replace("pip install .", f"pip install {folder}").replace(
        "pytest tests", f"pytest {folder}/tests"
    )
    (used,) = work_through(checkout, from_above)
    assert "1 passed" in used


@pytest.mark.slow
def test_a_broken_plug_in_is_listed_with_its_reason_and_the_other_works(checkout):
    broken = checkout.folder / "examples" / "broken"
    shutil.copytree(PLUGIN, broken, ignore=CACHES)
    for path in (broken / "pyproject.toml", *broken.rglob("*.yaml")):
        path.write_text(path.read_text().replace("example", "broken"))
    (broken / "src" / "berg_example_plugin").rename(broken / "src" / "berg_broken_plugin")
    (broken / "src" / "berg_broken_plugin" / "__init__.py").write_text("import no_such_package\n")
    checkout.pip("install", broken, checkout.folder / "examples" / PLUGIN.name)
    encode = """
        import numpy as np
        from berg import BERG
        assert BERG().encode("eeg-example-grid", np.ones((2, 3, 8, 8), "uint8")).shape == (2, 3)
    """
    printed = checkout.run([("bash", "berg list"), ("python", dedent(encode))])
    reason = "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"
    assert f"left out: broken (berg_broken_plugin) {reason}" in printed
    assert "eeg-example-grid" in printed
    assert "fmri-szinte2024-prf_css" in printed


def test_the_page_shows_the_files_that_are_tested_elsewhere():
    shown = {name: text for _, name, text in blocks(PAGE) if name}
    assert len(shown) == 6
    guide = ROOT / "tests" / "guide"
    for name in ("meg/sensors.py", "model_cards/meg-guide-sensors.yaml"):
        assert shown[f"berg/models/{name}"] == (guide / name).read_text("utf-8")
    source = PLUGIN / "src" / "berg_example_plugin"
    assert without_name(shown["berg/families/grid/model.py"]) == (source / "grid.py").read_text("utf-8")
    toml = "examples/berg-example-plugin/pyproject.toml"
    assert without_name(shown[toml]) == (ROOT / toml).read_text("utf-8")
    card = (source / "model_cards" / "eeg-example-grid.yaml").read_text("utf-8")
    (differing,) = [text for language, name, text in blocks(SECTIONS[way_4()]) if language == "yaml" and not name]
    family, _, store = differing.splitlines(keepends=True)
    own = without_name(shown["berg/models/model_cards/eeg-example-grid.yaml"])
    assert card.replace(family, "family: grid\n").replace(store, "") == own


def way_4():
    return next(title for title in SECTIONS if title.startswith("Way 4"))


def without_name(text):
    return text.split("\n", 1)[1]


def test_the_example_holds_what_its_script_makes(tmp_path):
    subprocess.run([sys.executable, PLUGIN / "make_weights.py", tmp_path], check=True, timeout=60)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    cards = PLUGIN / "src" / "berg_example_plugin" / "model_cards"
    assert len(made) == 2
    assert made == {path: (cards / path).read_bytes() for path in made}
