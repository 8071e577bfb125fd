"""Responses of several subjects in one array, and of grayordinates of the cortex: as rows of CIFTI, and on surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.plotting.figures import figure_of
from berg.plotting.region_means import region_means
from berg.plotting.shown import show
from berg.responses.hemispheres import as_hemispheres, is_cortex
from berg.responses.labelled import outputs_of, with_texts
from berg.responses.regions import index_regions
from berg.responses.save import save_responses
from berg.responses.subjects import each_subject, of_subject, subject_names, subjects_as_rows

LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"
VALUES = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def labelled() -> xr.Dataset:
    """Two stimuli, three subjects, four vertices; the first of the right hemisphere before one of the left."""
    coordinates: dict[str, Any] = {
        "stimulus": ["face.png", "house.png"],
        "subject": ["NSD-01", "NSD-02", "NOD-30"],
        "dataset": ("subject", ["A", "A", "B"]),
        "grayordinate": [3, 29_700, 8, 29_701],
        "structure": ("grayordinate", [LEFT, RIGHT, LEFT, RIGHT]),
        "vertex": ("grayordinate", [5, 7, 11, 6]),
        "roi": ("grayordinate", ["L_V1;V1", "R_V1;V1", "L_V2;V2", ""]),
        "ceiling": (("subject", "grayordinate"), np.ones((3, 4))),
    }
    array = xr.DataArray(
        VALUES, dims=["stimulus", "subject", "grayordinate"], coords=coordinates, attrs={"units": "beta"}
    )
    facts = {"model_id": "fmri-x-y", "surface_vertices": f"{LEFT} 32492; {RIGHT} 32492", "subject": "all three"}
    return index_regions(with_texts(xr.Dataset({"fmri": array}, attrs=facts)))


def test_a_row_of_cifti_for_each_stimulus_and_subject(labelled: xr.Dataset, tmp_path: Path) -> None:
    (path,) = save_responses(labelled, tmp_path / "x.dscalar.nii")
    image: Any = nib.load(path)
    rows, brain = (image.header.get_axis(axis) for axis in (0, 1))
    assert rows.name.tolist()[:4] == ["face.png, NSD-01", "face.png, NSD-02", "face.png, NOD-30", "house.png, NSD-01"]
    assert brain.name.tolist() == [LEFT, LEFT, RIGHT, RIGHT]
    assert brain.vertex.tolist() == [5, 11, 6, 7]
    assert brain.nvertices == {LEFT: 32_492, RIGHT: 32_492}
    np.testing.assert_array_equal(image.get_fdata()[4], VALUES[1, 1, [0, 2, 3, 1]])


def test_rows_of_one_subject_have_the_names_of_the_stimuli(labelled: xr.Dataset) -> None:
    one = subjects_as_rows(labelled.isel(subject=[1]))
    assert one["stimulus"].values.tolist() == ["face.png", "house.png"]
    np.testing.assert_array_equal(one["fmri"], VALUES[:, 1])


def test_subjects_one_by_one_and_by_name(labelled: xr.Dataset) -> None:
    each = each_subject(labelled)
    assert [subject_names(own) for own in each] == [["NSD-01"], ["NSD-02"], ["NOD-30"]]
    np.testing.assert_array_equal(outputs_of(of_subject(labelled, "NOD-30"))["fmri"], VALUES[:, 2])
    with pytest.raises(InvalidParameterError, match=r"no subject 'NSD-03'\. Did you mean 'NSD-0[12]'"):
        of_subject(labelled, "NSD-03")
    assert each_subject(each[0]) == [each[0]]


def test_grayordinates_become_vertices_of_two_hemispheres(labelled: xr.Dataset) -> None:
    assert is_cortex(labelled)
    sides = outputs_of(as_hemispheres(labelled))
    assert sides["lh"].dims == ("stimulus", "subject", "vertex")
    assert sides["lh"]["vertex"].values.tolist() == [5, 11]
    assert sides["rh"]["vertex"].values.tolist() == [7, 6]
    assert sides["rh"].attrs["vertex_total"] == 32_492
    np.testing.assert_array_equal(sides["rh"], VALUES[:, :, [1, 3]])
    assert list(outputs_of(as_hemispheres(labelled.sel(roi="L_V1")))) == ["lh"]


def test_a_figure_is_of_the_mean_of_the_subjects(labelled: xr.Dataset) -> None:
    shown = show(labelled, "face*")
    np.testing.assert_allclose(shown.outputs["fmri"], VALUES[0].mean(axis=0))
    assert "mean of 3 subjects: NSD-01, NSD-02, NOD-30" in shown.facts
    assert "subject NOD-30" in show(of_subject(labelled, "NOD-30")).facts
    assert figure_of(labelled) == "roi_bars"


def test_bars_of_an_area_leave_out_its_hemispheres(labelled: xr.Dataset) -> None:
    means = region_means(each_subject(labelled)[0])
    assert means.names == ["V1", "V2"]
    np.testing.assert_allclose(means.responses[:, 0], VALUES[:, 0, :2].mean(axis=1))
    assert region_means(labelled.isel(subject=0).sel(roi="L_V1")).names == ["V1"]
