"""``berg unpack``"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from berg.facade import BERG
from berg.system.memory import size_words
from berg.weights.unpack import Unpacked, UnverifiedFilesWarning


def unpack(file: Path, *, overwrite: bool = False, berg_dir: Path | None = None) -> None:
    """Put the models of a zip file into the BERG directory: all of it, verified, or nothing.

    Parameters
    ----------
    file
        A zip file that berg pack wrote, or one made by hand after the guide.
    overwrite
        Replace files that are there with another content.
    berg_dir
        The BERG directory; made if it is not there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnverifiedFilesWarning)  # said in our own words below
        unpacked = BERG(berg_dir).unpack(file, overwrite=overwrite)
    for name in unpacked.left_out:
        print(f"left out: {name}", file=sys.stderr)
    _print_report(unpacked)


def _print_report(unpacked: Unpacked) -> None:
    for model_id, folder in unpacked.folders.items():
        written = [path for path in unpacked.written if path.is_relative_to(folder)]
        there = sum(path.is_relative_to(folder) for path in unpacked.same)
        size = sum(path.stat().st_size for path in written)
        print(f"{model_id}: {len(written)} files ({size_words(size)}) written, {there} were there already: {folder}")
        if model_id in unpacked.unverified:
            print(
                f"NOT VERIFIED: {model_id} came without a manifest.tsv, so nobody can say whether these are the files "
                "that were packed. Ask for a zip file written by berg pack.",
                file=sys.stderr,
            )
