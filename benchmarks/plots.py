"""Figures of this package beside those of nilearn and MNE-Python, in one process, in turns.

python benchmarks/plots.py
python benchmarks/plots.py --repeats 5

Each figure is made and drawn into a picture of 150 dots per inch; the fastest of the repeats counts, in seconds of the
processor. Importing, and what is done once in a process (reading the mesh, the first interpolation), is in the first
repeat alone, and printed by itself. The surfaces are fsaverage5 on both sides, the sensors 63 electrodes.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_NAMES = """
    Fp1 F3 F7 FT9 FC5 FC1 C3 T7 TP9 CP5 CP1 Pz P3 P7 O1 Oz O2 P4 P8 TP10 CP6 CP2 Cz C4 T8 FT10 FC6 FC2 F4 F8 Fp2 AF7
    AF3 AFz F1 F5 FT7 FC3 FCz C1 C5 TP7 CP3 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2 CPz CP4 TP8 C6 C2 FC4 FT8 F6 F2 AF4 AF8
"""
CHANNELS = tuple(_NAMES.split())
TIMES = np.round(np.linspace(-0.1, 0.595, 140), 6)
TEN = np.linspace(0, 0.45, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    start = time.process_time()
    import berg.plotting as ours

    print(f"import berg.plotting  {time.process_time() - start:.2f} s")
    start = time.process_time()
    import mne
    import nilearn.plotting as theirs

    mne.viz.plot_topomap  # noqa: B018  imported when it is looked at
    print(f"import nilearn.plotting and mne.viz  {time.process_time() - start:.2f} s")
    vertices, sensors = vertex_responses(), sensor_responses()
    print(f"{'figure':44s} {'first':>7s} {'ours':>7s} {'first':>7s} {'theirs':>7s} {'ratio':>6s}")
    rows = [
        ("two hemispheres from four sides, nilearn", lambda: ours.surface(vertices), lambda: nilearn_surfaces(theirs)),
        ("both flat maps, nilearn", lambda: ours.flatmap(vertices), lambda: nilearn_surfaces(theirs, ("flat",))),
        ("ten maps of the head, MNE", lambda: ours.topomap(sensors, times=TEN), lambda: mne_maps(mne)),
        ("lines and three maps, MNE", lambda: ours.joint(sensors), lambda: mne_joint(mne)),
    ]
    for name, own, other in rows:
        compare(name, own, other, repeats)


def compare(name: str, own: Callable[[], Any], other: Callable[[], Any], repeats: int) -> None:
    """Both in turns; the first time and the best."""
    times = np.array([[seconds(own), seconds(other)] for _ in range(repeats)])
    (first, their_first), (best, their_best) = times[0], times.min(axis=0)
    ratio = their_best / best
    print(f"{name:44s} {first:7.2f} {best:7.2f} {their_first:7.2f} {their_best:7.2f} {ratio:6.1f}", flush=True)


def seconds(figure: Callable[[], Any]) -> float:
    """Of the processor, to make figures and draw them."""
    import matplotlib.pyplot as plt

    start = time.process_time()
    made = figure()
    for one in made if isinstance(made, list) else [made]:
        one.savefig(io.BytesIO(), dpi=150, format="png")
    spent = time.process_time() - start
    plt.close("all")
    return spent


def wave(points: np.ndarray) -> np.ndarray:
    return np.sin(points @ [0.03, 0.04, 0.02])


def vertex_responses() -> Any:
    from berg.plotting.meshes import fsaverage5
    from berg.responses.labelled import label_responses

    labels, arrays = {}, []
    for name, mesh in fsaverage5().items():
        numbers = ("vertex", np.arange(mesh.n_vertices))
        label = {"axes": ("stimulus", "vertex"), "unit": "z-scored beta", "coordinates": {"vertex": numbers}}
        labels[name] = label | {"attributes": {"vertex_total": mesh.n_vertices}}
        arrays.append(wave(mesh.inflated)[None].astype(np.float32))
    return label_responses(tuple(arrays), {"responses": labels, "model": {"model_id": "fmri-made_up-waves"}})


def eeg() -> np.ndarray:
    place = np.linspace(0, np.pi, len(CHANNELS))[:, None]
    return sum(
        np.cos(place * (n + 1)) * np.exp(-((TIMES - peak) ** 2) / 2e-3) for n, peak in enumerate((0.1, 0.2, 0.4))
    )


def sensor_responses() -> Any:
    from berg.responses.labelled import label_responses

    coordinates = {"channel": ("channel", np.array(CHANNELS)), "time": ("time", TIMES)}
    label = {"axes": ("stimulus", "channel", "time"), "unit": "µV", "coordinates": coordinates}
    metadata = {"responses": {"eeg": label}, "model": {"model_id": "eeg-made_up-waves"}}
    return label_responses(eeg()[None].astype(np.float32), metadata)


def nilearn_surfaces(theirs: Any, views: tuple[str, ...] = ("lateral", "medial", "ventral", "flat")) -> list[Any]:
    from nilearn.datasets import fetch_surf_fsaverage, load_fsaverage
    from nilearn.surface import load_surf_mesh

    files, meshes = fetch_surf_fsaverage("fsaverage5"), load_fsaverage("fsaverage5")
    figures = []
    for side in ("left", "right"):
        inflated, flat = load_surf_mesh(files[f"infl_{side}"]), meshes["flat"].parts[side]
        values = wave(np.asarray(inflated.coordinates))
        for view in views:
            mesh = flat if view == "flat" else inflated
            seen = "dorsal" if view == "flat" else view
            options = {"bg_map": files[f"sulc_{side}"], "cmap": "RdBu_r", "colorbar": True}
            figures.append(theirs.plot_surf_stat_map(mesh, values, hemi=side, view=seen, **options))
    return figures


def evoked(mne: Any) -> Any:
    info = mne.create_info(list(CHANNELS), 200.0, "eeg", verbose="error")
    info.set_montage("spherical_1005", verbose="error")
    return mne.EvokedArray(eeg() * 1e-6, info, tmin=-0.1, verbose="error")


def mne_maps(mne: Any) -> Any:
    return evoked(mne).plot_topomap(times=TEN, show=False, contours=0)


def mne_joint(mne: Any) -> Any:
    return evoked(mne).plot_joint(times=[0.1, 0.2, 0.4], show=False)


if __name__ == "__main__":
    main()
