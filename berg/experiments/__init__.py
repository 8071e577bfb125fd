"""In silico experiments: functions on labelled responses or on models, results as xarray.

Every result is an `xarray.Dataset` that says in its attributes of which models, selections and stimuli it is, with
which parameters, seed and version it was made; `draw` makes its figure, `save` writes it, `open_result` reads it.

>>> from berg import experiments
>>> "draw" in dir(experiments)
True
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "as_rdm": "dissimilarity_matrices",
    "attribute": "attribution",
    "cka": "alignment",
    "commonality": "commonalities",
    "compare": "vivo_comparison",
    "draw": "result",
    "driving_pictures": "picture_choice",
    "flag": "familiarity_of_pictures",
    "fusion": "fusion_in_time",
    "in_vivo_design": "vivo_design",
    "in_vivo_power": "vivo_power",
    "localise": "localisers",
    "map_receptive_fields": "receptive_field_map",
    "matched_sets": "picture_choice",
    "multivariate_control": "control_multivariate",
    "open_result": "result",
    "optimise": "optimisation",
    "partition": "partitioning",
    "rdms": "dissimilarity_matrices",
    "rsa": "similarity_analysis",
    "save": "result",
    "similar_pictures": "picture_choice",
    "tuning": "tuning_curves",
    "univariate_control": "control_univariate",
}
"""The public functions, and the file of each; a file is imported when one of its functions is first asked for."""

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'berg.experiments' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_WHERE, "__doc__", "__file__", "__name__", "__path__"])
