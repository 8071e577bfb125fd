"""How the site is built; `make docs` does it, without any outside call."""

import os
import re
import sys
import sysconfig
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# Cells that begin with "!berg" find the command of this environment.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])

# PyTorch's progress bars would like to be widgets; the warning would stand on the page.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"

# On a page, each state of a progress bar would be a line. IPython runs what lies in this folder before the first cell.
os.environ["IPYTHONDIR"] = str(Path(__file__).parent / "_build" / "ipython")
startup = Path(os.environ["IPYTHONDIR"], "profile_default", "startup")
startup.mkdir(parents=True, exist_ok=True)
(startup / "no_bars.py").write_text("from berg.system import progress\n\nprogress.shown_by_default = False\n")

project = "BERG"
author = "The BERG developers"
version = release = version_of("berg")
copyright = f"{author}, BSD-3-Clause"

extensions = [
    "executed",
    "explorer",
    "generated_pages",
    "local_math",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "model_figures", "**.ipynb_checkpoints"]  # figures become parts of pages
nitpicky = True
# Types in signatures: those of other packages have no page here, and nor have those that are not public.
nitpick_ignore_regex = [("py:(class|data|type)", ".*")]
smartquotes = False
default_role = "literal"
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # kept by _ext/executed.py as long as nothing changes that it depends on
nb_execution_raise_on_error = False  # a page that fails is named at the end, and costs no other page
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_execution_timeout = 3600  # of one cell, in seconds: for slow machines
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "BERG"
html_static_path = ["_static"]
html_css_files = ["berg.css"]
html_math_renderer = "mathml"
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "BERG"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 5,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {
    name: []
    for name in ("index", "install", "models", "examples/index", "adding_a_model", "command_line", "benchmarks")
}


def shorten_arrays(app, what, name, obj, options, signature, returns):
    """``NDArray[float32]`` as it is written, not what numpy makes of it."""
    written = re.compile(r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[([^\[\]]+)\]\]")
    return tuple(text and written.sub(r"~numpy.typing.NDArray[\1]", text) for text in (signature, returns))


def setup(app):
    app.connect("autodoc-process-signature", shorten_arrays)
