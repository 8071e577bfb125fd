import numpy as np
import pytest
from PIL import Image

from berg.cli.app import main
from berg.datasets.assembly import DatasetWarning
from berg.datasets.check import check_dataset
from berg.datasets.dataset import EncodingDataset

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (10, 3, 6, 6), np.uint8)
BETAS = RNG.normal(size=(20, 4)).astype(np.float32)
ORDER = np.repeat(np.arange(10), 2)


def faults(stimuli=PICTURES, responses=BETAS, **options):
    given = {"unit": "beta", "presentations": ORDER, **options}
    return [(own.severity, own.place, own.text) for own in check_dataset(
        EncodingDataset.from_arrays(stimuli, responses, **given), show_progress=False
    ).faults]  # fmt: skip


def test_nothing_is_wrong_with_good_data():
    assert faults() == []


def test_what_is_missing_constant_or_infinite_is_counted(monkeypatch):
    monkeypatch.setattr("berg.datasets.check.BLOCK_BYTES", 48)  # three rows
    bad = np.concatenate([BETAS, np.full((20, 1), 3, np.float32), np.full((20, 1), np.nan, np.float32)], axis=1)
    bad[2, 4] = bad[5, 0] = np.nan
    bad[7, 1] = -np.inf
    bad[9] = np.nan
    assert faults(responses=bad) == [
        ("error", "responses", "1 of 120 values are infinite. Write NaN where one is missing."),
        ("warning", "responses", "27 of 120 values (22.5%) are NaN; they count as missing."),
        ("warning", "responses", "1 of 20 presentations have no value at all."),
        ("warning", "responses", "1 of 6 units have no value at all (5)."),
        ("warning", "responses", "1 of 6 units do not vary (4). Nothing can be fitted to them."),
    ]


def test_ranges_leave_out_what_is_missing():
    bad = BETAS.copy()
    bad[0, 0], bad[1, 0] = np.nan, np.inf
    own = check_dataset(EncodingDataset.from_arrays(PICTURES, bad, presentations=ORDER)).outputs["responses"]
    np.testing.assert_array_equal(own.smallest[0], BETAS[2:, 0].min())
    np.testing.assert_array_equal(own.largest, [BETAS[2:, 0].max(), *BETAS[:, 1:].max(0)])


def test_units_of_several_axes_are_named_by_their_labels():
    constant = BETAS.reshape(20, 2, 2).copy()
    constant[:, 1, 0] = 0
    found = faults(
        responses=constant, axes=("channel", "time"), coordinates={"channel": ["Oz", "Pz"], "time": [0.0, 0.1]}
    )
    assert found[0][2] == "1 of 4 units do not vary (Pz 0.0). Nothing can be fitted to them."


def test_the_same_picture_on_both_sides_is_an_error():
    same = PICTURES.copy()
    same[9], same[1] = same[0], same[3]
    found = faults(same, splits={"train": range(8), "test": [8, 9]})
    assert found[0][:2] == ("error", "splits")
    assert found[0][2].startswith("1 stimuli are the same as one on the other side of a split (0 and 9)")
    assert found[1][2].startswith("2 stimuli are the same as another (1 and 3, 0 and 9)")
    assert [own[0] for own in faults(same)] == ["warning"]  # the seed keeps them together


def test_frames_of_a_sequence_may_be_the_same():
    found = faults(
        np.zeros((20, 4, 4)), BETAS, presentations=None, sampling_interval_s=1.3, splits={"train": range(10)}
    )
    assert [own[1] for own in found] == ["splits"]


def test_a_test_split_that_is_empty_or_has_no_repeats_is_told():
    assert faults(test_fraction=0)[0][2] == "'test' is empty: how well a model does cannot be said."
    found = faults(responses=BETAS[:10], presentations=None)
    assert found[0][2] == "no stimulus of 'test' was presented twice: there will be no noise ceiling."


def test_stimuli_that_were_never_shown_and_a_unit_that_is_not_given_are_told():
    with pytest.warns(DatasetWarning):
        found = faults(
            responses=BETAS[:18], presentations=ORDER[:18], unit=None, splits={"train": range(7), "test": [8, 9]}
        )
    assert [own[1] for own in found] == ["responses", "stimuli"]
    assert "unit of the responses is not given" in found[0][2]
    assert found[1][2] == "1 of 10 stimuli were never presented."


def test_pictures_that_cannot_be_used_are_named(tmp_path):
    for place, picture in enumerate(PICTURES):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"p{place}.png")
    assert faults(tmp_path) == []
    Image.new("RGB", (5, 6)).save(tmp_path / "p3.png")
    (tmp_path / "p7.png").write_bytes(b"no picture")
    found = faults(tmp_path)
    assert [own[:2] for own in found] == [("error", "stimuli")] * 2
    assert found[0][2].startswith("p7.png cannot be opened")
    assert found[1][2] == "the pictures are of 2 sizes (8 of 6 x 6, 1 of 5 x 6). Bring them to one."


def test_pictures_in_memory_are_left_open():
    held = [Image.fromarray(picture.transpose(1, 2, 0)) for picture in PICTURES]
    assert faults(held) == []
    assert held[0].getpixel((0, 0)) == tuple(PICTURES[0, :, 0, 0])


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "pictures.npy", PICTURES)
    np.save(tmp_path / "order.npy", ORDER)
    for subject in (1, 2):
        np.save(tmp_path / f"betas_{subject}.npy", BETAS)
    (tmp_path / "dataset.yaml").write_text(
        "name: few\nsubjects: [1, 2]\nstimuli: pictures.npy\npresentations: order.npy\n"
        "responses: {lh: {path: 'betas_{subject}.npy', axes: [presentation, vertex], unit: beta}}\n"
    )
    return tmp_path


def test_the_command_prints_what_is_there(folder, capsys):
    main(["dataset", "check", str(folder)])
    out = capsys.readouterr().out
    for words in ("few, subject 1", "few, subject 2", "train 9, validation 0, test 1", "4 vertex", "Nothing is wrong",
                  "20, 2 of each stimulus that was shown (10)", "each uint8 of shape (3, 6, 6)"):  # fmt: skip
        assert words in out
    main(["dataset", "check", str(folder), "--subject", "2"])
    assert "subject 1" not in capsys.readouterr().out


def test_the_command_fails_where_something_is_wrong(folder, capsys):
    bad = BETAS.copy()
    bad[3, 2] = np.inf
    np.save(folder / "betas_1.npy", bad)
    with pytest.raises(SystemExit) as end:
        main(["dataset", "check", str(folder)])
    assert end.value.code == 1
    assert "error: lh: 1 of 80 values are infinite" in capsys.readouterr().out
    (folder / "order.npy").unlink()
    with pytest.raises(SystemExit) as end:
        main(["dataset", "check", str(folder)])
    assert end.value.code == 1
    assert "There is no file" in capsys.readouterr().err
