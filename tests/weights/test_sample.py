import numpy as np
import pytest

from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.weights.safetensors_files import write_safetensors
from berg.weights.sample import Sample, read_samples, write_sample

STIMULUS = np.arange(24, dtype="uint8").reshape(2, 3, 2, 2)
RESPONSES = [np.eye(2, dtype="float32"), np.ones((2, 3), "float32")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "metadata").mkdir()
    return tmp_path


def test_a_sample_is_read_as_it_was_written(folder):
    path = folder / "metadata" / "sample_subject-01.safetensors"
    selection = {"roi": ["V1", "V2"], "mask": np.array([0, 1])}
    write_sample(Sample(path, STIMULUS, RESPONSES, {"subject": np.int64(1)}, selection))
    (found,) = read_samples(folder)
    np.testing.assert_array_equal(found.stimulus, STIMULUS)
    assert found.stimulus.dtype == np.uint8
    for one, other in zip(found.responses, RESPONSES, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (found.parameters, found.selection) == ({"subject": 1}, {"roi": ["V1", "V2"], "mask": [0, 1]})


def test_samples_come_in_the_order_of_their_names_and_a_folder_without_has_none(folder):
    assert read_samples(folder) == []
    for name in "bca":
        write_sample(Sample(folder / "metadata" / f"sample_{name}.safetensors", STIMULUS, RESPONSES))
    assert [sample.path.stem for sample in read_samples(folder)] == ["sample_a", "sample_b", "sample_c"]


def test_what_json_cannot_hold_is_refused(folder):
    sample = Sample(folder / "metadata" / "sample_a.safetensors", STIMULUS, RESPONSES, {"device": object()})
    with pytest.raises(InvalidParameterError, match=r"A sample cannot hold these parameters: <object .* is a object"):
        write_sample(sample)


@pytest.mark.parametrize(
    ("tensors", "texts"),
    [({"other": STIMULUS}, None), ({"stimulus": STIMULUS}, None), ({"stimulus": STIMULUS}, {"made_with": "{"})],
)
def test_a_file_that_is_no_sample_is_named(folder, tensors, texts):
    write_safetensors(folder / "metadata" / "sample_a.safetensors", tensors, texts)
    with pytest.raises(CorruptedFileError, match=r"sample_a.safetensors is no sample: .* Write it anew"):
        read_samples(folder)
