"""Labelled responses that tests of experiments share."""

import numpy as np
import xarray as xr


def labelled(values, model="fmri-a-b", subject=1, times=None):
    """Responses (stimuli, units) or (stimuli, channels, times)."""
    dims = ("stimulus", "voxel") if values.ndim == 2 else ("stimulus", "channel", "time")
    names = [f"picture {number}" for number in range(len(values))]
    coordinates = {"stimulus": names} | ({} if times is None else {"time": times})
    return xr.Dataset({"responses": (dims, values)}, coordinates, {"model_id": model, "subject": subject})


def mixed(features, n_units, rng):
    """Units that weight features at random, so that the geometry stays."""
    return features @ rng.normal(size=(features.shape[-1], n_units)) / np.sqrt(n_units)
