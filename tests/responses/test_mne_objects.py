from pathlib import Path

import mne
import numpy as np
import pytest
from published import layouts

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.mne_objects import to_mne_epochs, to_mne_evoked
from berg.responses.save import save_responses

# What MNE itself does when it reads the table of epochs, with pandas 3.1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The inplace keyword in DataFrame.set_index is deprecated:DeprecationWarning"
)
EEG = layouts.EEG
NAMES = ["a.png", "b.png", "c.png"]
TIMES = np.linspace(-0.1, 0.595, 140)


def points(*places):
    selected = np.zeros(140, int)
    selected[list(places)] = 1
    return selected


def test_evoked_are_the_means_over_repetitions_with_names_and_times(encoded, tmp_path):
    responses, metadata = encoded(EEG, 3)
    save_responses(label_responses(responses, metadata, NAMES), tmp_path / "x-ave.fif")
    read = mne.read_evokeds(tmp_path / "x-ave.fif", verbose="warning")
    assert [evoked.comment for evoked in read] == NAMES
    for evoked, response in zip(read, responses, strict=True):
        assert evoked.ch_names == list(layouts.EEG_CHANNELS)
        assert evoked.info["sfreq"] == 200
        assert evoked.nave == 4
        np.testing.assert_allclose(evoked.times, TIMES, atol=1e-7)
        np.testing.assert_allclose(evoked.data, response.mean(axis=0), rtol=1e-6)


def test_a_value_planted_at_a_channel_and_time_is_found_there(encoded, tmp_path):
    responses, metadata = encoded(EEG, 3)
    responses[:] = 0
    responses[1, 2, list(layouts.EEG_CHANNELS).index("Oz"), 40] = 12  # 0.1 s
    labelled = label_responses(responses, metadata, NAMES)
    save_responses(labelled, tmp_path / "x-epo.fif")
    save_responses(labelled, tmp_path / "x-ave.fif")
    epochs = mne.read_epochs(tmp_path / "x-epo.fif", verbose="warning")
    (place,) = epochs.time_as_index([0.1], use_rounding=True)
    assert epochs["b.png"].get_data(picks=["Oz"])[:, 0, place].tolist() == [0, 0, 12, 0]
    assert np.abs(epochs.get_data()).sum() == 12
    evoked = mne.read_evokeds(tmp_path / "x-ave.fif", condition="b.png", verbose="warning")
    assert evoked.get_peak() == ("Oz", pytest.approx(0.1))
    assert evoked.data.max() == 3


def test_there_is_an_epoch_for_each_stimulus_and_repetition(encoded, tmp_path):
    responses, metadata = encoded(EEG, 3)
    save_responses(label_responses(responses, metadata, NAMES), tmp_path / "x-epo.fif")
    read = mne.read_epochs(tmp_path / "x-epo.fif", verbose="warning")
    np.testing.assert_array_equal(read.get_data(), responses.reshape(12, 63, 140))
    assert read.event_id == {"a.png": 1, "b.png": 2, "c.png": 3}
    assert read.metadata["stimulus"].tolist() == np.repeat(NAMES, 4).tolist()
    assert read.metadata["repetition"].tolist() == [0, 1, 2, 3] * 3
    assert read["stimulus == 'b.png' and repetition == 3"].get_data()[0, 5, 7] == responses[1, 3, 5, 7]
    np.testing.assert_array_equal(read["c.png"].average().data, responses[2].mean(axis=0))
    assert read.baseline is None
    np.testing.assert_allclose(read.times, TIMES, atol=1e-7)


def test_electrodes_are_where_the_10_20_system_puts_them(encoded):
    info = to_mne_evoked(*encoded(EEG))[0].info
    place = {name: position for name, position in info.get_montage().get_positions()["ch_pos"].items()}
    assert len(place) == 63
    assert all(np.isfinite(position).all() for position in place.values())
    assert place["Oz"][1] < place["Cz"][1] < place["Fp1"][1]  # y: forwards
    assert place["T7"][0] < place["Cz"][0] < place["T8"][0]  # x: to the right
    assert place["Cz"][2] > place["Oz"][2] > place["TP9"][2]  # z: upwards


def test_channels_and_a_window_keep_their_names_and_times(encoded):
    selection = {"channels": ["POz", "Fp1"], "timepoints": points(*range(30, 50))}
    responses, metadata = encoded(EEG, selection=selection)
    evoked = to_mne_evoked(responses, metadata)[1]
    assert evoked.ch_names == ["POz", "Fp1"]
    np.testing.assert_allclose(evoked.times, TIMES[30:50], atol=1e-7)
    np.testing.assert_allclose(evoked.data, responses[1].mean(axis=0), rtol=1e-6)


def test_one_channel_and_one_time_point_keep_their_axes_and_rate(encoded, tmp_path):
    labelled = label_responses(*encoded(EEG, 1, selection={"channels": "Oz", "timepoints": points(45)}))
    save_responses(labelled, tmp_path / "x-epo.fif")
    read = mne.read_epochs(tmp_path / "x-epo.fif", verbose="warning")
    assert read.get_data().shape == (4, 1, 1)
    assert read.times.tolist() == pytest.approx([0.125])
    assert read.info["sfreq"] == 200


@pytest.mark.parametrize("places", [(10, 11, 13), (0, 2, 4, 6), (5, 90)])
def test_time_points_with_gaps_are_refused(places, encoded):
    found = encoded(EEG, selection={"timepoints": points(*places)})
    for convert in (to_mne_evoked, to_mne_epochs):
        with pytest.raises(
            InvalidParameterError,
            match=r"have gaps: .* every 0.005 s .*without gaps \(time=\[0.1, 0.2\]\).*\.nc or \.csv",
        ):
            convert(*found)


def with_times(metadata, times, step):
    label = metadata["responses"]["eeg"]
    label["coordinates"]["time"] = ("time", np.asarray(times))
    label["attributes"].pop("time_step")
    if step:
        label["attributes"]["time_step"] = step
    return metadata


def test_times_between_the_samples_of_mne_are_refused_not_shifted(encoded):
    responses, metadata = encoded(EEG, selection={"timepoints": points(1, 2)})
    with pytest.raises(InvalidParameterError, match=r"steps of 0.005 s, which miss 0.0022 s"):
        to_mne_evoked(responses, with_times(metadata, [0.0022, 0.0072], 0.005))


def test_one_time_point_of_unknown_rate_is_refused(encoded):
    responses, metadata = encoded(EEG, selection={"timepoints": points(1)})
    with pytest.raises(InvalidParameterError, match="One time point does not tell the sampling rate"):
        to_mne_evoked(responses, with_times(metadata, [0.1], None))


def test_times_stored_in_single_precision_give_a_whole_sampling_rate(encoded):
    responses, metadata = encoded(EEG)
    evoked = to_mne_evoked(responses, with_times(metadata, TIMES.astype("float32"), None))[0]
    assert evoked.info["sfreq"] == 200
    np.testing.assert_allclose(evoked.times, TIMES, atol=1e-6)


def test_numbers_without_a_physical_unit_are_not_scaled_and_say_so(encoded, tmp_path):
    responses, metadata = encoded(EEG, 1)
    save_responses(label_responses(responses, metadata), tmp_path / "x-ave.fif")
    (read,) = mne.read_evokeds(tmp_path / "x-ave.fif", verbose="warning")
    assert {channel["unit"] for channel in read.info["chs"]} == {mne.io.constants.FIFF.FIFF_UNIT_NONE}
    assert read.info["description"] == (
        f"{EEG}, subject 1: in silico; numbers are in normalised EEG amplitude, not in volts or tesla."
    )
    assert read.data.max() == responses[0].mean(axis=0).max()


@pytest.mark.parametrize(
    ("unit", "factor"), [("microvolt", 1e-6), ("\u03bcV", 1e-6), ("[uV]", 1e-6), ("mV", 1e-3), ("volt", 1)]
)
def test_a_physical_unit_becomes_volts(unit, factor, encoded):
    responses, metadata = encoded(EEG, 1)
    metadata["responses"]["eeg"]["unit"] = unit
    for found in (to_mne_evoked(responses, metadata)[0], to_mne_epochs(responses, metadata).average()):
        assert {channel["unit"] for channel in found.info["chs"]} == {mne.io.constants.FIFF.FIFF_UNIT_V}
        np.testing.assert_allclose(found.data, factor * responses[0].mean(axis=0), rtol=1e-5)


def test_an_eeg_model_without_repetitions_has_one_epoch_per_stimulus(encoded):
    responses, metadata = encoded(EEG, 2)
    label = metadata["responses"]["eeg"]
    label["axes"].remove("repetition")
    del label["coordinates"]["repetition"]
    epochs = to_mne_epochs(responses[:, 0], metadata)
    np.testing.assert_array_equal(epochs.get_data(), responses[:, 0])
    assert to_mne_evoked(responses[:, 0], metadata)[0].nave == 1


def test_sensors_of_meg_are_magnetometers_in_tesla(encoded):
    responses, metadata = encoded(EEG, 1, selection={"channels": ["Oz", "Pz"]})
    metadata["model"]["model_id"] = "meg-made_up-linear"
    metadata["responses"]["eeg"]["unit"] = "fT"
    metadata["responses"]["eeg"]["coordinates"]["channel"] = ("channel", np.array(["MLC11", "MRT57"]))
    (evoked,) = to_mne_evoked(responses, metadata)
    assert evoked.get_channel_types() == ["mag", "mag"]
    np.testing.assert_allclose(evoked.data, 1e-15 * responses[0].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [("fT/cm", 1e-13), ("T/m", 1), ("pT / cm", 1e-10)])
def test_sensors_in_tesla_per_metre_are_gradiometers(unit, factor, encoded):
    responses, metadata = encoded(EEG, 1, selection={"channels": ["Oz", "Pz"]})
    metadata["model"]["model_id"] = "meg-made_up-linear"
    metadata["responses"]["eeg"]["unit"] = unit
    for found in (to_mne_evoked(responses, metadata)[0], to_mne_epochs(responses, metadata).average("all")):
        assert found.get_channel_types() == ["grad", "grad"]
        assert {channel["unit"] for channel in found.info["chs"]} == {mne.io.constants.FIFF.FIFF_UNIT_T_M}
        np.testing.assert_allclose(found.data, factor * responses[0].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("unit", "words"),
    [("MV", "no known way to write volts"), ("µV²", "no known way"), ("fT", "EEG is not measured in fT")],
)
def test_volts_that_are_not_understood_are_not_written_as_plain_numbers(unit, words, encoded, tmp_path):
    responses, metadata = encoded(EEG, 1)
    metadata["responses"]["eeg"]["unit"] = unit
    for ending in ("-epo.fif", "-ave.fif"):
        with pytest.raises(InvalidParameterError, match=words):
            save_responses(label_responses(responses, metadata), tmp_path / f"x{ending}")
    assert list(tmp_path.iterdir()) == []


def test_an_electrode_that_the_10_20_system_does_not_know_has_no_place(encoded):
    responses, metadata = encoded(EEG, 1, selection={"channels": ["Oz", "Pz"]})
    metadata["responses"]["eeg"]["coordinates"]["channel"] = ("channel", np.array(["Oz", "EOG left"]))
    positions = to_mne_evoked(responses, metadata)[0].info.get_montage().get_positions()["ch_pos"]
    assert np.isfinite(positions["Oz"]).all()
    assert np.isnan(positions["EOG left"]).all()


def test_a_stimulus_shown_twice_keeps_its_one_event(encoded):
    epochs = to_mne_epochs(*encoded(EEG, 3), ["a", "b", "a"])
    assert epochs.event_id == {"a": 1, "b": 2}
    assert len(epochs["a"]) == 8


def test_sensors_of_things_meg_are_where_the_helmet_has_them(encoded, tmp_path):
    responses, metadata = encoded(layouts.MEG)
    epochs = to_mne_epochs(responses, metadata)
    epochs.save(tmp_path / "x-epo.fif")
    read = mne.read_epochs(tmp_path / "x-epo.fif")
    assert read.ch_names == list(layouts.MEG_SENSORS)
    assert read.get_channel_types(unique=True) == ["mag"]
    folder = Path(mne.__file__).parent / "channels" / "data" / "canonical_meg"
    rows = [line.split(",") for line in (folder / "ctf275.csv").read_text().splitlines()[1:]]
    places = {row[0].split("-")[0]: np.array(row[2:5], float) for row in rows}
    for channel in read.info["chs"]:
        np.testing.assert_allclose(channel["loc"][:3], places[channel["ch_name"].split("-")[0]], atol=1e-6)
    left = [ch["loc"][0] for ch in read.info["chs"] if ch["ch_name"].startswith("ML")]
    right = [ch["loc"][0] for ch in read.info["chs"] if ch["ch_name"].startswith("MR")]
    assert max(left) < 0 < min(right)
    assert read.info["sfreq"] == 200
    assert "in normalised MEG amplitude, not in volts or tesla" in read.info["description"]
    np.testing.assert_allclose(read.get_data(), responses, rtol=1e-6)


def test_single_training_splits_of_meg_are_repetitions(encoded):
    responses, metadata = encoded(layouts.MEG, train_splits="single", selection={"region": "Occipital"})
    epochs = to_mne_epochs(responses, metadata)
    assert epochs.metadata["repetition"].tolist() == [0, 1, 2, 3] * 2
    np.testing.assert_allclose(epochs.get_data(), responses.reshape(8, *responses.shape[2:]))


def test_sensors_that_are_not_of_the_helmet_have_no_place(encoded):
    responses, metadata = encoded(layouts.MEG)
    axis, names = metadata["responses"]["meg"]["coordinates"]["channel"]
    renamed = np.array(["MEG0111", *names[1:]])
    metadata["responses"]["meg"]["coordinates"]["channel"] = (axis, renamed)
    epochs = to_mne_epochs(responses, metadata)
    assert not any(np.nan_to_num(channel["loc"]).any() for channel in epochs.info["chs"])
