"""``berg where``"""

from __future__ import annotations

from pathlib import Path

from berg.core import settings
from berg.features.checkpoints import checkpoints_folder


def where(*, berg_dir: Path | None = None) -> None:
    """Print where files lie and where they come from, and what says so.

    Parameters
    ----------
    berg_dir
        The BERG directory, if it is not the one of the settings.
    """
    directory, source, networks = settings.berg_dir(berg_dir), settings.source(), settings.network_source()
    there = "" if directory.value.is_dir() else ", not there yet"
    print(f"BERG directory  {directory.value}  ({directory.origin}{there})")
    print(f"source          {settings.without_secrets(source.value)}  ({source.origin})")
    mirror = f"{settings.without_secrets(networks.value)}  ({networks.origin})" if networks else "their publishers"
    print(f"networks from   {mirror}")
    print(f"networks in     {checkpoints_folder()}")
    offline = settings.offline()
    print(f"offline         {'yes' if offline.value else 'no'}  ({offline.origin})")
    print(f"configuration   {settings.configuration_path()}")
