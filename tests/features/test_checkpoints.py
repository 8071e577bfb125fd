import os
import subprocess
import sys

import pytest
import torch

from berg.features.checkpoints import checkpoints_folder


@pytest.mark.parametrize(
    "settings", [{}, {"TORCH_HOME": "/data/torch"}, {"XDG_CACHE_HOME": "~/cache"}, {"TORCH_HOME": "~/t"}]
)
def test_the_folder_is_the_one_of_torch_without_torch(settings, monkeypatch):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    code = (
        "import sys\nfrom berg.features.checkpoints import checkpoints_folder\nprint(checkpoints_folder())\n"
        "print('torch' in sys.modules)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=dict(os.environ)).splitlines()
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    assert printed == [os.path.join(torch.hub.get_dir(), "checkpoints"), "False"]


def test_a_folder_that_a_program_has_set_is_followed(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert checkpoints_folder() == tmp_path / "checkpoints"
