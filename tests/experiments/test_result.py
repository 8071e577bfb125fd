import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import berg
from berg import experiments
from berg.core.exceptions import BERGError, CorruptedFileError, InvalidParameterError, MissingFileError
from berg.experiments.result import described, draw, facts_of, open_result, parameters_of, save, sources_of


@pytest.fixture
def result():
    made = xr.Dataset({"score": ("unit", np.arange(3.0))})
    source = {"model_id": "fmri-a-b", "subject": 2, "selection": "{'roi': 'V1'}", "n_units": np.int64(3)}
    return described(made, "trial", [source, {"n_units": 4}], 7, margin=np.float64(0.5), sets=("a", None))


def test_a_result_keeps_what_made_it_in_its_file(result, tmp_path):
    back = open_result(save(result, tmp_path / "a.nc"))
    xr.testing.assert_identical(back, result)
    assert parameters_of(back) == {"margin": 0.5, "sets": ["a", None]}
    assert sources_of(back)[0]["n_units"] == 3
    assert (back.attrs["seed"], back.attrs["berg_version"]) == (7, berg.__version__)
    assert facts_of(back) == (
        "fmri-a-b subject 2 selection {'roi': 'V1'}", "array", "seed 7", f"BERG {berg.__version__}",
    )  # fmt: skip


def test_a_result_with_many_texts_is_kept_too(tmp_path):
    names = np.array([f"picture {number}" for number in range(40)], object)  # which HDF5 reads back as it writes them
    made = described(xr.Dataset({"score": (("unit", "name"), np.ones((50, 40)))}, {"name": names}), "trial", [], None)
    xr.testing.assert_identical(open_result(save(made, tmp_path / "a.nc")), made)


def test_a_large_result_is_written_too(result, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 200, 200), np.uint8)
    large = result.assign(picture=(("number", "colour", "row", "column"), pictures), name=("number", list("abcd")))
    xr.testing.assert_identical(open_result(save(large, tmp_path / "a.nc")), large)


def test_a_file_that_is_there_is_kept(result, tmp_path):
    path = save(result, tmp_path / "a.nc")
    with pytest.raises(InvalidParameterError, match="overwrite=True"):
        save(result, path)
    assert save(result.assign(more=1), path, overwrite=True) == path
    assert "more" in open_result(path)
    with pytest.raises(InvalidParameterError, match=r"must end in \.nc"):
        save(result, tmp_path / "a.csv")


def test_what_is_no_result_is_refused(result, tmp_path):
    with pytest.raises(MissingFileError, match="There is no file"):
        open_result(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("no")
    with pytest.raises(CorruptedFileError, match=re.escape("text.nc is no NetCDF file")):
        open_result(tmp_path / "text.nc")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(CorruptedFileError, match="holds no result"):
        open_result(tmp_path / "other.nc")
    for function in (lambda lost: save(lost, tmp_path / "b.nc"), draw):
        with pytest.raises(BERGError, match="keep_attrs=True"):
            function(result.drop_attrs())
    with pytest.raises(InvalidParameterError, match="'trial' have no figure"):
        draw(result)


def test_no_function_has_the_name_of_a_file_which_would_hide_it_once_imported():
    files = {path.stem for path in Path(experiments.__file__).parent.glob("*.py")}
    assert not files & {*experiments.__all__}


def test_every_public_function_is_there():
    assert all(callable(getattr(experiments, name)) for name in experiments.__all__)
    assert {*experiments.__all__} <= {*dir(experiments)}
    with pytest.raises(AttributeError, match="no attribute 'none'"):
        experiments.none  # noqa: B018
