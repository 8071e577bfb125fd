"""The line of the user's code that a warning points at."""

from __future__ import annotations

import sys

_PASSED = {"berg", "torch", "contextlib", "concurrent", "threading"}
"""This package, and what stands between its own frames: modules of PyTorch, ``@contextmanager``, threads."""


def users_stacklevel() -> int:
    """The ``stacklevel`` that makes `warnings.warn` point at the caller of the package.

    The number of frames from the function that warns to the first frame outside the package, however many functions
    lie between them. ``skip_file_prefixes`` of Python 3.12 does the same.

    Returns
    -------
    stacklevel
        1, the function that warns, in a thread that the package has started: no line of the user is in it.
    """
    frame, stacklevel = sys._getframe(1), 1
    while frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        if frame.f_back is None:
            return 1
        frame, stacklevel = frame.f_back, stacklevel + 1
    return stacklevel
