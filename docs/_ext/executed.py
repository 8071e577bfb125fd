"""Code of pages is run once and kept; a page whose code fails is named at the end and costs no other page.

What is kept belongs to one state of everything that it may depend on: the package, the recipes, the versions of what
is installed. Any change starts anew, so that no page shows what an older version gave.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from sphinx.util import logging

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "docs" / "_build" / "executed"
LOG = logging.getLogger(__name__)


def fingerprint(root: Path = ROOT) -> str:
    """The hash of all that the code of a page may depend on."""
    digest = hashlib.sha256()
    for path in sorted(files(root)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    installed = sorted(f"{found.name}=={found.version}" for found in distributions())
    digest.update("\n".join(installed).encode())
    return digest.hexdigest()[:16]


def files(root: Path) -> Iterator[Path]:
    """The files of the package, the recipes and the examples."""
    for folder in ("berg", "recipes", "examples"):
        paths = (root / folder).rglob("*")
        yield from (path for path in paths if path.is_file() and not {"__pycache__", "build"} & set(path.parts))


def use_cache(app, config) -> None:
    """Keep what is run under the fingerprint, and drop what was kept under another one."""
    folder = CACHE / fingerprint()
    for older in CACHE.glob("*"):
        if older != folder:
            shutil.rmtree(older)
    config.nb_execution_cache_path = str(folder)


def failures(env) -> dict[str, str]:
    """Pages whose code failed, with the last line of the error."""
    metadata = getattr(env, "nb_metadata", {})
    ran = {page: data["exec_data"] for page, data in metadata.items() if data.get("exec_data")}
    return {page: last_line(done) for page, done in sorted(ran.items()) if not done["succeeded"]}


def last_line(done) -> str:
    text = done.get("traceback") or str(done.get("error") or "")
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).strip().splitlines()  # without its colours
    return lines[-1] if lines else "no reason given"


def tell(app, exception) -> None:
    """The times of the pages, and the failed ones last, where they are seen."""
    if exception is not None:
        return
    metadata = getattr(app.env, "nb_metadata", {})
    seconds = {page: data["exec_data"]["runtime"] for page, data in metadata.items() if data.get("exec_data")}
    LOG.info("pages run: %d, %.0f s of code", len(seconds), sum(second or 0 for second in seconds.values()))
    for page, reason in failures(app.env).items():
        LOG.warning("The code of this page failed: %s (all others are built)", reason, location=page, type="executed")


def setup(app):
    app.connect("config-inited", use_cache, priority=100)
    app.connect("build-finished", tell, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
