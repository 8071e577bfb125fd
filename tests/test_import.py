import os
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "torchvision", "matplotlib", "xarray", "skimage", "scipy", "sklearn", "pandas", "h5netcdf", "h5py", "zarr",
    "nibabel", "mne", "dask", "PIL", "safetensors", "urllib3", "timm", "transformers", "open_clip", "huggingface_hub",
)  # fmt: skip

# Sockets and opened files are reported by the interpreter itself.
WATCHED = """
import sys
seen = []
def hook(event, arguments):
    if event.startswith("socket."):
        seen.append(event)
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append(f"open {arguments[0]}")
    if event in ("os.mkdir", "os.rename", "os.remove"):
        seen.append(f"{event} {arguments[0]}")
sys.addaudithook(hook)
"""


LIGHT_COMMANDS = (["--help"], ["list"], ["where"], ["describe", "fmri-szinte2024-prf_css"])


def run(code, cwd, home):
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.mark.parametrize(
    "code",
    [
        "import berg",
        "from berg import BERG; assert 'fmri-szinte2024-prf_css' in BERG().list_models()",
        "from berg import BERG; BERG().get_model_catalog()",
        "from berg.core.model_registry import get_card; get_card('fmri-szinte2024-prf_css')",
        "import berg; berg.__version__",
        *(f"from berg.cli.app import main; main({words})" for words in LIGHT_COMMANDS),
    ],
)
def test_looking_around_is_light_and_leaves_no_trace(code, tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    report = f"\nprint(seen)\nprint([name for name in {HEAVY} if name in sys.modules])"
    *_, seen, heavy, _ = run(WATCHED + code + report, here, home)
    assert heavy == "[]"
    assert seen == "[]"
    assert list(home.iterdir()) == list(here.iterdir()) == []


@pytest.mark.parametrize("words", LIGHT_COMMANDS)
def test_a_command_that_only_reads_cards_needs_no_numpy(words, tmp_path):
    code = f"import sys\nfrom berg.cli.app import main\nmain({words})\nprint('numpy' in sys.modules)"
    assert run(code, tmp_path, tmp_path)[-2] == "False"


def test_the_watch_itself_sees_sockets_files_and_packages(tmp_path):
    code = WATCHED + "import socket; socket.socket().close(); open('x', 'w').close(); import xarray\nprint(seen)"
    seen = "\n".join(run(code, tmp_path, tmp_path))
    assert "socket." in seen
    assert "open x" in seen


def test_import_alone_reads_no_card_and_sets_no_filter(tmp_path):
    code = (
        "import warnings, logging, sys\n"
        "def settings(): return list(warnings.filters), logging.root.level, list(logging.root.handlers)\n"
        "before = settings()\nimport berg\nassert settings() == before\n"
        "print('berg.core.model_card' in sys.modules, 'numpy' in sys.modules)"
    )
    assert run(code, tmp_path, tmp_path)[0] == "False False"


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    import berg

    with pytest.raises(AttributeError, match="module 'berg' has no attribute 'Berg'"):
        berg.Berg  # noqa: B018
