"""``berg where``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berg.cli.json_output import Json, print_json
from berg.core import settings
from berg.features.checkpoints import checkpoints_folder


def where(*, json: Json = False, berg_dir: Path | None = None) -> None:
    """Print where files lie and where they come from, and what says so.

    Parameters
    ----------
    json
        Print it as JSON.
    berg_dir
        The BERG directory, if it is not the one of the settings.
    """
    directory, source, networks = settings.berg_dir(berg_dir), settings.source(), settings.network_source()
    if json:
        print_json(_as_json(directory, source, networks))
        return
    there = "" if directory.value.is_dir() else ", not there yet"
    print(f"BERG directory  {directory.value}  ({directory.origin}{there})")
    print(f"source          {settings.without_secrets(source.value)}  ({source.origin})")
    mirror = f"{settings.without_secrets(networks.value)}  ({networks.origin})" if networks else "their publishers"
    print(f"networks from   {mirror}")
    print(f"networks in     {checkpoints_folder()}")
    offline = settings.offline()
    print(f"offline         {'yes' if offline.value else 'no'}  ({offline.origin})")
    print(f"configuration   {settings.configuration_path()}")


def _as_json(
    directory: settings.Setting[Path], source: settings.Setting[str], networks: settings.Setting[str] | None
) -> dict[str, Any]:
    offline = settings.offline()
    mirror = networks and {"value": settings.without_secrets(networks.value), "origin": networks.origin}
    return {
        "berg_dir": {"value": directory.value, "origin": directory.origin, "exists": directory.value.is_dir()},
        "source": {"value": settings.without_secrets(source.value), "origin": source.origin},
        "network_source": mirror,
        "networks": checkpoints_folder(),
        "offline": {"value": offline.value, "origin": offline.origin},
        "configuration": settings.configuration_path(),
    }
