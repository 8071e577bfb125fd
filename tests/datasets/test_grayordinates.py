"""CIFTI sessions, masks and atlases: as nibabel reads them, in one order, or refused with both values."""

import gzip
import re

import nibabel
import numpy as np
import pytest
from nibabel import cifti2

from berg.core.exceptions import CorruptedFileError, DatasetError
from berg.datasets.assembly import DatasetWarning
from berg.datasets.dataset import EncodingDataset
from berg.datasets.label_files import read_labels
from berg.datasets.response_files import open_responses

N = 6
RNG = np.random.default_rng(3)
AFFINE = np.array([[2.0, 0, 0, -4], [0, 2, 0, 3], [0, 0, 2.5, 1], [0, 0, 0, 1]])
LEFT, RIGHT, THALAMUS = (f"CIFTI_STRUCTURE_{name}" for name in ("CORTEX_LEFT", "CORTEX_RIGHT", "THALAMUS_LEFT"))
VERTICES = {"CortexLeft": np.array([0, 2, 3, 7, 9, 11]), "CortexRight": np.array([1, 2, 8, 10])}


def voxels(affine=AFFINE, shape=(3, 4, 5)):
    mask = np.zeros(shape, bool)
    mask[1, 2, 1:4] = mask[2, 0, 0] = True
    return cifti2.BrainModelAxis.from_mask(mask, "thalamus_left", affine)


def brain(*parts, n_vertices=12, **volume):
    """Grayordinates of these structures, in this order: L, R, V (voxels)."""
    made = {
        "L": lambda: cifti2.BrainModelAxis.from_surface(VERTICES["CortexLeft"], n_vertices, "CortexLeft"),
        "R": lambda: cifti2.BrainModelAxis.from_surface(VERTICES["CortexRight"], n_vertices, "CortexRight"),
        "V": lambda: voxels(**volume),
    }
    axes = [made[part]() for part in parts or "LRV"]
    return sum(axes[1:], start=axes[0])


BRAIN = brain()
VALUES = RNG.normal(size=(N, len(BRAIN))).astype(np.float32)


def write(path, values=VALUES, axis=BRAIN, rows=None, dtype=np.float32):
    names = [f"map {row}" for row in range(len(values))]
    rows = rows or (cifti2.SeriesAxis(0, 2.0, len(values)) if "dtseries" in path.name else cifti2.ScalarAxis(names))
    cifti2.Cifti2Image(values.astype(dtype), (rows, axis)).to_filename(path)
    return path


def atlas(path, axis=BRAIN, numbers=None, names=("???", "V1", "V2")):
    numbers = np.arange(len(axis)) % len(names) if numbers is None else numbers
    table = {key: (name, (0, 0, 0, 1)) for key, name in enumerate(names)}
    label = cifti2.LabelAxis(["areas"], [table])
    cifti2.Cifti2Image(numbers[None].astype(np.float32), (label, axis)).to_filename(path)
    return np.array(["", *names[1:]])[numbers]


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "p.npy", RNG.integers(0, 256, (N, 3, 8, 8), np.uint8))
    np.save(tmp_path / "twice.npy", np.tile(np.arange(N), 2))
    return tmp_path


def opened(folder, output, name="responses", presentations="", more=""):
    text = f"stimuli: p.npy\n{presentations and f'presentations: {presentations}'}\n{more}\n"
    (folder / "dataset.yaml").write_text(text + f"responses: {{{name}: {output}}}\n")
    return EncodingDataset.open(folder).outputs[name]


def of_all(found):
    return found.rows.read(np.arange(found.rows.n_rows), slice(None))


# One file


@pytest.mark.parametrize("name", ["a.dscalar.nii", "a.dtseries.nii", "a.nii"])
def test_values_and_labels_are_those_that_nibabel_reads(name, tmp_path):
    found, image = open_responses(write(tmp_path / name)), nibabel.load(tmp_path / name)
    axis = image.header.get_axis(1)
    np.testing.assert_array_equal(of_all(found), image.get_fdata(dtype=np.float32))
    labels = {label: values for label, (along, values) in found.coordinates.items() if along == "grayordinate"}
    assert labels["structure"].tolist() == axis.name.tolist()
    assert labels["vertex"].tolist() == axis.vertex.tolist()
    assert np.column_stack([labels[index] for index in "ijk"]).tolist() == axis.voxel.tolist()
    assert found.attributes["surface_vertices"] == axis.nvertices
    assert found.attributes["volume_shape"] == axis.volume_shape
    np.testing.assert_array_equal(found.attributes["fmri_affine"], axis.affine)


def test_some_rows_and_units_of_scaled_whole_numbers_are_read(tmp_path):
    image = cifti2.Cifti2Image(VALUES, (cifti2.ScalarAxis(list("abcdef")), BRAIN))
    image.nifti_header.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "a.dscalar.nii")
    expected = np.asarray(nibabel.load(tmp_path / "a.dscalar.nii").dataobj)
    assert not np.array_equal(expected, VALUES)
    found = open_responses(tmp_path / "a.dscalar.nii").rows.read(np.array([1, 4]), np.array([9, 0, 12]))
    np.testing.assert_allclose(found, expected[[1, 4]][:, [9, 0, 12]], rtol=1e-6)


def test_surfaces_alone_have_no_voxel_labels_and_voxels_no_vertices(tmp_path):
    of_surface = open_responses(write(tmp_path / "s.dscalar.nii", VALUES[:, :10], brain("L", "R")))
    of_volume = open_responses(write(tmp_path / "v.dscalar.nii", VALUES[:, :4], brain("V")))
    assert set(of_surface.coordinates) == {"structure", "vertex"}
    assert set(of_volume.coordinates) == {"structure", "i", "j", "k"}
    assert set(of_surface.attributes) == {"surface_vertices"}
    assert set(of_volume.attributes) == {"volume_shape", "fmri_affine"}


@pytest.mark.parametrize("key", ["CORTEX_RIGHT", RIGHT])
def test_a_structure_is_picked_by_its_name(key, folder):
    write(folder / "a.dscalar.nii")
    found = opened(folder, f"{{path: a.dscalar.nii, key: {key}, axes: [stimulus, vertex], unit: z}}", "rh")
    np.testing.assert_array_equal(found.mean(np.arange(N)), VALUES[:, 6:10])
    assert found.axes == ("vertex",)
    assert found.coordinates["vertex"][1].tolist() == VERTICES["CortexRight"].tolist()
    with pytest.raises(DatasetError, match=r"'lh' has the responses of CORTEX_RIGHT too.*::CORTEX_LEFT"):
        opened(folder, f"{{path: 'a.dscalar.nii::{key}', unit: z}}", "lh")
    with pytest.raises(DatasetError, match=r"no structure 'V1'.*CORTEX_LEFT, CORTEX_RIGHT, THALAMUS_LEFT"):
        opened(folder, "{path: 'a.dscalar.nii::V1', unit: z}")


def test_the_unit_that_all_maps_name_is_known(folder):
    rows = cifti2.ScalarAxis(list("abcdef"), [{"Unit": "percent signal change"}] * N)
    write(folder / "a.dscalar.nii", rows=rows)
    assert opened(folder, "{path: a.dscalar.nii}").unit == "percent signal change"


# Sessions


@pytest.mark.parametrize("order", ["RLV", "VRL"])
def test_sessions_in_another_order_are_put_in_that_of_the_first(order, folder):
    other = brain(*order)
    where = {tuple(map(str, row)): place for place, row in enumerate(other)}
    places = [where[tuple(map(str, row))] for row in BRAIN]
    moved = np.empty_like(VALUES)
    moved[:, places] = VALUES + 1
    write(folder / "s1.dscalar.nii")
    write(folder / "s2.dscalar.nii", moved, other)
    found = opened(folder, "{path: [s1.dscalar.nii, s2.dscalar.nii], unit: z}", presentations="twice.npy")
    np.testing.assert_allclose(found.mean(np.arange(N)), VALUES + 0.5, rtol=1e-5)
    assert found.coordinates["structure"][1].tolist() == BRAIN.name.tolist()
    mask = np.arange(len(BRAIN)) % 3 == 0
    np.save(folder / "mask.npy", mask)
    some = opened(
        folder, "{path: [s1.dscalar.nii, s2.dscalar.nii], mask: mask.npy, unit: z}", presentations="twice.npy"
    )
    np.testing.assert_allclose(some.mean(np.arange(N)), VALUES[:, mask] + 0.5, rtol=1e-5)
    assert some.coordinates["vertex"][1].tolist() == BRAIN.vertex[mask].tolist()


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        (brain("L", "R"), r"s2.*has 10 grayordinates \(CORTEX_LEFT 6, CORTEX_RIGHT 4\), s1.*14 grayordinates"),
        (brain(n_vertices=13), r"s2.*surfaces of 13 vertices \(CIFTI_STRUCTURE_CORTEX_LEFT\), s1.*of 12"),
        (brain(affine=AFFINE * [[-1], [1], [1], [1]]), r"s2.*and s1.*have other affines.*-2\.0.*2\.0"),
        (brain(shape=(4, 4, 5)), r"s2.*\(4, 4, 5\) voxels, s1.*\(3, 4, 5\)"),
    ],
    ids=["fewer", "another surface", "flipped", "another volume"],
)
def test_sessions_of_other_brain_models_are_refused_with_both(axis, words, folder):
    write(folder / "s1.dscalar.nii")
    write(folder / "s2.dscalar.nii", VALUES[:, : len(axis)], axis)
    with pytest.raises(DatasetError, match=words):
        opened(folder, "{path: [s1.dscalar.nii, s2.dscalar.nii], unit: z}", presentations="twice.npy")


def test_as_many_other_vertices_are_refused_with_the_one_that_is_not_there(folder):
    other = cifti2.BrainModelAxis.from_surface(np.array([0, 2, 3, 7, 9, 10]), 12, "CortexLeft")
    write(folder / "s1.dscalar.nii", VALUES[:, :6], brain("L"))
    write(folder / "s2.dscalar.nii", VALUES[:, :6], other)
    with pytest.raises(DatasetError, match=r"vertex 11 of CORTEX_LEFT is in the latter alone"):
        opened(folder, "{path: [s1.dscalar.nii, s2.dscalar.nii], unit: z}", presentations="twice.npy")


def test_an_affine_in_metres_is_that_in_millimetres(folder):
    write(folder / "s1.dscalar.nii")
    image = cifti2.Cifti2Image(VALUES, (cifti2.ScalarAxis(list("abcdef")), BRAIN))
    volume = image.header.matrix.get_index_map(1).volume
    volume.transformation_matrix_voxel_indices_ijk_to_xyz.meter_exponent = 0
    metres = AFFINE.copy()
    metres[:3] /= 1000
    volume.transformation_matrix_voxel_indices_ijk_to_xyz.matrix = metres
    image.to_filename(folder / "s2.dscalar.nii")
    found = opened(folder, "{path: [s1.dscalar.nii, s2.dscalar.nii], unit: z}", presentations="twice.npy")
    np.testing.assert_allclose(found.mean(np.arange(N)), VALUES, rtol=1e-6)
    np.testing.assert_allclose(open_responses(folder / "s2.dscalar.nii").attributes["fmri_affine"], AFFINE)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (cifti2.SeriesAxis(0, 1.5, N), "1.5 second.*s1.*2 second"),
        (cifti2.SeriesAxis(0, 2.0, N, "HERTZ"), "2 hertz.*s1.*2 second"),
        (cifti2.ScalarAxis(list("abcdef")), "no time.*s1.*2 second"),
    ],
    ids=["step", "unit", "maps"],
)
def test_sessions_of_another_step_in_time_are_refused_with_both(rows, words, folder):
    write(folder / "s1.dtseries.nii")
    write(folder / "s2.dtseries.nii", rows=rows)
    with pytest.raises(DatasetError, match=f"s2.*has a step between rows of {words}"):
        opened(folder, "{path: [s1.dtseries.nii, s2.dtseries.nii], unit: z}", presentations="twice.npy")


def test_the_step_of_a_series_is_held_to_the_sampling_interval(folder):
    write(folder / "s.dtseries.nii")
    output = "{path: s.dtseries.nii, unit: z}"
    np.testing.assert_array_equal(opened(folder, output, more="sampling_interval_s: 2").mean(np.arange(N)), VALUES)
    with pytest.raises(DatasetError, match=r"sampling_interval_s is 1\.5, and the rows of the series are 2 s apart"):
        opened(folder, output, more="sampling_interval_s: 1.5")
    with pytest.warns(DatasetWarning, match=r"2 s apart.*write  sampling_interval_s: 2 "):
        opened(folder, output)


# Masks and labels


@pytest.mark.parametrize("order", ["LRV", "VRL"])
def test_regions_and_maps_are_put_in_the_order_of_the_responses(order, folder):
    axis = brain(*order)
    names = atlas(folder / "areas.dlabel.nii", axis)
    reliability = RNG.normal(size=(2, len(axis)))
    write(folder / "maps.dscalar.nii", reliability, axis, cifti2.ScalarAxis(["ncsnr", "r"]))
    write(folder / "a.dscalar.nii")
    where = {tuple(map(str, row)): place for place, row in enumerate(axis)}
    places = [where[tuple(map(str, row))] for row in BRAIN]
    labels = "coordinates: {roi: areas.dlabel.nii, ncsnr: 'maps.dscalar.nii::ncsnr'}"
    found = opened(folder, f"{{path: a.dscalar.nii, unit: z, {labels}}}").coordinates
    assert found["roi"][1].tolist() == names[places].tolist()
    np.testing.assert_allclose(found["ncsnr"][1], reliability[0, places], rtol=1e-6)
    write(folder / "mask.dscalar.nii", (reliability[:1] > 0).astype(float), axis)
    some = opened(folder, f"{{path: a.dscalar.nii, mask: mask.dscalar.nii, unit: z, {labels}}}")
    kept = reliability[0, places] > 0
    np.testing.assert_array_equal(some.mean(np.arange(N)), VALUES[:, kept])
    assert some.coordinates["roi"][1].tolist() == names[places][kept].tolist()
    assert some.coordinates["structure"][1].tolist() == BRAIN.name[kept].tolist()


def test_an_atlas_may_have_more_grayordinates_and_not_fewer(folder):
    names = atlas(folder / "all.dlabel.nii")
    atlas(folder / "left.dlabel.nii", brain("L"))
    write(folder / "a.dscalar.nii", VALUES[:, :10], brain("L", "R"))
    found = opened(folder, "{path: a.dscalar.nii, unit: z, coordinates: {roi: all.dlabel.nii}}")
    assert found.coordinates["roi"][1].tolist() == names[:10].tolist()
    for use in ("coordinates: {roi: left.dlabel.nii}", "mask: left.dlabel.nii"):
        with pytest.raises(DatasetError, match=r"left\.dlabel\.nii has 6 .*the responses 10 |a mask holds 0 or 1"):
            opened(folder, f"{{path: a.dscalar.nii, unit: z, {use}}}")


def test_labels_in_text_and_arrays_are_in_the_order_of_the_first_file(folder):
    write(folder / "a.dscalar.nii")
    (folder / "roi.txt").write_text("\n".join(f"area{unit}" for unit in range(len(BRAIN))))
    found = opened(folder, "{path: a.dscalar.nii, unit: z, coordinates: {roi: roi.txt}}")
    assert found.coordinates["roi"][1].tolist() == [f"area{unit}" for unit in range(len(BRAIN))]


@pytest.mark.parametrize("use", ["coordinates: {roi: v.nii}", "mask: v.nii"])
def test_a_volume_is_no_atlas_of_grayordinates(use, folder):
    write(folder / "a.dscalar.nii")
    nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), AFFINE).to_filename(folder / "v.nii")
    with pytest.raises(DatasetError, match=r"v\.nii is a volume of \(3, 4, 5\) voxels, the responses of 14 gray"):
        opened(folder, f"{{path: a.dscalar.nii, unit: z, {use}}}")


def test_an_atlas_of_grayordinates_is_none_of_a_volume(folder):
    nibabel.Nifti1Image(np.ones((7, 2, 1, N), np.float32), AFFINE).to_filename(folder / "v.nii")
    atlas(folder / "areas.dlabel.nii")
    with pytest.raises(DatasetError, match=r"the responses is a volume of \(7, 2, 1\) voxels, roi areas.*of 14 gray"):
        opened(folder, "{path: v.nii, unit: z, coordinates: {roi: areas.dlabel.nii}}")


def test_lists_of_labels_are_maps_with_names(folder):
    write(folder / "maps.dscalar.nii", rows=cifti2.ScalarAxis(list("aabcde")))
    assert np.array_equal(read_labels(folder / "maps.dscalar.nii", "b"), VALUES[2])
    for key, words in ((None, "holds a, a, b"), ("x", "has no 'x'"), ("a", "has 2 maps 'a'")):
        with pytest.raises(DatasetError, match=words):
            read_labels(folder / "maps.dscalar.nii", key)
    with pytest.raises(DatasetError, match="is a series"):
        read_labels(write(folder / "s.dtseries.nii"))
    atlas(folder / "areas.dlabel.nii")
    with pytest.raises(DatasetError, match=r"holds labels\. Responses are maps or series"):
        open_responses(folder / "areas.dlabel.nii")


# Files that are odd


def test_other_kinds_of_cifti_are_refused_with_their_axes(tmp_path):
    for name, axes in {
        "a.dconn.nii": (brain("L"), brain("L")),
        "a.pscalar.nii": (
            cifti2.ScalarAxis(["a"]),
            cifti2.ParcelsAxis.from_brain_models([("one", brain("L")), ("two", brain("R"))]),
        ),
    }.items():
        values = np.zeros([len(axis) for axis in axes], np.float32)
        cifti2.Cifti2Image(values, axes).to_filename(tmp_path / name)
        for read in (open_responses, read_labels):
            with pytest.raises(DatasetError, match=rf"{re.escape(name)} has the axes .*Save the values as \.npy"):
                read(tmp_path / name)


def test_a_volume_that_is_called_cifti_is_refused(tmp_path):
    nibabel.Nifti1Image(np.zeros((2, 3, 4, N)), AFFINE).to_filename(tmp_path / "a.dscalar.nii")
    with pytest.raises(CorruptedFileError, match=r"a\.dscalar\.nii is called CIFTI"):
        open_responses(tmp_path / "a.dscalar.nii")


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (b'IndexCount="6"', b'IndexCount="9"', "says that it has 17 gray"),
        (b'IndexCount="6"', b'IndexCount="5"', "a.dscalar.nii"),
        (b'IndexCount="6"', b'IndexCount="9999999999999"', "says that it has 10,000,000,000,007 gray"),
        (b">0 2 3 7 9 11<", b">0 2 3 7 9 12<", "has vertex 12 of CORTEX_LEFT"),
        (b">0 2 3 7 9 11<", b">0 2 3 7 9 9<", "has vertex 9 of CORTEX_LEFT twice"),
        (b">0 2 3 7 9 11<", b">0 2 3 7 9<", r"a\.dscalar\.nii"),
        (b'VolumeDimensions="3,4,5"', b'VolumeDimensions="2,4,5"', r"has voxel \(2, 0, 0\) of THALAMUS_LEFT"),
        (
            b'BrainStructure="CIFTI_STRUCTURE_CORTEX_RIGHT"',
            b'BrainStructure="CIFTI_STRUCTURE_NOSE"',
            r"a\.dscalar\.nii",
        ),
    ],
)
def test_brain_models_that_cannot_be_are_named(one, other, words, tmp_path):
    raw = write(tmp_path / "a.dscalar.nii").read_bytes()
    start, size = 544, int.from_bytes(raw[544:548], "little")
    assert one in raw
    xml = raw[start + 8 : start + size].rstrip(b"\0").replace(one, other)
    assert len(xml) <= size - 8 + 64
    padded = xml + b"\0" * (-(len(xml) + 8) % 16)
    changed = raw[:start] + (len(padded) + 8).to_bytes(4, "little") + raw[start + 4 : start + 8] + padded
    header = changed[:168] + len(changed).to_bytes(8, "little") + changed[176:]
    (tmp_path / "a.dscalar.nii").write_bytes(header + raw[start + size :])
    for read in (open_responses, read_labels):
        with pytest.raises(CorruptedFileError, match=words):
            read(tmp_path / "a.dscalar.nii")


def test_a_cut_file_is_named(tmp_path):
    whole = write(tmp_path / "a.dscalar.nii").read_bytes()
    (tmp_path / "a.dscalar.nii").write_bytes(whole[:-8])
    (tmp_path / "c.dscalar.nii").write_bytes(whole[:300])
    for name in ("a.dscalar.nii", "c.dscalar.nii"):
        with pytest.raises(CorruptedFileError, match=name):
            of_all(open_responses(tmp_path / name))


def test_a_compressed_file_is_to_be_unpacked(tmp_path):
    whole = write(tmp_path / "a.dscalar.nii").read_bytes()
    (tmp_path / "a.dscalar.nii.gz").write_bytes(gzip.compress(whole))
    for read in (open_responses, read_labels):
        with pytest.raises(DatasetError, match=r"Type:  gunzip .*a\.dscalar\.nii\.gz"):
            read(tmp_path / "a.dscalar.nii.gz")
