"""Squares of photographs, and pictures unlike any photograph: noise, scrambled phases, line drawings, textures."""

import numpy as np
from PIL import Image
from skimage import color, data, filters

PIXELS, N_NEW = 64, 60
KINDS = ["noise", "phases", "lines", "texture"]


def crops(photographs, n, seed):
    rng, found = np.random.default_rng(seed), []
    for number in range(n):
        photograph = photographs[number % len(photographs)]
        photograph = photograph if photograph.ndim == 3 else np.repeat(photograph[..., None], 3, 2)
        side = int(min(photograph.shape[:2]) * rng.uniform(0.5, 1))
        top, left = (rng.integers(0, length - side + 1) for length in photograph.shape[:2])
        part = Image.fromarray(photograph[top : top + side, left : left + side])
        found.append(np.asarray(part.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)))
    return np.stack(found).transpose(0, 3, 1, 2)


def unusual(kind, photographs):
    rng = np.random.default_rng(3)
    if kind == "noise":
        return rng.integers(0, 256, (N_NEW, 3, PIXELS, PIXELS), np.uint8)
    if kind == "texture":
        return crops([data.brick(), data.grass(), data.gravel()], N_NEW, seed=4)
    if kind == "lines":
        edges = np.stack([filters.sobel(color.rgb2gray(picture.transpose(1, 2, 0))) for picture in photographs])
        lines = np.where(edges > np.quantile(edges, 0.88, (1, 2), keepdims=True), 0, 255)
        return np.repeat(lines[:, None], 3, 1).astype(np.uint8)
    spectra = np.fft.fft2(photographs.astype(float))
    phases = np.angle(np.fft.fft2(rng.normal(size=(N_NEW, 1, PIXELS, PIXELS))))
    return np.clip(np.fft.ifft2(np.abs(spectra) * np.exp(1j * (np.angle(spectra) + phases))).real, 0, 255).astype(
        np.uint8
    )
