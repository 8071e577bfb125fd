"""Population receptive fields on the local contrast of a picture.

    picture -> luminance -> local contrast, on a grid in degrees of visual angle
            -> sum within a Gaussian receptive field -> compressive exponent -> amplitude

The arithmetic is in `berg.features.contrast_energy` and `berg.readouts.prf`.
"""

from __future__ import annotations
