"""Where PyTorch keeps the weights of pretrained networks; found without importing PyTorch, which takes seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def checkpoints_folder() -> Path:
    """The folder of `torch.hub` for weights.

    As PyTorch documents it: below ``$TORCH_HOME``, or ``torch`` in the user's cache folder (``$XDG_CACHE_HOME``), if a
    program has not set another with ``torch.hub.set_dir``.
    """
    if (hub := sys.modules.get("torch.hub")) is not None:
        return Path(hub.get_dir()) / "checkpoints"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))
    return home.expanduser() / "hub" / "checkpoints"
