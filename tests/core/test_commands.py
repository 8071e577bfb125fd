"""Commands that errors advise, with all that was given."""

import pytest

from berg.core.commands import download_command, evaluate_command
from berg.core.model_registry import get_card


@pytest.mark.parametrize("berg_dir", ["/data/my models", None])
def test_an_advised_command_has_subject_selection_and_directory(berg_dir):
    card, values = get_card("fmri-nsd-fwrf"), {"subject": 3, "roi": "V2"}
    directory = "" if berg_dir is None else " --berg-dir '/data/my models'"
    downloaded = f"berg download fmri-nsd-fwrf --subject 3 --selection roi=V2{directory}"
    assert download_command(card, berg_dir, values) == downloaded
    evaluated = f"berg evaluate fmri-nsd-fwrf --data FOLDER --subject 3{directory}"
    assert evaluate_command(card, berg_dir, values) == evaluated
