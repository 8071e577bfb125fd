"""Files of recordings that meet: what differs is put in order, or refused with both values."""

import gzip
import json

import h5py
import mne
import nibabel
import numpy as np
import pytest
import zarr
from nibabel import gifti

from berg.core.exceptions import CorruptedFileError, DatasetError, StorageError, UnsafeFileError
from berg.datasets.dataset import EncodingDataset
from berg.datasets.label_files import read_labels
from berg.datasets.response_files import open_responses
from berg.stimuli.arrays import open_array

N, SHAPE = 6, (4, 5, 6)
RNG = np.random.default_rng(0)
VOLUMES = RNG.normal(size=(*SHAPE, N)).astype(np.float32)
AFFINE = np.array([[2.0, 0, 0, -4], [0, 2, 0, 3], [0, 0, 2.5, 1], [0, 0, 0, 1]])
FLIPPED = AFFINE @ np.array([[-1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "p.npy", RNG.integers(0, 256, (N, 3, 8, 8), np.uint8))
    np.save(tmp_path / "twice.npy", np.tile(np.arange(N), 2))
    return tmp_path


def opened(folder, output, name="responses", presentations="", more=""):
    text = f"stimuli: p.npy\n{presentations and f'presentations: {presentations}'}\n{more}\n"
    (folder / "dataset.yaml").write_text(text + f"responses: {{{name}: {output}}}\n")
    return EncodingDataset.open(folder).outputs[name]


def volume(path, values=VOLUMES, affine=AFFINE):
    nibabel.Nifti1Image(values, affine).to_filename(path)


# Volumes


@pytest.mark.parametrize(
    ("affine", "fits"),
    [(AFFINE, True), (AFFINE + 1e-4, True), (FLIPPED, False), (AFFINE + np.eye(4)[3] * 0.5, False)],
    ids=["the same", "rounded", "flipped", "half a millimetre away"],
)
def test_sessions_of_volumes_are_of_one_space(affine, fits, folder):
    volume(folder / "s1.nii.gz")
    volume(folder / "s2.nii", affine=affine)
    output = "{path: [s1.nii.gz, s2.nii], unit: z}"
    if fits:
        found = opened(folder, output, presentations="twice.npy").mean(np.arange(N))
        np.testing.assert_allclose(found, VOLUMES.reshape(-1, N).T, rtol=1e-6)
        return
    with pytest.raises(
        DatasetError, match=r"s2\.nii and s1\.nii\.gz have other affines: \[\[.*\]\] and \[\[2\.0, 0\.0"
    ):
        opened(folder, output, presentations="twice.npy")


@pytest.mark.parametrize("ending", [".nii.gz", ".mgz", ".npy"])
def test_regions_of_another_shape_are_refused_though_they_are_as_many(ending, folder):
    volume(folder / "r.nii")
    regions = np.ones((6, 5, 4), np.float32)
    if ending == ".npy":
        np.save(folder / "roi.npy", regions)
    else:
        kind = nibabel.MGHImage if ending == ".mgz" else nibabel.Nifti1Image
        kind(regions, AFFINE).to_filename(folder / f"roi{ending}")
    with pytest.raises(DatasetError, match=r"\(6, 5, 4\).*\(4, 5, 6\)"):
        opened(folder, f"{{path: r.nii, unit: z, coordinates: {{roi: roi{ending}}}}}")


def test_regions_of_another_affine_are_refused_with_and_without_a_mask(folder):
    volume(folder / "r.nii")
    volume(folder / "mask.nii", np.ones(SHAPE, np.uint8))
    volume(folder / "roi.nii", np.ones(SHAPE, np.uint8), FLIPPED)
    for mask in ("", "mask: mask.nii, "):
        with pytest.raises(DatasetError, match=r"roi roi\.nii and the responses have other affines"):
            opened(folder, f"{{path: r.nii, unit: z, {mask}coordinates: {{roi: roi.nii}}}}")


# Surfaces


def surface(path, n_rows=N, structure="CortexLeft", seed=1):
    values = np.random.default_rng(seed).normal(size=(n_rows, 7)).astype(np.float32)
    arrays = [gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32") for row in values]
    meta = gifti.GiftiMetaData({"AnatomicalStructurePrimary": structure} if structure else {})
    gifti.GiftiImage(darrays=arrays, meta=meta).to_filename(path)
    return values


def test_surfaces_are_of_one_hemisphere(folder):
    one, two = surface(folder / "s1.func.gii"), surface(folder / "s2.func.gii", seed=2)
    surface(folder / "s3.func.gii", structure=None)
    surface(folder / "right.func.gii", structure="CortexRight")
    surface(folder / "labels.gii", 1, "CortexRight")
    found = opened(folder, "{path: [s1.func.gii, s2.func.gii], unit: z}", "lh", "twice.npy").mean(np.arange(N))
    np.testing.assert_allclose(found, (one + two) / 2, rtol=1e-5)
    opened(folder, "{path: [s1.func.gii, s3.func.gii], unit: z}", "lh", "twice.npy")  # one does not say
    for paths, words in {
        "[s1.func.gii, right.func.gii]": r"right\.func\.gii is of CortexRight, s1\.func\.gii of CortexLeft",
        "[right.func.gii, right.func.gii]": "'lh' has the responses of CortexRight",
        "[s1.func.gii, s2.func.gii], coordinates: {roi: labels.gii}": r"roi labels\.gii is of CortexRight",
        "[s1.func.gii, s2.func.gii], mask: labels.gii": r"mask labels\.gii is of CortexRight",
    }.items():
        with pytest.raises(DatasetError, match=words):
            opened(folder, f"{{path: {paths}, unit: z}}", "lh", "twice.npy")


# Epochs

EEG = 1e-5 * np.random.default_rng(3).normal(size=(N, 3, 20))
CHANNELS = ["Oz", "O1", "O2"]


def epochs(path, values=EEG, channels=CHANNELS, tmin=0.0, rate=200.0, types="eeg", no_unit=False):
    info = mne.create_info(list(channels), rate, types)
    if no_unit:
        for channel in info["chs"]:
            channel["unit"] = mne.io.constants.FIFF.FIFF_UNIT_NONE
    events = np.column_stack([np.arange(N) * 40, np.zeros(N, int), np.ones(N, int)])
    mne.EpochsArray(values, info, events, tmin, {"x": 1}, baseline=None, verbose="error").save(path, verbose="error")


def test_channels_in_another_order_are_put_in_order(folder):
    order = [2, 0, 1]
    epochs(folder / "a1-epo.fif")
    epochs(folder / "a2-epo.fif", 3 * EEG[:, order], [CHANNELS[place] for place in order])
    data = opened(folder, "{path: 'a*-epo.fif', unit: uV, scale: 1e6}", presentations="twice.npy")
    assert data.coordinates["channel"][1].tolist() == CHANNELS
    np.testing.assert_allclose(data.mean(np.arange(N)).reshape(EEG.shape), 2e6 * EEG, rtol=1e-5)
    some = np.array([41, 3, 20])
    np.testing.assert_allclose(data.mean([2], some), 2e6 * EEG[[2]].reshape(1, -1)[:, some], rtol=1e-5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"tmin": 0.1}, r"a2-epo\.fif has the time 0\.1 to 0\.195 \(20\); a1-epo\.fif 0 to 0\.095 \(20\)"),
        ({"rate": 250.0}, r"a2-epo\.fif has a sampling interval of 0\.004; .*a1-epo\.fif 0\.005"),
        ({"channels": ["Oz", "O1", "Pz"]}, r"a2-epo\.fif has the channels Oz, O1, Pz; a1-epo\.fif Oz, O1, O2"),
        ({"types": "mag"}, r"a2-epo\.fif has the unit T; .*a1-epo\.fif V"),
        ({"no_unit": True}, r"a2-epo\.fif has the unit None; .*a1-epo\.fif V"),
    ],
)
def test_sessions_of_epochs_that_differ_are_refused_with_both_values(other, words, folder):
    epochs(folder / "a1-epo.fif")
    epochs(folder / "a2-epo.fif", **other)
    with pytest.raises(DatasetError, match=words):
        opened(folder, "{path: 'a*-epo.fif', unit: V}", presentations="twice.npy")


@pytest.mark.parametrize(
    ("coordinates", "words"),
    [
        ("channel: [O1, Oz, O2]", "channel 1 of 3 is O1 as given, and Oz in the file"),
        ("channel: [Oz, O1, Pz]", None),  # a new name for one
        (f"time: {[0.1 + place / 200 for place in range(20)]}", "time 1 of 20 is 0.1 as given, and 0.0 in the file"),
        (f"time: {[place / 200 for place in range(20)]}", None),
    ],
)
def test_labels_that_contradict_the_file_are_refused(coordinates, words, folder):
    epochs(folder / "a-epo.fif")
    output = f"{{path: a-epo.fif, unit: V, coordinates: {{{coordinates}}}}}"
    if words is None:
        opened(folder, output)
        return
    with pytest.raises(DatasetError, match=words):
        opened(folder, output)


def test_a_sampling_interval_that_contradicts_the_file_is_refused(folder):
    epochs(folder / "a-epo.fif")
    with pytest.raises(DatasetError, match=r"sampling_interval_s is 0\.005, 0\.01 s"):
        opened(folder, "{path: a-epo.fif, unit: V}", more="sampling_interval_s: 0.01")


@pytest.mark.parametrize(
    ("types", "unit", "factor"),
    [
        ("eeg", "µV", 1e6),
        ("eeg", "[microvolts]", 1e6),
        ("eeg", "mV", 1e3),
        ("mag", "fT", 1e15),
        ("grad", "fT/cm", 1e13),
    ],
)
def test_units_must_fit_the_scale(types, unit, factor, folder):
    epochs(folder / "a-epo.fif", types=types)
    data = opened(folder, f"{{path: a-epo.fif, unit: '{unit}', scale: {factor:.0f}}}")
    np.testing.assert_allclose(data.mean(np.arange(N)).reshape(EEG.shape), factor * EEG, rtol=1e-5)
    for given in (f"unit: '{unit}'", f"unit: '{unit}', scale: {10 * factor:.0f}"):
        with pytest.raises(DatasetError, match=r"Write  scale: 1.*  or  unit: "):
            opened(folder, f"{{path: a-epo.fif, {given}}}")
    for given, words in {
        "unit: kV": "no known way to write volts",
        "scale: 1000": "write the unit that this makes",
        "unit: T" if types == "eeg" else "unit: V": "is not",
    }.items():
        with pytest.raises(DatasetError, match=words):
            opened(folder, f"{{path: a-epo.fif, {given}}}")


def test_z_scores_and_epochs_without_a_unit_keep_their_numbers(folder):
    epochs(folder / "a-epo.fif", no_unit=True)
    assert open_responses(folder / "a-epo.fif").unit is None
    assert opened(folder, "{path: a-epo.fif, unit: z-scored}").unit == "z-scored"
    epochs(folder / "b-epo.fif")
    np.testing.assert_allclose(
        opened(folder, "{path: b-epo.fif, unit: z-scored, scale: 2}").mean([0]), 2 * EEG[:1].reshape(1, -1), rtol=1e-5
    )


def test_arrays_with_other_numbers_of_repetitions_are_not_joined(folder):
    np.save(folder / "a.npy", np.zeros((3, 2, 4)))
    np.save(folder / "b.npy", np.zeros((2, 3, 4)))
    with pytest.raises(DatasetError, match=r"b\.npy has repetitions 3; .*a\.npy 2"):
        opened(folder, "{path: [a.npy, b.npy], axes: [stimulus, repetition, voxel], unit: z}")


# Files that are damaged, that lie elsewhere, or that say too much


@pytest.mark.parametrize("ending", [".nii.gz", ".mgz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "checksum"])
@pytest.mark.parametrize("read", [read_labels, lambda path: open_responses(path).rows.read(np.arange(N), slice(None))])
def test_a_compressed_volume_is_read_to_its_checksum(ending, damage, read, tmp_path):
    path = tmp_path / f"a{ending}"
    (nibabel.MGHImage if ending == ".mgz" else nibabel.Nifti1Image)(VOLUMES, AFFINE).to_filename(path)
    read(path)
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) * 2 // 3]
    else:
        raw[-6 if damage == "checksum" else len(raw) // 2] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(CorruptedFileError, match=rf"a{ending} (cannot be read|is cut off)"):
        read(path)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(np.complex64, "complex numbers"), (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours")],
)
def test_volumes_without_one_real_number_per_voxel_are_refused(dtype, words, tmp_path):
    nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), dtype), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    for read in (open_responses, read_labels):
        with pytest.raises(DatasetError, match=rf"a\.nii\.gz holds {words}"):
            read(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_volume_that_says_it_is_huge_is_refused_before_memory_is_asked_for(ending, tmp_path):
    volume(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[42:50] = np.array([32767, 32767, 32767, 100], "<i2").tobytes()
    path = tmp_path / f"b{ending}"
    path.write_bytes(gzip.compress(raw) if ending == ".nii.gz" else raw)
    for read in (open_responses, read_labels):
        with pytest.raises(CorruptedFileError, match=r"cut off or damaged: .*\(32767, 32767, 32767, 100\)"):
            read(path)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".zarr"])
def test_an_array_that_says_it_is_huge_is_refused_before_memory_is_asked_for(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    npy = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(80)
    if ending == ".npy":
        path.write_bytes(npy)
    elif ending == ".zarr":
        zarr.create_array(path, shape=(2**40,), chunks=(2**20,), dtype="f8")
    else:
        np.savez(path, x=np.zeros(3))
        import zipfile

        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", npy)
    for read in (open_responses, read_labels, *([open_array] if ending != ".npz" else [])):
        with pytest.raises(CorruptedFileError, match=rf"a{ending} cannot be"):
            read(path)


def test_a_temporary_file_that_does_not_fit_is_not_begun(tmp_path, monkeypatch):
    volume(tmp_path / "a.nii.gz")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 100}))
    with pytest.raises(StorageError, match="Set TMPDIR"):
        open_responses(tmp_path / "a.nii.gz")


def test_gifti_with_its_data_in_another_file_is_refused(tmp_path):
    surface(tmp_path / "a.func.gii", 1)
    (tmp_path / "secret.bin").write_bytes(bytes(28))
    text = (tmp_path / "a.func.gii").read_text()
    text = text.replace('"GZipBase64Binary"', '"ExternalFileBinary"')
    text = text.replace('ExternalFileName=""', 'ExternalFileName="secret.bin"')
    text = text.replace('ExternalFileOffset=""', 'ExternalFileOffset="0"')
    assert "secret.bin" in text
    (tmp_path / "b.func.gii").write_text(text)
    for read in (open_responses, read_labels):
        with pytest.raises(
            UnsafeFileError, match=r"b\.func\.gii has its values in another file \(ExternalFileBinary\)"
        ):
            read(tmp_path / "b.func.gii")


def test_a_surface_of_some_vertices_is_not_taken_for_two_rows(tmp_path):
    nodes = gifti.GiftiDataArray(np.arange(7, dtype=np.int32), "NIFTI_INTENT_NODE_INDEX", "NIFTI_TYPE_INT32")
    values = gifti.GiftiDataArray(np.zeros(7, np.float32), "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32")
    gifti.GiftiImage(darrays=[nodes, values]).to_filename(tmp_path / "a.func.gii")
    with pytest.raises(DatasetError, match="some vertices only"):
        open_responses(tmp_path / "a.func.gii")


def test_gifti_without_attributes_or_values_is_named(tmp_path):
    surface(tmp_path / "a.func.gii", 1)
    text = (tmp_path / "a.func.gii").read_text()
    start, end = text.index("<DataArray"), text.index(">", text.index("<DataArray"))
    (tmp_path / "b.gii").write_text(text[:start] + "<DataArray" + text[end:])
    (tmp_path / "c.gii").write_text(text[: text.index("<Data>")] + text[text.index("</Data>") + 7 :])
    for name in ("b.gii", "c.gii"):
        for read in (open_responses, read_labels):
            with pytest.raises((CorruptedFileError, DatasetError), match=name):
                read(tmp_path / name)


def test_an_empty_npy_and_an_npz_of_that_name_are_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    for name in ("a.npy", "b.npy"):
        for read in (open_responses, read_labels, open_array):
            with pytest.raises(CorruptedFileError, match=rf"{name} cannot be (read|opened)"):
                read(tmp_path / name)


def test_damaged_and_nested_zarr_is_named_and_read(tmp_path):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w").create_group("deep").create_group("deeper")
    group.create_array("x", data=np.arange(12.0).reshape(6, 2), chunks=(3, 2))
    np.testing.assert_array_equal(open_array(path)[1:3], np.arange(12.0).reshape(6, 2)[1:3])
    np.testing.assert_array_equal(open_array(path, "deep/deeper/x")[:], read_labels(path))
    chunk = path / "deep/deeper/x/c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    rows = open_responses(path).rows
    for read in (
        lambda: rows.read(np.arange(6), slice(None)),
        lambda: open_array(path)[0:6],
        lambda: read_labels(path),
    ):
        with pytest.raises(CorruptedFileError, match=r"a\.zarr cannot be read"):
            read()
    (path / "deep/deeper/x/zarr.json").write_text(json.dumps({"zarr_format": 3}))
    for read in (open_responses, read_labels, open_array):
        with pytest.raises(CorruptedFileError, match=r"a\.zarr cannot be"):
            read(path)


def test_hdf5_that_is_damaged_inside_is_named_when_it_is_read(tmp_path):
    values = RNG.normal(size=(200, 50))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(50, 50), fletcher32=True)
        place = file["x"].id.get_chunk_info(2).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[place + 100] ^= 1
    (tmp_path / "a.h5").write_bytes(raw)
    rows, part = open_responses(tmp_path / "a.h5").rows, open_array(tmp_path / "a.h5")
    np.testing.assert_allclose(rows.read(np.arange(100), slice(None)), values[:100], rtol=1e-6)
    np.testing.assert_array_equal(part[:100], values[:100])
    for read in (lambda: rows.read(np.arange(200), slice(None)), lambda: part[:]):
        with pytest.raises(CorruptedFileError, match=r"a\.h5 cannot be read"):
            read()


def renamed_part(path, name):
    """A file of split epochs whose next part is called otherwise, in as many letters."""
    raw = path.read_bytes()
    assert raw.count(b"a-epo-1.fif") == 1
    path.write_bytes(raw.replace(b"a-epo-1.fif", name))


def test_epochs_in_several_parts_are_read_but_not_from_elsewhere(tmp_path):
    values = 1e-6 * RNG.normal(size=(40, 3, 5000))
    events = np.column_stack([np.arange(40) * 5000, np.zeros(40, int), np.ones(40, int)])
    written = mne.EpochsArray(values, mne.create_info(CHANNELS, 200.0, "eeg"), events, verbose="error")
    written.save(tmp_path / "a-epo.fif", split_size="2MB", verbose="error")
    assert (tmp_path / "a-epo-1.fif").exists()
    found = open_responses(tmp_path / "a-epo.fif").rows
    np.testing.assert_allclose(found.read(np.array([0, 39]), slice(None)), values[[0, 39]].reshape(2, -1), rtol=1e-5)
    renamed_part(tmp_path / "a-epo.fif", b"../a-ep.fif")
    for read in (open_responses, read_labels):
        with pytest.raises(
            UnsafeFileError, match=r"a-epo\.fif goes on in '\.\./a-ep\.fif', which is not in its folder"
        ):
            read(tmp_path / "a-epo.fif")


def test_a_fif_file_that_leads_back_to_itself_is_not_read_for_ever(tmp_path):
    epochs(tmp_path / "a-epo.fif")
    raw = bytearray((tmp_path / "a-epo.fif").read_bytes())
    raw[48:52] = (36).to_bytes(4, "big")  # the second tag, at 36, says that the next one is at 36
    (tmp_path / "a-epo.fif").write_bytes(raw)
    for read in (open_responses, read_labels):
        with pytest.raises(CorruptedFileError, match="its tags lead back"):
            read(tmp_path / "a-epo.fif")
