"""BERG, the Brain Encoding Response Generator: pretrained encoding models of the brain.

>>> from berg import BERG
>>> "fmri-szinte2024-prf_css" in BERG().list_models()
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berg.facade import BERG as BERG
    from berg.facade import list_models as list_models
    from berg.facade import load as load
    from berg.server.remote_berg import remote as remote
    from berg.stimuli.films import Film as Film
    from berg.stimuli.films import convert_film as convert_film
    from berg.stimuli.films import load_film as load_film
    from berg.stimuli.images import load_images as load_images
    from berg.stimuli.videos import load_video as load_video

__all__ = [
    "BERG",
    "Film",
    "__version__",
    "convert_film",
    "list_models",
    "load",
    "load_film",
    "load_images",
    "load_video",
    "remote",
]


def __getattr__(name: str) -> Any:
    # Imported when first asked for: `import berg` and `berg --help` need none of them.
    if name in ("BERG", "list_models", "load"):
        from berg import facade

        return getattr(facade, name)
    if name == "remote":
        from berg.server.remote_berg import remote

        return remote
    if name == "load_images":
        from berg.stimuli.images import load_images

        return load_images
    if name in ("Film", "convert_film", "load_film"):
        from berg.stimuli import films

        return getattr(films, name)
    if name == "load_video":
        from berg.stimuli.videos import load_video

        return load_video
    if name == "__version__":
        from importlib.metadata import version

        return version("berg")
    raise AttributeError(f"module 'berg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__doc__", "__file__", "__name__", "__path__"])
