"""The model of mouse neurons: against its equations written a second time, and along every way of a film."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import mouse_scans
from published.layouts import model_folder, write_pickled_npy
from published.mouse_scans import MODEL

from berg import BERG, Film
from berg.cli.app import main
from berg.core.exceptions import (
    BERGError,
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    StimulusError,
    UnsafeFileError,
)
from berg.encoding import stream
from berg.encoding.estimate import estimate
from berg.families.recurrent_3dcnn.features import FilmFeatures
from berg.models.batches import SmallerBatchWarning
from berg.responses.store import open_responses

N_UNITS = 60
RNG = np.random.default_rng(1)
FILM = RNG.integers(0, 256, (16, 144, 256), dtype=np.uint8)
EYE, BEHAVIOUR = RNG.normal(size=(2, len(FILM), 2))
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module")
def scan() -> Iterator[tuple[Path, mouse_scans.Weights]]:
    """A BERG directory with session 8, scan 5, at reduced size, and its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        core, own = mouse_scans.write_scan(Path(folder), 8, 5, N_UNITS)
        yield Path(folder), {**core, **own}


@pytest.fixture(scope="module")
def berg(scan: Any) -> BERG:
    return BERG(scan[0])


@pytest.fixture(scope="module")
def model(berg: BERG) -> Any:
    return berg.get_encoding_model(MODEL, train_session="session-8_scan-5", device="cpu")


@pytest.fixture(scope="module")
def whole(model: Any) -> Any:
    return model(FILM)


# The numbers


def test_a_film_gives_the_numbers_of_the_equations(scan, model, whole):
    expected = mouse_scans.activity(scan[1], FILM[:4])
    assert whole.shape == (len(FILM), N_UNITS)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole[:4], expected, rtol=2e-6)
    assert expected.std(axis=0).min() > 1e-3  # the frames matter


def test_eye_and_behaviour_enter_as_in_the_equations(scan, berg, model, whole):
    observed = berg.encode(model, FILM[:3], eye_position=EYE[:3], behaviour=BEHAVIOUR[:3])
    np.testing.assert_allclose(observed, mouse_scans.activity(scan[1], FILM[:3], EYE[:3], BEHAVIOUR[:3]), rtol=2e-6)
    assert np.abs(observed / whole[:3] - 1).max() > 0.01
    alone = berg.encode(model, FILM[:2], behaviour=BEHAVIOUR[:2])  # the eye looks straight ahead
    np.testing.assert_allclose(alone, mouse_scans.activity(scan[1], FILM[:2], behaviour=BEHAVIOUR), rtol=2e-6)


@pytest.mark.slow
def test_at_full_size_too():
    core, own = mouse_scans.random_weights(np.random.default_rng(3), 5, mouse_scans.FULL)
    with tempfile.TemporaryDirectory() as folder:
        mouse_scans.write_scan(Path(folder), 4, 7, 5, seed=3, sizes=mouse_scans.FULL)
        model = BERG(folder).get_encoding_model(MODEL, train_session="4-7", device="cpu")
        expected = mouse_scans.activity({**core, **own}, FILM[:3], EYE, BEHAVIOUR)
        np.testing.assert_allclose(model(Film(FILM[:3], EYE[:3], BEHAVIOUR[:3])), expected, rtol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
def test_pieces_of_any_length_give_the_whole(model, whole, batch_size):
    np.testing.assert_allclose(model(FILM, batch_size=batch_size), whole, **CLOSE)


def test_activations_in_pieces_give_the_whole(model, whole, monkeypatch):
    monkeypatch.setattr(FilmFeatures, "_piece_length", lambda *_: 3)
    np.testing.assert_allclose(model(FILM, batch_size=7), whole, **CLOSE)


def test_several_films_are_each_computed_by_itself(model, whole):
    films = np.stack([FILM, FILM[::-1], 255 - FILM])
    together = model(films)
    assert together.shape == (3, len(FILM), N_UNITS)
    for film, responses in zip(films, together, strict=True):
        np.testing.assert_allclose(responses, model(film), **CLOSE)
    np.testing.assert_allclose(model(list(films), batch_size=2), together, **CLOSE)


def test_a_film_begins_anew_after_another_one(model, whole):
    model(255 - FILM[:5])
    np.testing.assert_array_equal(model(FILM), whole)
    np.testing.assert_allclose(model(FILM[:1]), whole[:1], **CLOSE)
    assert np.abs(model(FILM[3:4]) / whole[3:4] - 1).max() > 1e-3  # a frame without its past is another one


def test_predict_is_differentiable_agrees_and_keeps_nothing(model, whole):
    film = torch.from_numpy(FILM[:3]).float().requires_grad_()
    for _ in range(2):
        predicted = model.predict(film)
        np.testing.assert_allclose(predicted.detach().numpy(), whole[:3], rtol=1e-5)
    predicted[2].sum().backward()
    assert (film.grad.abs().amax((1, 2)) > 0).all()  # also of the frames before
    films = model.predict(torch.stack([film, 255 - film]).detach())
    assert films.shape == (2, 3, N_UNITS)


def test_too_little_memory_halves_a_batch_and_changes_nothing(model, whole, monkeypatch):
    step = FilmFeatures.step

    def breaking(self: Any, frames: torch.Tensor, state: Any) -> Any:
        maps, after = step(self, frames, state)
        if frames.shape[1] > 3:
            raise MemoryError
        return maps, after

    monkeypatch.setattr(FilmFeatures, "step", breaking)
    with pytest.warns(SmallerBatchWarning):
        np.testing.assert_allclose(model(FILM, batch_size=8), whole, **CLOSE)


def test_a_failure_after_the_features_does_not_move_the_film_on(model, whole, monkeypatch):
    read, n_calls = type(model.readout).read, []

    def failing_once(self: Any, maps: torch.Tensor) -> torch.Tensor:
        n_calls.append(len(n_calls))
        if len(n_calls) == 3:
            raise MemoryError
        return read(self, maps)

    monkeypatch.setattr(type(model.readout), "read", failing_once)
    with pytest.warns(SmallerBatchWarning):
        np.testing.assert_allclose(model(FILM, batch_size=4), whole, **CLOSE)


@pytest.mark.parametrize("dtype", [np.int64, ">i2", np.uint16])
def test_any_integers_give_the_same(model, whole, dtype):
    np.testing.assert_array_equal(model(FILM.astype(dtype)), whole)


# Labels, selection, evidence


def test_labels_say_when_each_frame_was_and_which_are_settling(berg, model, whole):
    labelled = berg.encode(model, FILM, labelled=True)
    assert labelled.activity.dims == ("stimulus", "unit")
    np.testing.assert_allclose(labelled.time, np.arange(len(FILM)) / 30)
    assert labelled.is_settling.values.tolist() == [True] * 10 + [False] * 6
    assert {"unit_id", "roi", "field", "x", "y", "z", "OSI", "DSI", "pref_ori", "cc_abs", "cc_max", "cc_norm"} <= set(
        labelled.coords
    )
    settled = labelled.activity.where(~labelled.is_settling, drop=True)
    np.testing.assert_array_equal(settled, whole[10:])
    films = berg.encode(model, np.stack([FILM, FILM]), labelled=True)
    assert films.activity.dims == ("stimulus", "time", "unit")
    np.testing.assert_allclose(films.sel(time=slice(0.1, 0.2)).time, np.arange(3, 7) / 30)
    assert films.is_settling.dims == ("time",)
    np.testing.assert_array_equal(berg.encode(model, FILM, labelled=True).activity, whole)  # one film again


def test_areas_fields_and_units_are_united_in_the_order_of_the_scan(berg, whole):
    metadata = berg.get_model_metadata(MODEL, train_session="8-5")["calcium_2p"]
    v1, al = (np.asarray(metadata["roi"][name], bool) for name in ("V1", "AL"))
    fields = {number: np.asarray(metadata["field_masks"][f"field_{number}"], bool) for number in range(1, 9)}
    mask = (np.arange(N_UNITS) % 7 == 0).astype(int)
    expected = {
        "V1": ({"roi": "V1"}, v1),
        "two": ({"roi": ["AL", "V1"]}, v1 | al),
        "field": ({"field": 3}, fields[3]),
        "fields": ({"field": [5, 2]}, fields[5] | fields[2]),
        "words": ({"field": ["field_5", "2"]}, fields[5] | fields[2]),
        "array": ({"field": np.array([5, 2])}, fields[5] | fields[2]),
        "all keys": ({"roi": "V1", "field": [3], "unit_index": mask}, v1 | fields[3] | (mask == 1)),
    }
    for selection, chosen in expected.values():
        model = berg.get_encoding_model(MODEL, train_session="session8_scan5", selection=selection, device="cpu")
        np.testing.assert_array_equal(model.indices_of("activity", "unit"), np.flatnonzero(chosen))
        np.testing.assert_allclose(model(FILM[:2]), whole[:2, chosen], **CLOSE)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"field": 9}, r"'field' is 9\..*Allowed: 1, 2, 3"),
        ({"field": "field_0"}, r"field_0"),
        ({"roi": "V2"}, r"'roi' is 'V2'\..*V1"),
        ({"unit_index": np.ones(5)}, r"length 60"),
        ({"time": 3}, "not a selection key"),
    ],
)
def test_wrong_selections_are_refused(berg, selection, words):
    with pytest.raises(InvalidParameterError, match=words):
        berg.get_encoding_model(MODEL, train_session="8-5", selection=selection)


def test_a_field_that_a_scan_lacks_is_refused_with_those_it_has(tmp_path):
    mouse_scans.write_scan(tmp_path, 9, 6, 20, n_fields=4)
    with pytest.raises(InvalidParameterError, match=r"field_7.*field_1"):
        BERG(tmp_path).get_encoding_model(MODEL, train_session="9-6", selection={"field": 7})


@pytest.mark.parametrize("spelling", ["session-8_scan-5", "session8_scan5", "8-5"])
def test_a_scan_is_found_in_each_spelling(berg, spelling):
    assert berg.files_of(MODEL, train_session=spelling)[:2] == [
        "encoding_models_weights/params_8_5.pt",
        "metadata/session-8_scan-5_metadata.npy",
    ]
    model = berg.get_encoding_model(MODEL, train_session=spelling, device="cpu")
    assert model.parameters["train_session"] == "session-8_scan-5"


def test_an_unknown_scan_is_refused_and_a_missing_one_named(berg):
    with pytest.raises(InvalidParameterError, match=r"'train_session'.*session-8_scan-6.*Allowed: session-4_scan-7"):
        berg.get_encoding_model(MODEL, train_session="session-8_scan-6")
    with pytest.raises(MissingFileError, match=r"session-4_scan-7.*berg download"):
        berg.get_encoding_model(MODEL, train_session="4-7")


def test_accuracy_is_that_of_the_metadata(berg):
    table = berg.accuracy(MODEL, train_session="8-5", selection={"roi": "V1"})
    metadata = berg.get_model_metadata(MODEL, train_session="8-5")
    v1 = np.asarray(metadata["calcium_2p"]["roi"]["V1"], bool)
    for name in ("cc_abs", "cc_max", "cc_norm"):
        np.testing.assert_allclose(table[name], metadata["encoding_model"][name][v1], rtol=1e-6)


def test_all_thirteen_scans_can_be_named():
    card = BERG().describe(MODEL)
    assert len(card["parameters"]["train_session"]["valid_values"]) == 13


# Ways of a film


def test_a_film_goes_into_arrays_and_files(berg, model, whole, tmp_path):
    import h5py

    out = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, whole.shape)
    assert model(FILM, out=out) is out
    np.testing.assert_array_equal(out, whole)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", whole.shape, "float32")
        model(FILM, out=dataset)
        np.testing.assert_array_equal(dataset[:], whole)
        frames = file.create_dataset("film", data=FILM)
        np.testing.assert_array_equal(model(frames), whole)
    np.save(tmp_path / "film.npy", FILM)
    np.testing.assert_array_equal(model(np.load(tmp_path / "film.npy", mmap_mode="r")), whole)
    berg.encode(model, FILM, out=tmp_path / "a.nc")


def test_a_film_in_a_store_continues_where_it_was_interrupted(berg, model, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("berg.encoding.task.MAX_BLOCK_STIMULI", 4)
    path, encode_batches = tmp_path / "film.zarr", stream.encode_batches
    observed = {"eye_position": EYE, "behaviour": BEHAVIOUR}
    expected = berg.encode(model, FILM, **observed)

    def breaking(*arguments: Any) -> Iterator[Any]:
        for number, batch in enumerate(encode_batches(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(stream, "encode_batches", breaking)
    with pytest.raises(KeyboardInterrupt):
        berg.encode(model, FILM, out=path, batch_size=2, **observed)
    monkeypatch.setattr(stream, "encode_batches", encode_batches)
    model(255 - FILM)  # another film in between
    stored = berg.encode(model, FILM, out=path, batch_size=2, **observed)
    np.testing.assert_allclose(stored.activity, expected, **CLOSE)
    np.testing.assert_allclose(stored.time, np.arange(len(FILM)) / 30)
    assert stored.is_settling.values.sum() == 10

    chunk = next(path.glob("activity/c/2/*"))  # a block in the middle is damaged: it alone is written again
    chunk.write_bytes(chunk.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="1 of 4 blocks"):
        again = berg.encode(model, FILM, out=path, batch_size=2, **observed)
    np.testing.assert_allclose(again.activity, expected, **CLOSE)
    with pytest.raises(BERGError, match="other stimuli"):  # another eye is another film
        berg.encode(model, FILM, out=path, batch_size=2, eye_position=EYE + 1, behaviour=BEHAVIOUR)


def test_films_in_a_store(berg, model, tmp_path):
    films = np.stack([FILM[:4], 255 - FILM[:4], FILM[4:8]])
    stored = berg.encode(model, films, out=tmp_path / "films.zarr")
    np.testing.assert_array_equal(stored.activity, model(films))
    assert stored.activity.dims == ("stimulus", "time", "unit")
    np.testing.assert_array_equal(open_responses(tmp_path / "films.zarr").activity, model(films))


def test_an_estimate_counts_the_frames_of_a_film(model, tmp_path):
    estimated = estimate(model, FILM, tmp_path / "x.zarr", n_stimuli=9000)
    assert estimated.disk_bytes > 4 * N_UNITS * 9000


@pytest.mark.slow
def test_one_film_cannot_be_shared_out_among_workers(berg, tmp_path):
    np.save(tmp_path / "film.npy", FILM)
    given = {"train_session": "8-5", "device": "cpu", "scheduler": "local:1"}
    with pytest.raises(InvalidParameterError, match=r"One film of 16 frames cannot be shared out"):
        berg.encode(MODEL, str(tmp_path / "film.npy"), out=tmp_path / "a.zarr", **given)
    np.save(tmp_path / "films.npy", np.stack([FILM[:3], FILM[3:6]]))
    stored = berg.encode(MODEL, str(tmp_path / "films.npy"), out=tmp_path / "b.zarr", **given)
    model = berg.get_encoding_model(MODEL, train_session="8-5", device="cpu")
    np.testing.assert_allclose(stored.activity[1], model(FILM[3:6]), **CLOSE)


def test_two_scans_in_one_call(berg, model, whole, scan):
    mouse_scans.write_scan(scan[0], 4, 7, 30, seed=5)
    mouse_scans.write_scan(scan[0], 8, 5, N_UNITS)  # the core is that of this scan again
    v1 = berg.get_encoding_model(MODEL, train_session="8-5", selection={"roi": "V1"}, device="cpu")
    first, second = berg.encode([model, v1], FILM, batch_size=5)
    np.testing.assert_allclose(first, whole, **CLOSE)
    np.testing.assert_allclose(second, whole[:, v1.indices_of("activity", "unit")], **CLOSE)


def test_the_command_line_encodes_an_array(berg, whole, tmp_path):
    np.save(tmp_path / "film.npy", FILM)
    words = ["--parameter", "train_session=8-5", "--device", "cpu", "--berg-dir", str(berg.berg_dir)]
    assert not main(["encode", MODEL, "--array", str(tmp_path / "film.npy"), "--out", str(tmp_path / "a.nc"), *words])
    import xarray

    with xarray.open_dataset(tmp_path / "a.nc") as written:
        np.testing.assert_allclose(written.activity, whole, **CLOSE)
        np.testing.assert_allclose(written.time, np.arange(len(FILM)) / 30)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_film(berg, tmp_path):
    """A film of 40 times the frames, from a memory map into one, takes the same memory."""
    model = berg.get_encoding_model(MODEL, train_session="8-5", selection={"unit_index": [3, 4]}, device="cpu")
    film = np.lib.format.open_memmap(tmp_path / "film.npy", "w+", np.uint8, (640, 144, 256))
    film[:] = 128
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (640, 2))
    model(film[:16], out=out[:16])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model(film, out=out)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000  # kB; the film has 24,000, which the system keeps mapped
    assert len(model.features.kept) <= 2


# Wrong stimuli


@pytest.mark.parametrize(
    ("stimulus", "words"),
    [
        (np.zeros((5, 72, 128), np.uint8), r"\(72, 128\).*144 x 256.*30 per second.*berg\.convert_film"),
        (np.zeros((5, 3, 144, 256), np.uint8)[:, :, :100], r"144 x 256.*convert_film"),
        (np.zeros((5, 144, 256, 3), np.uint8), "convert_film"),
        (np.zeros((5, 144, 256)), r'round\(\)\.astype\("uint8"\)'),
        (np.full((5, 144, 256), 300), r"\[300, 300\].*\[0, 255\]"),
        (np.zeros((0, 144, 256), np.uint8), "empty"),
        (np.zeros((144, 256), np.uint8), "shape"),
        ([FILM[:3], FILM[:4]], r"Film 1 has 4 frames, film 0 has 3.*one by one"),
    ],
)
def test_films_of_another_kind_are_refused_with_what_to_do(model, stimulus, words):
    with pytest.raises(StimulusError, match=words):
        model(stimulus)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"eye_position": EYE[:3]}, r"eye_position has shape \(3, 2\).*\(16, 2\)"),
        ({"behaviour": np.full((16, 2), np.nan)}, "behaviour has NaN"),
        ({"eye_position": "left"}, "eye_position must be numbers"),
        ({"eye_positon": EYE}, r"no option 'eye_positon'\. Did you mean 'eye_position'"),
    ],
)
def test_wrong_eyes_are_refused(berg, model, given, words):
    with pytest.raises(InvalidParameterError, match=words):
        berg.encode(model, FILM, **given)


def test_eyes_of_several_films(berg, model):
    films, eyes = np.stack([FILM[:3], FILM[3:6]]), np.stack([EYE[:3], EYE[3:6]])
    together = berg.encode(model, films, eye_position=eyes)
    for number in range(2):
        alone = berg.encode(model, films[number], eye_position=eyes[number])
        np.testing.assert_allclose(together[number], alone, **CLOSE)
    with pytest.raises(InvalidParameterError, match="for 1 films, and there are 2"):
        berg.encode(model, films, eye_position=eyes[:1])
    same = berg.encode(model, films, behaviour=[0.5, 1.0])
    np.testing.assert_allclose(same[1], berg.encode(model, films[1], behaviour=np.full((3, 2), [0.5, 1])), **CLOSE)


def test_models_of_pictures_have_no_eyes():
    with pytest.raises(InvalidParameterError, match="belong to models that take films"):
        BERG().encode("fmri-szinte2024-prf_css", np.zeros((2, 3, 64, 64), np.uint8), eye_position=[0, 0])


# Files


def test_converted_weights_give_the_same(scan, tmp_path):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    berg = BERG(tmp_path)
    before = berg.get_encoding_model(MODEL, train_session="8-5", device="cpu")(FILM[:2])
    main(["convert", MODEL, "--parameter", "train_session=8-5", "--berg-dir", str(tmp_path)])
    written = model_folder(tmp_path, MODEL) / "encoding_models_weights" / "params_8_5.safetensors"
    assert written.is_file()
    model = berg.get_encoding_model(MODEL, train_session="8-5", device="cpu")
    assert written in model.paths_read(model.berg_dir, model.file_values)
    np.testing.assert_array_equal(model(FILM[:2]), before)


def test_which_file_has_a_tensor_does_not_matter(scan, tmp_path, whole):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    weights = model_folder(tmp_path, MODEL) / "encoding_models_weights"
    tensors = scan[1]
    in_core = {name: tensor for name, tensor in tensors.items() if not name.startswith("readout")}
    torch.save(in_core, weights / "params_core.pt")
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(("readout", "modulation"))}
    renamed = {name.replace("readout.feature.biases", "readout.biases"): tensor for name, tensor in own.items()}
    torch.save(renamed, weights / "params_8_5.pt")
    model = BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5", device="cpu")
    np.testing.assert_allclose(model(FILM[:2]), whole[:2], **CLOSE)
    renamed["modulation.lstm.proj_i.gains.0"] = renamed["modulation.lstm.proj_i.gains.0"] + 1
    torch.save(renamed, weights / "params_8_5.pt")
    with pytest.raises(CorruptedFileError, match=r"'modulation\.lstm\.proj_i\.gains\.0' of .* not of one publication"):
        BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5")


Change = Callable[[dict[str, Any]], Any]


def _set(name: str, change: Callable[[Any], Any]) -> Change:
    def changed(tensors: dict[str, Any]) -> None:
        tensors[name] = change(tensors[name])

    return changed


def _nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[0] = torch.nan
    return tensor


class Code:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


_SOME = [
    "core.feedforward.inputs.0.weights.2",
    "core.feedforward.blocks.1.convs.0.gains.0",
    "core.recurrent.proj_x.0.weights.3",
    "core.recurrent.scales.1",
    "core.recurrent.out.biases.0",
]
_OWN = ["perspective.retina.grid", "perspective.monitor.angle", "modulation.lstm.proj_o.weights.1",
        "perspective.mlp.linears.2.gains.0", "readout.position.mu", "readout.feature.weights.2"]  # fmt: skip


@pytest.mark.parametrize("name", [*_SOME, *_OWN])
@pytest.mark.parametrize("change", ["missing", "nan", "axis", "longer", "integers", "text"])
def test_damaged_tensors_are_named(scan, tmp_path, name, change):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    weights = model_folder(tmp_path, MODEL) / "encoding_models_weights"
    file = weights / ("params_core.pt" if name.startswith("core") else "params_8_5.pt")
    tensors = torch.load(file)
    changes: dict[str, Callable[[Any], Any]] = {
        "nan": _nan,
        "axis": lambda tensor: tensor[None],
        "longer": lambda tensor: torch.cat([tensor, tensor]),
        "integers": lambda tensor: (100 * tensor).long(),
        "text": lambda tensor: "a text",
    }
    if change == "missing":
        del tensors[name]
    else:
        tensors[name] = changes[change](tensors[name])
    torch.save(tensors, file)
    if (name, change) == ("perspective.retina.grid", "longer"):
        pytest.skip("a retina of another size is a model of another size")
    with pytest.raises(CorruptedFileError) as raised:
        BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5", device="cpu")(FILM[:1])
    stem = name.rpartition(".")[0] if change == "longer" else name
    assert stem in str(raised.value) or "metadata" in str(raised.value) or "of shape" in str(raised.value)
    assert str(file) in str(raised.value) or "weights" in str(raised.value)


@pytest.mark.parametrize(
    "name", ["core.recurrent.scales", "core.feedforward.inputs.1.weights", "core.recurrent.conv.weights"]
)
def test_widths_that_do_not_divide_are_refused(scan, tmp_path, name):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    file = model_folder(tmp_path, MODEL) / "encoding_models_weights" / "params_core.pt"
    tensors = torch.load(file)
    for number in range(4):
        tensors[f"{name}.{number}"] = tensors[f"{name}.{number}"][:-1]
    torch.save(tensors, file)
    with pytest.raises(CorruptedFileError, match=name.removesuffix(".weights").removesuffix(".scales")):
        BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5", device="cpu")


def test_files_with_code_or_cut_are_refused(tmp_path):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    for name in ("params_core.pt", "params_8_5.pt"):
        file = model_folder(tmp_path, MODEL) / "encoding_models_weights" / name
        good = file.read_bytes()
        for bad in (good[: len(good) // 2], b"", good[:100]):
            file.write_bytes(bad)
            with pytest.raises(CorruptedFileError, match=name):
                BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5")
        torch.save({"core": Code()}, file)
        with pytest.raises(UnsafeFileError, match=name):
            BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5")
        file.write_bytes(good)


def _metadata(berg_dir: Path, change: Change) -> None:
    path = model_folder(berg_dir, MODEL) / "metadata" / "session-8_scan-5_metadata.npy"
    content = np.load(path, allow_pickle=True).item()
    change(content)
    write_pickled_npy(path, content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["calcium_2p"].pop("unit_id"), r"no list 'calcium_2p\.unit_id'"),
        (lambda m: m.pop("calcium_2p"), r"no list 'calcium_2p\.unit_id'"),
        (lambda m: m["calcium_2p"].update(unit_id=np.arange(7)), "60 values for 7 units"),
        (lambda m: [m["calcium_2p"].pop(key) for key in ("roi", "field_masks", "coordinates", "OSI")], "roi"),
        (lambda m: m["calcium_2p"].update(unit_id=np.arange(60)[::-1]), "names other units of session-8_scan-5"),
        (lambda m: m["calcium_2p"].update(scan=6), r"is of session 8, scan 6, not of session-8_scan-5"),
        (lambda m: m["calcium_2p"]["roi"].update(V1=np.ones(7, int)), "ROI V1"),
        (lambda m: m["calcium_2p"].update(roi=3), "calcium_2p.roi"),
    ],
)
def test_metadata_of_something_else_are_refused(tmp_path, change, words):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    _metadata(tmp_path, change)
    with pytest.raises(BERGError, match=words):
        BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5", selection={"roi": "V1", "unit_index": [3, 2]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("session,scan_idx,unit_id\n8,5,3\n", "readout_id"),
        ("session,scan_idx,readout_id,unit_id\n8,5,0,many\n", "not a table of whole numbers"),
        ("session,scan_idx,readout_id,unit_id\n8,5,0,1\n8,5,0,2\n", "names other units"),
        ("a,b\n1,2\n", "not a table of whole numbers"),
        ("\xff\n\x00,\n", "not a table of whole numbers"),
    ],
)
def test_lists_of_other_units_are_refused(tmp_path, table, words):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    (model_folder(tmp_path, MODEL) / "encoding_models_weights" / "units.csv").write_text(table)
    with pytest.raises(CorruptedFileError, match=words):
        BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5")


def test_the_list_of_units_may_be_missing_or_of_other_scans(tmp_path, whole):
    mouse_scans.write_scan(tmp_path, 8, 5, N_UNITS)
    table = model_folder(tmp_path, MODEL) / "encoding_models_weights" / "units.csv"
    table.write_text("session,scan_idx,readout_id,unit_id\n4,7,0,1\n")
    for _ in range(2):
        model = BERG(tmp_path).get_encoding_model(MODEL, train_session="8-5", device="cpu")
        np.testing.assert_allclose(model(FILM[:2]), whole[:2], **CLOSE)
        table.unlink(missing_ok=True)


def test_the_list_of_models_and_inspection_know_the_files(berg, capsys):
    assert MODEL in berg.list_models(here=True)
    assert not main(["inspect", str(model_folder(Path(berg.berg_dir), MODEL)), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found
    assert not main(["list", "--here", "--berg-dir", str(berg.berg_dir)])
    assert MODEL in capsys.readouterr().out
