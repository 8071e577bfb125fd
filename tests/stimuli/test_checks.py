import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import StimulusError
from berg.stimuli.checks import as_expected, check_stimulus

PICTURES = StimulusInput(shape=["batch_size", 3, "height", "width"], dtype="uint8", range=(0, 255))
SOUNDS = StimulusInput(shape=["batch_size", "n_samples"], dtype="float32", range=(-1, 1), unit="pascal")
ANYTHING = StimulusInput(shape="whatever the author wrote")
TAKEN = r"integers in \[0, 255\] of shape \(batch_size, 3, height, width\)"


def pictures(dtype="uint8", n=2):
    return np.arange(n * 3 * 4 * 5).reshape(n, 3, 4, 5).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">u2"])
def test_any_integers_from_0_to_255_are_taken_without_a_copy(dtype):
    stimulus = pictures(dtype)
    assert check_stimulus(stimulus, PICTURES) is stimulus


def test_small_integers_of_8_bits_are_taken():
    stimulus = np.full((1, 3, 2, 2), 100, "int8")
    assert check_stimulus(stimulus, PICTURES) is stimulus


def test_the_ends_of_the_range_are_taken():
    stimulus = np.array([0, 255] * 6, "int64").reshape(1, 3, 2, 2)
    assert check_stimulus(stimulus, PICTURES) is stimulus


@pytest.mark.parametrize(
    ("value", "words"),
    [(256, r"values in \[0, 256\]"), (-1, r"values in \[-1, 1\]"), (2**40, r"values in \[0, 1.09951e\+12\]")],
)
@pytest.mark.parametrize("place", [0, -1])
def test_integers_beyond_the_range_are_refused(value, words, place):
    stimulus = np.zeros((100, 3, 2, 2), "int64")
    stimulus.flat[0], stimulus.flat[1] = (0, 1) if value < 0 else (0, 0)
    stimulus.reshape(100, -1)[place, 5] = value
    if value < 0:
        stimulus.reshape(100, -1)[place, 6] = 1
    with pytest.raises(StimulusError, match=f"The stimulus has {words}; this model takes {TAKEN}"):
        check_stimulus(stimulus, PICTURES)


def test_a_range_narrower_than_the_dtype_is_held_too():
    narrow = StimulusInput(shape=["batch_size", "n_samples"], dtype="uint8", range=(0, 100))
    with pytest.raises(StimulusError, match=r"values in \[0, 200\]; this model takes integers in \[0, 100\]"):
        check_stimulus(np.array([[0, 200]], "uint8"), narrow)


def test_integers_that_would_wrap_around_are_refused_without_a_range_in_the_card():
    unbounded = StimulusInput(shape=["batch_size", "n_samples"], dtype="uint8")
    with pytest.raises(StimulusError, match=r"values in \[0, 300\]; this model takes integers in \[0, 255\]"):
        check_stimulus(np.array([[0, 300]]), unbounded)


def test_floats_that_would_become_infinite_are_refused():
    unbounded = StimulusInput(shape=["batch_size", "n_samples"], dtype="float32")
    with pytest.raises(StimulusError, match=r"values in \[0, 1e\+300\]; this model takes numbers"):
        check_stimulus(np.array([[0, 1e300]]), unbounded)


FLOATS = {
    "from 0 to 1": (
        np.linspace(0, 1, 12).reshape(1, 3, 2, 2),
        rf'float64 in \[0, 1\]; this model takes {TAKEN}. Try \(255 \* stimulus\).round\(\).astype\("uint8"\)\.$',
    ),
    "from 0 to 255": (
        np.linspace(0, 255, 12, dtype="float32").reshape(1, 3, 2, 2),
        r'float32 in \[0, 255\]; .* Try stimulus.round\(\).astype\("uint8"\)\.$',
    ),
    "from -1 to 1": (
        np.linspace(-1, 1, 12).reshape(1, 3, 2, 2),
        r'float64 in \[-1, 1\]; .* Try \(127.5 \* \(stimulus \+ 1\)\).round\(\).astype\("uint8"\) if -1 is black\.$',
    ),
    "normalised": (
        np.linspace(-2, 2.5, 12, dtype="float16").reshape(1, 3, 2, 2),
        r"float16 in \[-2, 2.5\]; .* Was it normalised already\? Give the pictures themselves\.$",
    ),
    "NaN": (np.full((1, 3, 2, 2), np.nan), rf"NaN or infinite values. This model takes {TAKEN}"),
    "infinite": (np.full((1, 3, 2, 2), -np.inf), "NaN or infinite values"),
}


@pytest.mark.parametrize("case", FLOATS)
def test_floats_are_refused_with_the_cast_to_type(case):
    stimulus, words = FLOATS[case]
    with pytest.raises(StimulusError, match=words):
        check_stimulus(stimulus, PICTURES)


def test_the_cast_that_the_error_names_is_then_taken():
    stimulus = np.linspace(0, 1, 12).reshape(1, 3, 2, 2)
    with pytest.raises(StimulusError) as caught:
        check_stimulus(stimulus, PICTURES)
    typed = str(caught.value).partition("Try ")[2].rstrip(".")
    cast = eval(typed, {"stimulus": stimulus})  # noqa: S307
    assert check_stimulus(cast, PICTURES).max() == 255


def test_booleans_are_refused_with_the_cast_to_type():
    with pytest.raises(StimulusError, match=r'is bool; .* Try stimulus.astype\("uint8"\) \* 255\.$'):
        check_stimulus(np.zeros((1, 3, 2, 2), bool), PICTURES)


def test_complex_numbers_are_refused():
    with pytest.raises(StimulusError, match=rf"an array of complex128, not real numbers. This model takes {TAKEN}"):
        check_stimulus(np.zeros((1, 3, 2, 2), complex), PICTURES)


@pytest.mark.parametrize(
    ("stimulus", "words"),
    [
        ("picture.png", "The stimulus is a str, not real numbers"),
        (None, "The stimulus is a NoneType, not real numbers"),
        ({"a": 1}, "The stimulus is a dict, not real numbers"),
        ({1, 2}, "The stimulus is a set, not real numbers"),
        ((number for number in (1, 2)), "The stimulus is a generator, not real numbers"),
        (["a.png", "b.png"], "The stimulus is an array of <U5, not real numbers"),
        (np.array([[None]]), "The stimulus is an array of object, not real numbers"),
        ([10**400], "The stimulus is an array of object, not real numbers"),
        (np.zeros(3, "datetime64[s]"), r"The stimulus is an array of datetime64\[s\], not real numbers"),
        (np.zeros(3, "i4,f4"), "The stimulus is an array of .*, not real numbers"),
        (b"abc", "The stimulus is a bytes, not real numbers"),
        (5, rf"The stimulus is a single number; this model takes {TAKEN}"),
        (np.float64(0.5), "The stimulus is a single number"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(stimulus, words):
    with pytest.raises(StimulusError, match=words):
        check_stimulus(stimulus, PICTURES)


def test_a_masked_array_is_refused_with_what_to_type():
    masked = np.ma.masked_greater(pictures(), 5)
    with pytest.raises(StimulusError, match=r"is a masked array; fill it first: stimulus.filled\(...\)"):
        check_stimulus(masked, PICTURES)
    assert check_stimulus(masked.filled(0), PICTURES).max() == 5


def test_a_list_of_pictures_is_stacked():
    batch = pictures()
    np.testing.assert_array_equal(check_stimulus(list(batch), PICTURES), batch)
    np.testing.assert_array_equal(check_stimulus(batch.tolist(), PICTURES), batch)


def test_pictures_of_different_sizes_are_refused():
    different = [np.zeros((3, 4, 4), "uint8"), np.zeros((3, 5, 5), "uint8")]
    with pytest.raises(
        StimulusError, match=r"different shapes and cannot be stacked into \(batch_size, 3, .* one size"
    ):
        check_stimulus(different, PICTURES)


@pytest.mark.parametrize("device_bound", [False, True])
def test_a_torch_tensor_is_taken(device_bound):
    batch = pictures()
    tensor = torch.from_numpy(batch)
    np.testing.assert_array_equal(check_stimulus([*tensor] if device_bound else tensor, PICTURES), batch)


def test_a_tensor_that_waits_for_a_gradient_is_taken():
    tensor = torch.zeros((1, 4), requires_grad=True)
    assert check_stimulus(tensor, SOUNDS).shape == (1, 4)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros((1, 4), dtype=torch.bfloat16), torch.zeros((1, 4)).to_sparse(), torch.zeros(4, device="meta")],
)
def test_a_tensor_that_numpy_cannot_hold_is_refused(tensor):
    with pytest.raises(StimulusError, match=r"is a tensor of torch.\w+ that NumPy cannot hold"):
        check_stimulus(tensor, SOUNDS)


def test_a_list_of_tensors_that_wait_for_gradients_is_refused():
    tensors = [torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)]
    with pytest.raises(StimulusError, match=r"cannot be made one array: .*requires grad.* Try numpy.stack first"):
        check_stimulus(tensors, SOUNDS)


SHAPES = {
    (3, 8, 8): r"has shape \(3, 8, 8\); this model takes \(batch_size, 3, height, width\). "
    r"For one stimulus add the first axis: stimulus\[None\]\.$",
    (8, 8): r"has 2 axes, shape \(8, 8\); this model takes \(batch_size, 3, height, width\)",
    (1, 1, 3, 8, 8): r"has 5 axes, shape \(1, 1, 3, 8, 8\)",
    (2, 8, 8, 3): r"Axis 1 of the stimulus has length 8 instead of 3: shape \(2, 8, 8, 3\), .*"
    r"Its channels come last; try stimulus.transpose\(0, 3, 1, 2\)\.$",
    (2, 1, 8, 8): r"1 instead of 3: .*For grey pictures try stimulus.repeat\(3, axis=1\)\.$",
    (2, 4, 8, 8): r"4 instead of 3: .*a fourth channel \(alpha\); try stimulus\[:, :3\]\.$",
    (2, 5, 8, 8): r"5 instead of 3: shape \(2, 5, 8, 8\), this model takes \(batch_size, 3, height, width\)\.$",
    (0, 3, 8, 8): r"is empty: shape \(0, 3, 8, 8\). Give at least one stimulus",
    (2, 3, 0, 8): r"is empty: shape \(2, 3, 0, 8\)",
    (0,): r"is empty: shape \(0,\)",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_wrong_shape_is_refused_with_what_to_type(shape):
    with pytest.raises(StimulusError, match=SHAPES[shape]):
        check_stimulus(np.zeros(shape, "uint8"), PICTURES)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 8, 3), (2, 1, 8, 8), (2, 4, 8, 8)])
def test_what_the_error_about_a_shape_says_to_type_is_then_taken(shape):
    stimulus = np.zeros(shape, "uint8")
    with pytest.raises(StimulusError) as caught:
        check_stimulus(stimulus, PICTURES)
    typed = str(caught.value).replace("axis: stimulus", "axis: try stimulus").rpartition("try ")[2].rstrip(".")
    assert check_stimulus(eval(typed, {"stimulus": stimulus}), PICTURES).shape[1] == 3  # noqa: S307


def test_the_hint_about_channels_comes_for_a_fixed_size_too():
    fixed = StimulusInput(shape=["batch_size", 3, 224, 224], dtype="uint8", range=(0, 255))
    with pytest.raises(StimulusError, match=r"channels come last; try stimulus.transpose\(0, 3, 1, 2\)"):
        check_stimulus(np.zeros((1, 224, 224, 3), "uint8"), fixed)


def test_one_stimulus_keeps_its_axis():
    assert check_stimulus(pictures(n=1), PICTURES).shape == (1, 3, 4, 5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int8", "int64"])
def test_a_model_of_floats_takes_any_numbers_in_its_range(dtype):
    stimulus = np.array([[-1, 0, 1]]).astype(dtype)
    assert check_stimulus(stimulus, SOUNDS) is stimulus


@pytest.mark.parametrize(
    ("stimulus", "words"),
    [
        (
            np.array([[0, 1.5]]),
            r"values in \[0, 1.5\]; this model takes numbers in \[-1, 1\] pascal of shape \(batch_s",
        ),
        (np.array([[0, np.nan]]), r"NaN or infinite values. This model takes numbers in \[-1, 1\] pascal"),
        (np.array([[True]]), "is bool; this model takes numbers"),
    ],
)
def test_a_model_of_floats_refuses_the_rest(stimulus, words):
    with pytest.raises(StimulusError, match=words):
        check_stimulus(stimulus, SOUNDS)


@pytest.mark.parametrize("stimulus", [np.ones((2, 3), bool), np.ones(4, "int8"), np.ones((1, 1, 1, 1, 1))])
def test_a_card_that_says_little_takes_all_numbers(stimulus):
    assert check_stimulus(stimulus, ANYTHING) is stimulus


@pytest.mark.parametrize(
    ("stimulus", "words"),
    [
        (np.zeros((0, 2)), "is empty"),
        (3.5, "is a single number; this model takes numbers of shape whatever the author wrote"),
        (np.array([np.nan]), "NaN or infinite"),
        (np.array([1j]), "an array of complex128"),
    ],
)
def test_a_card_that_says_little_still_refuses_what_nobody_can_take(stimulus, words):
    with pytest.raises(StimulusError, match=words):
        check_stimulus(stimulus, ANYTHING)


def read_only(array):
    array.setflags(write=False)
    return array


VIEWS = {
    "every second": pictures(n=4)[::2],
    "backwards": pictures()[::-1, :, ::-1, ::-1],
    "channels moved": np.ascontiguousarray(pictures().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "column order": np.asfortranarray(pictures()),
    "big-endian": pictures(">i4"),
    "read-only": read_only(pictures()),
    "one value spread": np.broadcast_to(np.uint8(7), (2, 3, 4, 5)),
    "unaligned": np.frombuffer(b"x" + pictures("int32").tobytes(), "u1")[1:].view("int32").reshape(2, 3, 4, 5),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_batch_is_brought_into_the_form_that_torch_wants(view):
    stimulus = VIEWS[view]
    batch = as_expected(check_stimulus(stimulus, PICTURES)[:1], PICTURES)
    assert batch.dtype == np.uint8
    assert batch.flags.c_contiguous
    assert batch.flags.writeable
    assert torch.from_numpy(batch).tolist() == stimulus[:1].tolist()


def test_a_batch_in_its_form_is_not_copied():
    stimulus = pictures()
    assert np.shares_memory(as_expected(stimulus, PICTURES), stimulus)


def test_a_batch_of_a_model_without_dtype_keeps_its_own_in_native_order():
    batch = as_expected(np.array([1.5, 2.5], ">f8"), ANYTHING)
    assert torch.from_numpy(batch).tolist() == [1.5, 2.5]


DTYPES = (
    hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes()
    | hnp.boolean_dtypes()
    | hnp.byte_string_dtypes(max_len=3)
    | hnp.unicode_string_dtypes(max_len=3)
    | hnp.datetime64_dtypes()
    | st.just(np.dtype(object))
)
SIDES = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 3), st.integers(1, 3)),
)


@st.composite
def arrays(draw):
    """Arrays of any dtype, with small values more often than others."""
    dtype, shape = draw(DTYPES), draw(SIDES)
    if dtype.kind in "iuf" and draw(st.booleans()):
        high = 100 if dtype.kind == "i" else 255
        return np.array(draw(hnp.arrays("int64", shape, elements=st.integers(0, high)))).astype(dtype)
    return draw(hnp.arrays(dtype, shape))


@settings(max_examples=100, deadline=None)
@given(arrays(), st.sampled_from([PICTURES, SOUNDS, ANYTHING, StimulusInput(shape=["n", "m"], dtype="int16")]))
def test_any_array_is_an_answer_with_its_values_or_our_error(stimulus, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            checked = check_stimulus(stimulus, expected)
            batch = as_expected(checked, expected)
        except StimulusError as error:
            print(error)  # which needs no more than a sentence
            return
    np.testing.assert_array_equal(checked, stimulus)
    np.testing.assert_allclose(batch, stimulus.astype("float64"), rtol=1e-6, atol=1e-30)


NESTED = st.recursive(
    st.integers(-300, 300) | st.floats() | st.booleans() | st.text(max_size=2) | st.none(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(NESTED, st.sampled_from([PICTURES, SOUNDS, ANYTHING]))
def test_any_nested_list_is_an_array_or_our_error(stimulus, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            checked = check_stimulus(stimulus, expected)
        except StimulusError as error:
            print(error)  # which needs no more than a sentence
            return
    assert checked.tolist() == stimulus
