import resource
import sys
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from berg.core.exceptions import DatasetError
from berg.datasets.assembly import DatasetWarning
from berg.datasets.dataset import EncodingDataset
from berg.datasets.response_arrays import ChunkedRows, MappedRows, as_rows
from berg.datasets.splits import SPLITS, LabelWarning, make_splits


def pictures(n=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 6, 6), np.uint8)


def opened(kind, array, folder, chunks=None):
    """The array on disk, of which slices can be read."""
    path = folder / f"a.{kind}"
    if kind == "memory":
        return array
    if kind == "npy":
        np.save(path, array)
        return np.load(path, mmap_mode="r")
    if kind == "fortran":
        np.save(folder / "f.npy", np.asfortranarray(array))
        return np.load(folder / "f.npy", mmap_mode="r")
    if kind in ("h5", "h5-chunked"):
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=array, chunks=chunks if kind == "h5-chunked" else None)
        return h5py.File(path, "r")["x"]
    zarr.create_array(path, data=array, chunks=chunks or "auto")
    return zarr.open_array(path, mode="r")


KINDS = ("memory", "npy", "fortran", "h5", "h5-chunked", "zarr")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (("presentation", "voxel"), (20, 12)),
        (("presentation", "channel", "time"), (20, 3, 4)),
        (("voxel", "presentation"), (12, 20)),
        (("channel", "presentation", "time"), (3, 20, 4)),
        (("stimulus", "repetition", "channel", "time"), (10, 2, 3, 4)),
        (("repetition", "stimulus", "voxel"), (2, 10, 12)),
        (("presentation",), (20,)),
    ],
)
@pytest.mark.parametrize(
    "units", [slice(None), slice(2, 7), slice(11, 2, -3), np.array([5, 0, 0, 9]), np.array([], int)]
)
def test_rows_and_units_are_those_of_the_array(kind, axes, shape, units, tmp_path):
    array = np.random.default_rng(1).normal(size=shape)
    rows = as_rows(opened(kind, array, tmp_path, tuple(min(n, 3) for n in shape)), axes)
    units = units if rows.shape != (1,) else slice(None)
    lead = [axes.index(name) for name in ("stimulus", "presentation", "repetition") if name in axes]
    rest = [place for place in range(len(axes)) if place not in lead]
    table = np.transpose(array, lead + rest).reshape(20, -1).astype(np.float32)
    assert rows.n_rows == 20
    for wanted in (np.arange(20), np.array([0, 1, 7, 8, 19]), np.array([], int)):
        found = rows.read(wanted, units)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, table[wanted][:, units])


def test_arrays_in_memory_are_mapped_and_others_read_by_chunks(tmp_path):
    assert isinstance(as_rows(np.zeros((2, 3)), ("stimulus", "x")), MappedRows)
    assert isinstance(as_rows(opened("h5", np.zeros((2, 3)), tmp_path), ("stimulus", "x")), ChunkedRows)


class Counting:
    """An array in chunks of 4 rows that remembers what was read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.chunks, self.read = array, array.shape, array.dtype, (4, 5), []

    def __getitem__(self, places):
        self.read.append(places)
        return self.array[places]


def test_each_chunk_is_read_once_and_no_more_than_the_units_that_are_asked_for():
    counting = Counting(np.arange(400.0).reshape(40, 10))
    found = as_rows(counting, ("presentation", "unit")).read(np.array([0, 2, 3, 30, 31]), np.array([6, 3]))
    np.testing.assert_array_equal(found, counting.array[[0, 2, 3, 30, 31]][:, [6, 3]])
    assert counting.read == [(slice(0, 4), slice(3, 7)), (slice(30, 32), slice(3, 7))]


def plain_mean(responses, presentations, stimuli):
    """A loop that says what is meant."""
    found = np.full((len(stimuli), responses.shape[1]), np.nan)
    for place, stimulus in enumerate(stimuli):
        for unit in range(responses.shape[1]):
            values = [row[unit] for row, shown in zip(responses, presentations, strict=True) if shown == stimulus]
            values = [value for value in values if not np.isnan(value)]
            found[place, unit] = np.mean(values) if values else np.nan
    return found


def plain_repeats(responses, presentations, stimuli):
    shown = [[row for row, one in zip(responses, presentations, strict=True) if one == own] for own in stimuli]
    found = np.full((max(map(len, shown), default=0), len(stimuli), responses.shape[1]), np.nan)
    for place, rows in enumerate(shown):
        for repeat, row in enumerate(rows):
            found[repeat, place] = row
    return found


@st.composite
def recordings(draw):
    n_stimuli = draw(st.integers(1, 6))
    presentations = draw(st.lists(st.integers(0, n_stimuli - 1), min_size=1, max_size=15))
    n_units = draw(st.integers(1, 5))
    values = st.one_of(st.just(np.nan), st.floats(-1e3, 1e3, width=32))
    size = len(presentations) * n_units
    responses = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32).reshape(-1, n_units)
    wanted = draw(st.lists(st.integers(0, n_stimuli - 1), max_size=8))
    return n_stimuli, np.array(presentations), responses, np.array(wanted, int)


@settings(deadline=None)
@given(recordings())
def test_means_and_repeats_are_those_of_a_plain_loop(recording):
    n_stimuli, presentations, responses, wanted = recording
    with warnings.catch_warnings(action="ignore", category=DatasetWarning):
        data = EncodingDataset.from_arrays(
            pictures(n_stimuli), responses, presentations=presentations, splits={"train": np.arange(n_stimuli)}
        ).outputs["responses"]
    np.testing.assert_allclose(data.mean(wanted), plain_mean(responses, presentations, wanted), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(data.repeats(wanted), plain_repeats(responses, presentations, wanted))
    units = np.arange(responses.shape[1])[::-1]
    np.testing.assert_array_equal(data.mean(wanted, units), data.mean(wanted)[:, units])
    np.testing.assert_array_equal(data.repeats(wanted, slice(0, 1)), data.repeats(wanted)[:, :, :1])


def test_a_missing_response_is_missing_and_not_zero():
    responses = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0], [7.0, 8.0]])
    data = EncodingDataset.from_arrays(pictures(2), responses, presentations=[0, 0, 1, 1], test_fraction=0)
    np.testing.assert_array_equal(data.outputs["responses"].mean([0, 1]), [[2, np.nan], [7, 6.5]])


def test_rows_may_be_read_in_many_blocks(monkeypatch):
    monkeypatch.setattr("berg.datasets.recordings.BLOCK_BYTES", 64)
    monkeypatch.setattr("berg.datasets.response_arrays.BLOCK_BYTES", 64)
    rng = np.random.default_rng(0)
    responses, order = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 10, 50)
    data = EncodingDataset.from_arrays(pictures(), responses, presentations=order).outputs["responses"]
    np.testing.assert_allclose(data.mean(np.arange(10)), plain_mean(responses, order, np.arange(10)), rtol=1e-5)
    np.testing.assert_array_equal(data.repeats([3, 3, 1]), plain_repeats(responses, order, [3, 3, 1]))


def test_units_are_in_c_order_of_their_axes():
    responses = np.arange(10 * 6.0).reshape(10, 2, 3)
    dataset = EncodingDataset.from_arrays(
        pictures(), responses, axes=("channel", "time"), coordinates={"channel": ["Oz", "Pz"], "time": [0.0, 0.1, 0.2]}
    )
    data = dataset.outputs["responses"]
    assert (data.axes, data.shape, data.n_units) == (("channel", "time"), (2, 3), 6)
    assert data.coordinates["channel"][0] == "channel"
    assert data.coordinates["channel"][1].tolist() == ["Oz", "Pz"]
    assert data.mean([1], [1 * 3 + 2]) == responses[1, 1, 2]


def test_repetitions_of_an_array_are_repeats():
    responses = np.random.default_rng(0).normal(size=(10, 4, 2, 3)).astype(np.float32)
    dataset = EncodingDataset.from_arrays(pictures(), responses, axes=("stimulus", "repetition", "channel", "time"))
    data = dataset.outputs["responses"]
    np.testing.assert_array_equal(dataset.presentations, np.repeat(np.arange(10), 4))
    np.testing.assert_array_equal(data.repeats([7, 2]), responses[[7, 2]].swapaxes(0, 1).reshape(4, 2, 6))


def test_outputs_have_axes_coordinates_and_units_of_their_own():
    dataset = EncodingDataset.from_arrays(
        pictures(),
        {"lh": np.zeros((10, 2)), "rh": np.zeros((10, 3))},
        axes=("vertex",),
        unit={"lh": "beta", "rh": "z-scored beta"},
        coordinates={"lh": {"roi": ("vertex", ["V1", ""])}},
    )
    assert [(data.axes, data.unit, list(data.coordinates)) for data in dataset.outputs.values()] == [
        (("vertex",), "beta", ["roi"]),
        (("vertex",), "z-scored beta", []),
    ]


def test_presentations_may_be_names():
    names = [f"{place:02d}.png" for place in range(4)]
    dataset = EncodingDataset.from_arrays(
        pictures(4), np.arange(6.0), names=names, presentations=["03.png", "00", "01", "02.png", "02", "03"]
    )
    assert dataset.presentations.tolist() == [3, 0, 1, 2, 2, 3]
    assert dataset.outputs["responses"].mean([3])[0, 0] == 2.5


WRONG = {
    "rows": (dict(responses=np.zeros((9, 2))), "have 9 rows; there are 10 stimuli. Rows must be as many"),
    "rows of presentations": (
        dict(responses=np.zeros((9, 2)), presentations=np.arange(10)),
        "9 rows; there are 10 stimuli and 10 presentations",
    ),
    "text": (dict(responses=np.full((10, 2), "a")), "must be real numbers"),
    "axes that are not named": (dict(responses=np.zeros((10, 2, 3))), "3 axes; name those of the units"),
    "axes too many": (dict(responses=np.zeros((10, 2)), axes=("a", "b")), "have 2 axes; presentation, a, b are 3"),
    "coordinate of no axis": (
        dict(responses=np.zeros((10, 2)), axes=("voxel",), coordinates={"roi": ["V1", "V2"]}),
        "Coordinate 'roi' is along 'roi'; the axes of the units are voxel",
    ),
    "coordinate too short": (
        dict(responses=np.zeros((10, 2)), axes=("voxel",), coordinates={"roi": ("voxel", ["V1"])}),
        r"'roi' has shape \(1,\); axis 'voxel' has 2 positions",
    ),
    "presentation of nothing": (
        dict(responses=np.zeros((2, 2)), presentations=[0, 10]),
        r"presentations holds 1 numbers of no stimulus \(10\); there are 10, numbered 0 to 9. Do they count from 1",
    ),
    "presentation of no name": (
        dict(responses=np.zeros((2, 2)), names=[f"img{n}" for n in range(10)], presentations=["img1", "imf2"]),
        r"names 1 stimuli that are not there \(imf2\). Did you mean 'img",
    ),
    "names": (dict(responses=np.zeros((10, 2)), names=["a"]), "1 names for 10 stimuli"),
    "names twice": (dict(responses=np.zeros((10, 2)), names=["a"] * 10), r"1 stimuli are listed more than once \(a\)"),
    "outputs that differ": (
        dict(
            responses={"a": np.zeros((10, 2)), "b": np.zeros((10, 3, 2))},
            axes={"b": ("stimulus", "repetition", "x")},
        ),
        "The outputs differ in their rows",
    ),
    "a split of another name": (
        dict(responses=np.zeros((10, 2)), splits={"tran": [0]}),
        "no split 'tran'. Did you mean 'train'",
    ),
    "splits that overlap": (
        dict(responses=np.zeros((10, 2)), splits={"train": [0, 1], "test": [1, 2]}),
        r"1 stimuli are in 'train' and in 'test' \(1\)",
    ),
    "nothing to fit to": (dict(responses=np.zeros((10, 2)), splits={"test": [1, 2]}), "'train' has no stimuli"),
    "fractions": (dict(responses=np.zeros((10, 2)), test_fraction=0.6, validation_fraction=0.4), "together less than"),
    "groups": (dict(responses=np.zeros((10, 2)), groups=[1, 2]), "2 labels of groups for 10 stimuli"),
    "one group": (
        dict(responses=np.zeros((10, 2)), groups=[1] * 10),
        "10 stimuli are in 1 groups .* too few for these splits",
    ),
    "no outputs": (dict(responses={}), "no responses"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_contradicts_itself_is_refused(case):
    given_, words = WRONG[case]
    with pytest.raises(DatasetError, match=words):
        EncodingDataset.from_arrays(pictures(), **given_)


def test_a_split_without_stimuli_that_were_shown_is_refused():
    with (
        pytest.warns(DatasetWarning, match="1 of 1 stimuli in the split 'train' were never presented"),
        pytest.raises(DatasetError, match="No stimulus of the split 'train' was ever presented"),
    ):
        EncodingDataset.from_arrays(pictures(), np.zeros((1, 2)), presentations=[3], splits={"train": [2], "test": [3]})


def test_stimuli_that_were_not_shown_are_in_no_split():
    order = np.array([0, 1, 2, 3, 4, 5, 0])
    made = EncodingDataset.from_arrays(pictures(), np.zeros((7, 1)), presentations=order, test_fraction=0.5)
    assert sorted(np.concatenate(list(made.splits.values()))) == [0, 1, 2, 3, 4, 5]
    assert len(made.splits["test"]) == 3
    with pytest.warns(DatasetWarning, match=r"2 of 3 stimuli in the split 'test' were never presented .*\(8, 9\)"):
        given_ = EncodingDataset.from_arrays(
            pictures(), np.zeros((7, 1)), presentations=order, splits={"train": [0, 1], "test": [5, 8, 9]}
        )
    assert {name: own.tolist() for name, own in given_.splits.items()} == {
        "train": [0, 1],
        "validation": [],
        "test": [5],
    }


@settings(deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=4, max_size=60),
    test=st.floats(0, 0.4),
    validation=st.floats(0, 0.4),
    seed=st.integers(0, 5),
)
def test_groups_stay_together_and_every_stimulus_is_in_one_split(groups, test, validation, seed):
    how = dict(test_fraction=test, validation_fraction=validation, seed=seed, groups=groups)
    stimuli = np.arange(len(groups)) * 3
    try:
        splits = make_splits(stimuli, **how)
    except DatasetError:
        largest = max(map(groups.count, groups))
        assert len(set(groups)) <= 2 or largest > sum(round(x * len(groups)) for x in (1, -test, -validation))
        return
    assert sorted(np.concatenate(list(splits.values()))) == stimuli.tolist()
    sides = [{groups[place // 3] for place in own} for own in splits.values()]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
    for name, fraction in (("test", test), ("validation", validation)):
        wanted = round(fraction * len(groups))
        assert bool(len(splits[name])) == bool(wanted)
    again = make_splits(stimuli, **how)
    assert all(np.array_equal(splits[name], again[name]) for name in SPLITS)


def test_another_seed_draws_others():
    one, other = (make_splits(np.arange(100), seed=seed)["test"] for seed in (0, 1))
    assert len(one) == len(other) == 10
    assert set(one) != set(other)


def test_the_same_picture_under_two_names_stays_on_one_side(tmp_path):
    same = np.concatenate([pictures(10), pictures(10)])
    for place, picture in enumerate(same):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"{place:02d}.png")
    for stimuli in (same, tmp_path):
        for seed in range(5):
            splits = EncodingDataset.from_arrays(stimuli, np.zeros((20, 1)), test_fraction=0.3, seed=seed).splits
            assert len(splits["test"]) == 6
            assert {place % 10 for place in splits["test"]}.isdisjoint({place % 10 for place in splits["train"]})


def test_a_sequence_is_cut_and_not_drawn():
    frames = np.zeros((20, 4, 5))
    dataset = EncodingDataset.from_arrays(
        frames, np.zeros((20, 2)), sampling_interval_s=1.3, test_fraction=0.2, validation_fraction=0.1
    )
    assert dataset.is_sequence
    assert [own.tolist() for own in dataset.splits.values()] == [[*range(14)], [14, 15], [16, 17, 18, 19]]


def test_samples_of_a_response_do_not_make_a_sequence_of_pictures():
    dataset = EncodingDataset.from_arrays(
        pictures(), np.zeros((10, 1, 2)), axes=("channel", "time"), sampling_interval_s=0.005
    )
    assert not dataset.is_sequence


@pytest.mark.parametrize("kind", KINDS)
def test_any_stimuli_are_read_in_the_order_asked_for(kind, tmp_path):
    stimuli = opened(kind, pictures(), tmp_path, (4, 3, 6, 6))
    dataset = EncodingDataset.from_arrays(stimuli, np.zeros((10, 1)))
    for wanted in ([7, 2, 3, 3, 9], [], [4]):
        np.testing.assert_array_equal(dataset.read_stimuli(wanted), pictures()[wanted])


def test_files_are_read_and_named(tmp_path):
    for place, picture in enumerate(pictures()):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"{place}.png")
    dataset = EncodingDataset.from_arrays(tmp_path, np.zeros((10, 1)))
    assert dataset.stimulus_names == [f"{place}.png" for place in range(10)]
    np.testing.assert_array_equal(dataset.read_stimuli([5, 1]), pictures()[[5, 1]])
    as_list = EncodingDataset.from_arrays([tmp_path / "3.png", tmp_path / "1.png"], np.zeros((2, 1)))
    np.testing.assert_array_equal(as_list.read_stimuli([0, 1]), pictures()[[3, 1]])


def test_the_fingerprint_is_of_the_values_and_their_order(tmp_path):
    arrays = [opened(kind, pictures(), tmp_path) for kind in KINDS]
    prints = {EncodingDataset.from_arrays(own, np.zeros((10, 1))).fingerprint_of_stimuli([1, 2]) for own in arrays}
    assert len(prints) == 1
    dataset = EncodingDataset.from_arrays(pictures(), np.zeros((10, 1)))
    changed = pictures()
    changed[2, 0, 0, 0] ^= 1
    others = [
        dataset.fingerprint_of_stimuli([2, 1]),
        dataset.fingerprint_of_stimuli([1]),
        EncodingDataset.from_arrays(changed, np.zeros((10, 1))).fingerprint_of_stimuli([1, 2]),
        EncodingDataset.from_arrays(pictures().astype(np.int16), np.zeros((10, 1))).fingerprint_of_stimuli([1, 2]),
    ]
    assert len({*prints, *others}) == 5


def test_the_fingerprint_of_files_is_of_what_is_in_them(tmp_path):
    for name, seed in (("a.png", 0), ("b.png", 1)):
        Image.fromarray(pictures(1, seed)[0].transpose(1, 2, 0)).save(tmp_path / name)
    dataset = EncodingDataset.from_arrays(tmp_path, np.zeros((2, 1)))
    before = dataset.fingerprint_of_stimuli([0, 1])
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    again = EncodingDataset.from_arrays(tmp_path, np.zeros((2, 1)))
    assert again.fingerprint_of_stimuli([0, 1]) == before
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert again.fingerprint_of_stimuli([0, 1]) != before


def resident_bytes():
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.parametrize("units", [slice(1000, 1010), np.array([3, 50_000, 60_000])])
def test_some_units_of_two_gigabytes_cost_next_to_nothing(units, tmp_path):
    n_rows, n_units = 5000, 100_000
    path = tmp_path / "large.npy"
    large = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_units))  # sparse: no byte is written
    large[3, 1005] = large[3, 50_000] = 2
    del large
    mapped = np.load(path, mmap_mode="r")
    dataset = EncodingDataset.from_arrays(np.arange(n_rows)[:, None], mapped, test_fraction=0.1)
    before = resident_bytes()
    found = dataset.outputs["responses"].mean(np.arange(n_rows), units)
    assert found.sum() == 2
    assert resident_bytes() - before < 100e6
    assert path.stat().st_size > 1.9e9


# Groups, and arrays that carry more than numbers

NAMES = [f"picture_{i}" for i in range(12)]
VALUES = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)


def of_responses(responses, **options):
    return EncodingDataset.from_arrays(pictures(12), responses, names=NAMES, **options)


def test_groups_are_kept_and_differ_where_their_labels_do():
    with pytest.warns(LabelWarning, match="look alike"):
        dataset = of_responses(VALUES, groups=["1", 1, "1 ", "b", "b", *"cdefghi"], axes=("voxel",))
    assert dataset.groups.tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]
    assert dataset.groups_of([3, 4, 0]).tolist() == [3, 3, 0]
    assert dataset.groups_of([0, 1, 2, 3]) is None  # each alone
    assert of_responses(VALUES, axes=("voxel",)).groups is None


def test_identical_stimuli_are_a_group_where_splits_are_drawn():
    stimuli = pictures(12)
    stimuli[[5, 9]] = stimuli[2]
    dataset = EncodingDataset.from_arrays(stimuli, VALUES, axes=("voxel",))
    assert np.flatnonzero(dataset.groups == dataset.groups[2]).tolist() == [2, 5, 9]
    assert len(np.unique(dataset.groups)) == 10


def test_groups_in_two_splits_are_refused():
    splits = {"train": np.arange(8), "test": np.arange(8, 12)}
    groups = [0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4]
    with pytest.raises(DatasetError, match=r"1 groups have stimuli in 'train' and in 'test' \(picture_6 and picture_8"):
        of_responses(VALUES, splits=splits, groups=groups)
    groups[8] = 4
    assert of_responses(VALUES, splits=splits, groups=groups).groups_of(splits["test"]).tolist() == [4, 4, 4, 4]
    with pytest.raises(DatasetError, match="1 labels of groups are missing"):
        of_responses(VALUES, groups=[*groups[:-1], float("nan")])


ORDER = np.random.default_rng(1).permutation(12)
NAMED = xr.DataArray(
    VALUES,
    {"stimulus": NAMES, "voxel": [5, 6, 7, 8], "roi": ("voxel", ["V1", "V1", "V2", "V2"])},
    ("stimulus", "voxel"),
    attrs={"units": "z-scored beta"},
)
CARRYING = {
    "torch": torch.tensor(VALUES, requires_grad=True),
    "frame": pd.DataFrame(VALUES),
    "frame in another order": NAMED.to_pandas().iloc[ORDER],
    "xarray in another order": NAMED[ORDER].transpose("voxel", "stimulus"),
}


@pytest.mark.parametrize("kind", CARRYING)
def test_responses_may_be_labelled(kind):
    data = of_responses(CARRYING[kind]).outputs["responses"]
    np.testing.assert_array_equal(data.mean(np.arange(12)), VALUES)
    if kind.startswith("xarray"):
        assert (data.axes, data.unit) == (("voxel",), "z-scored beta")
        assert data.coordinates["roi"][1].tolist() == ["V1", "V1", "V2", "V2"]
    if "order" in kind:
        assert data.coordinates["voxel" if kind.startswith("xarray") else "unit"][1].tolist() == [5, 6, 7, 8]


def test_masked_responses_are_missing_ones():
    masked = np.ma.masked_array(np.where(VALUES > 1, np.float32(1e20), VALUES), VALUES > 1)
    found = of_responses(masked).outputs["responses"].mean(np.arange(12))
    np.testing.assert_array_equal(found, np.where(VALUES > 1, np.nan, VALUES))
    whole = np.ma.masked_array((100 * VALUES).astype(int), VALUES > 1)
    found = of_responses(whole).outputs["responses"].mean(np.arange(12))
    np.testing.assert_array_equal(np.isnan(found), VALUES > 1)


def test_labels_of_rows_may_repeat_as_presentations_do():
    rows = np.r_[ORDER, ORDER[::-1]]
    frame = pd.DataFrame(VALUES[rows], index=[NAMES[row] for row in rows])
    data = of_responses(frame).outputs["responses"]
    np.testing.assert_allclose(data.mean(np.arange(12)), VALUES)
    assert data.repeats([0]).shape == (2, 1, 4)
    of_responses(frame, presentations=rows)
    with pytest.raises(DatasetError, match=r"are labelled picture_.* by 'presentations' they are of picture_"):
        of_responses(frame, presentations=np.roll(rows, 1))


@pytest.mark.parametrize(
    ("responses", "match"),
    [
        (pd.DataFrame(VALUES, index=[f"other_{i}" for i in range(12)]), "labels of the rows.* 12 stimuli that are not"),
        (NAMED.rename(stimulus="image"), "axes image, voxel; one must be 'stimulus' or 'presentation'"),
        (NAMED.assign_attrs(_FillValue=-1), "_FillValue=-1.*decode_cf"),
        (VALUES + 1j, "complex64.*real numbers"),
    ],
)
def test_responses_that_contradict_are_refused(responses, match):
    with pytest.raises(DatasetError, match=match):
        of_responses(responses)


def test_axes_of_xarray_have_the_names_that_are_given():
    assert of_responses(NAMED.T, axes=("voxel",)).outputs["responses"].axes == ("voxel",)
    with pytest.raises(DatasetError, match="axes stimulus, voxel; given were the axes vertex"):
        of_responses(NAMED, axes=("vertex",))
