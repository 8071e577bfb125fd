import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.core.card_schema import Parameter
from berg.core.exceptions import InvalidParameterError
from berg.core.model_card import ModelCard
from berg.core.parameter_validator import (
    get_selected_indices,
    validate_binary_array,
    validate_channels,
    validate_parameters,
    validate_roi,
    validate_selection_keys,
    validate_subject,
    validate_timepoints,
    validate_value,
)


@pytest.mark.parametrize("subject", [2, np.int64(2), np.uint8(2)])
def test_a_valid_subject_comes_back_as_a_plain_number(subject):
    assert type(validate_subject(subject, [1, 2])) is int


@pytest.mark.parametrize("valid", [[1, 2], (1, 2), {1, 2}, range(1, 3), np.array([1, 2]), {1: "a", 2: "b"}])
def test_valid_subjects_may_be_any_collection(valid):
    assert validate_subject(2, valid) == 2
    with pytest.raises(InvalidParameterError, match="Subject must be one of 1, 2, got 3"):
        validate_subject(3, valid)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (3, r"Subject must be one of 1, 2, got 3\.$"),
        ("1", r"Subject must be one of 1, 2, got '1'. Try 1 \(int\)\."),
        (True, "got True"),
        (np.True_, "got True"),
        (None, "got None"),
        (1.5, "got 1.5"),
        ([1], r"got \[1\]"),
        (np.array([1, 2]), r"got array\(\[1, 2\]\)"),
    ],
)
def test_a_wrong_subject_is_refused(subject, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_subject(subject, [1, 2])


def test_a_subject_named_by_text_says_so():
    with pytest.raises(InvalidParameterError, match=r"Subject must be one of 1, F, got 1. Try '1' \(str\)"):
        validate_subject(1, ["1", "F"])


def test_selection_keys_that_the_model_has_are_returned():
    assert validate_selection_keys({"roi": "V1"}, ["roi", "time"]) == {"roi": "V1"}
    assert validate_selection_keys({}, ["roi"]) == {}


@pytest.mark.parametrize(
    ("selection", "keys", "words"),
    [
        ({"rio": "V1"}, ["roi"], r"'rio' is not a selection key. Did you mean 'roi'\? Keys: roi\.$"),
        ({"rio": "V1"}, [], r"'rio' is not a selection key. Keys: none\.$"),
        ("V1", ["roi"], r"The selection must be a dict such as \{'roi': ...\}, got str"),
        (None, [], r"such as \{'roi': ...\}, got NoneType"),
        (np.zeros(3), ["roi"], r"got float64 array of shape \(3,\)"),
    ],
)
def test_wrong_selection_keys_are_refused(selection, keys, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_selection_keys(selection, keys)


@pytest.mark.parametrize("validate", [validate_roi, validate_channels])
@pytest.mark.parametrize(
    ("names", "valid"),
    [
        ("V1", "V1"),
        (np.str_("V1"), "V1"),
        (["V2", "V1"], ["V2", "V1"]),
        (("V1",), ["V1"]),
        (np.array(["V1", "V2"]), ["V1", "V2"]),
        (np.array("V1"), "V1"),
    ],
)
def test_names_come_back_as_one_name_or_a_list(validate, names, valid):
    assert validate(names, ["V1", "V2"]) == valid


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        ("V5", r"There is no ROI 'V5'. Did you mean 'V[12]'\? ROIs: V1, V2\.$"),
        ("v1", r"There is no ROI 'v1'. Did you mean 'V1'\?"),
        (["V1", "V9"], "There is no ROI 'V9'"),
        (["V1", 2], "There is no ROI 2"),
        (np.array([["V1", "V2"]]), r"There is no ROI \['V1', 'V2'\]"),
        ([], r"Give the ROI as a name or a list of names, got \[\]"),
        (None, "Give the ROI as a name or a list of names, got None"),
        ({"V1"}, r"Give the ROI as a name or a list of names, got \{'V1'\}"),
        (3, "Give the ROI as a name or a list of names, got 3"),
        ([None, []], "There is no ROI None"),
    ],
)
def test_a_wrong_roi_is_refused(roi, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_roi(roi, ["V1", "V2"])


def test_a_wrong_channel_is_called_a_channel():
    with pytest.raises(
        InvalidParameterError, match=r"There is no channel 'O3'. Did you mean 'O[12]'\? channels: O1, O2"
    ):
        validate_channels("O3", ["O1", "O2"])


@pytest.mark.parametrize(
    "values", [[0, 1, 1], (0, 1, 1), [False, True, True], np.array([0.0, 1.0, 1.0]), np.array([0, 1, 1], "u1")]
)
def test_a_vector_of_0_and_1_comes_back_as_booleans(values):
    for mask in (validate_binary_array(values, 3), validate_timepoints(values, 3)):
        assert mask.dtype == bool
        assert mask.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1], r"'mask' must be a 0/1 vector of length 3, got shape \(2,\). If the numbers 0, 1 are meant"),
        ([0, 2], r"got shape \(2,\). These look like indices; try mask = np.isin\(np.arange\(3\), indices\)"),
        ([0, 1, 2], r"'mask' must hold only 0 and 1 \(3 of them\), got int64 values. These look like indices"),
        ([0, 1, 7], r"must hold only 0 and 1 \(3 of them\), got int64 values\.$"),
        ([0.5, 1, 1], r"must hold only 0 and 1 .*got float64 values\.$"),
        ([np.nan, 1, 1], "must hold only 0 and 1"),
        (["0", "1", "1"], "must hold only 0 and 1 .*got <U1 values"),
        ([None, 1, 1], "must hold only 0 and 1 .*got object values"),
        ([0j, 1, 1], "must hold only 0 and 1 .*got complex128 values"),
        ([[0, 1, 1]], r"got shape \(1, 3\)"),
        ([[0], [1, 1]], "'mask' must be a 0/1 vector, and its rows differ in length"),
        (1, r"got shape \(\)"),
        (None, r"got shape \(\)"),
        ([], r"got shape \(0,\)\.$"),
    ],
)  # fmt: skip
def test_what_is_no_vector_of_0_and_1_is_refused(values, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_binary_array(values, 3)


def test_what_the_error_about_indices_says_to_type_is_then_taken():
    indices = np.array([0, 2])
    with pytest.raises(InvalidParameterError) as caught:
        validate_binary_array(indices, 3, "vertices")
    typed = str(caught.value).partition("vertices = ")[2].rstrip(".")
    mask = eval(typed, {"np": np, "indices": indices})  # noqa: S307
    assert get_selected_indices(validate_binary_array(mask, 3)).tolist() == [0, 2]


def test_timepoints_are_called_so():
    with pytest.raises(InvalidParameterError, match="'timepoints' must be a 0/1 vector of length 140"):
        validate_timepoints([1, 0], 140)


@given(st.lists(st.booleans()))
def test_selected_indices_are_the_places_of_the_ones(mask):
    assert get_selected_indices(mask).tolist() == [place for place, value in enumerate(mask) if value]


@pytest.mark.parametrize(
    ("mask", "words"), [([0, 2], "only 0 and 1"), ([[1], [0, 1]], "differ in length"), (1, "vector")]
)
def test_indices_of_what_is_no_mask_are_refused(mask, words):
    with pytest.raises(InvalidParameterError, match=words):
        get_selected_indices(mask)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", 3), ("int", np.int8(3)), ("integer", 3), ("float", 3), ("float", 3.5), ("float", np.float32(0.5)),
        ("number", 1), ("str", "a"), ("string", "a"), ("bool", True), ("bool", np.True_), ("list", [1]), ("list", (1,)),
        ("list", np.zeros(2)), ("numpy.ndarray", np.zeros(2)), ("numpy.ndarray", [0, 1]), ("dict", {"a": 1}),
        ("str or list", "a"), ("str or list", ["a"]), ("str | list", ["a"]), ("list[int]", [1]), ("list of str", ["a"]),
        ("Int", 3), ("any", None), ("words of the author", object), ("tuple", (1, 2)),
    ],
)  # fmt: skip
def test_a_value_of_the_type_in_the_card_is_taken(kind, value):
    taken = validate_value(value, Parameter(type=kind), "'x'")
    assert np.array_equal(taken, value)
    assert not isinstance(taken, np.generic)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("int", 3.0, "'x' must be int, got float 3.0"),
        ("int", True, "'x' must be int, got bool True"),
        ("int", "3", "'x' must be int, got str '3'"),
        ("int", None, "'x' must be int, got NoneType None"),
        ("float", "3", "'x' must be float, got str"),
        ("float", False, "'x' must be float, got bool"),
        ("float", 1j, "'x' must be float, got complex"),
        ("bool", 1, "'x' must be bool, got int 1"),
        ("str", 3, "'x' must be str, got int 3"),
        ("list", "abc", "'x' must be list, got str 'abc'"),
        ("dict", [1], "'x' must be dict, got list"),
        ("str or list", 3, "'x' must be str or list, got int 3"),
        ("int", np.zeros((2, 2), int), r"'x' must be int, got int64 array of shape \(2, 2\)"),
    ],
)
def test_a_value_of_another_type_is_refused(kind, value, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_value(value, Parameter(type=kind), "'x'")


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ({"valid_values": ["a", "bee"]}, "be", r"'x' is 'be'. Did you mean 'bee'\? Allowed: a, bee"),
        ({"valid_values": "1-3"}, 4, "'x' is 4. Allowed: 1, 2, 3"),
        ({"valid_values": "1-3", "type": "int"}, "2", r"must be int, got str '2'. Try 2 \(int\)"),
        ({"valid_values": ["1", "2"], "type": "str"}, 2, r"must be str, got int 2. Try '2' \(str\)"),
        ({"valid_values": ["a", "b"]}, ["a", "c"], "'x' is 'c'. .*Allowed: a, b"),
        ({"valid_values": ["a", "b"]}, np.array(["a", "c"]), "'x' is 'c'. .*Allowed: a, b"),
        ({"valid_values": [1, 2]}, [np.array([1, 2])], r"'x' is array\(\[1, 2\]\). Allowed: 1, 2"),
        ({"minimum": 0, "maximum": 1, "unit": "degrees"}, 2, r"'x' is 2; it must lie in \[0.0, 1.0\] degrees"),
        ({"minimum": 0}, -0.5, r"'x' is -0.5; it must lie in \[0.0, None\]"),
        ({"maximum": 1}, float("nan"), "'x' is nan; it must lie in"),
        ({"maximum": 1}, 10**400, "it must lie in"),
    ],
)
def test_a_value_that_the_card_does_not_allow_is_refused(parameter, value, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_value(value, Parameter(**parameter), "'x'")


@pytest.mark.parametrize("value", ["a", ["a"], ("b", "a"), np.array(["b"])])
def test_a_value_or_a_list_of_values_that_the_card_allows_is_taken(value):
    assert validate_value(value, Parameter(valid_values=["a", "b"]), "'x'") is value


def test_a_number_as_large_as_a_number_may_be_is_compared_as_it_is():
    assert validate_value(10**400, Parameter(type="int"), "'x'") == 10**400


CARD = """\
model_id: fmri-made_up-linear
modality: fmri
training_dataset: made_up
parameters:
  subject: {type: int, required: true, valid_values: [1, 2], example: 2, description: Whom}
  width: {type: float, default: 10.0, minimum: 1, unit: degrees}
  layer: {type: str}
  selection: {type: dict, properties: {roi: {}}}
  device: {type: str, default: auto}
"""


@pytest.fixture(scope="module")
def card():
    return ModelCard.parse(CARD, "card.yaml")


def test_parameters_come_back_with_their_defaults(card):
    assert validate_parameters(card, {"subject": 1}) == {"subject": 1, "width": 10.0, "layer": None}
    assert validate_parameters(card, {"subject": np.int32(2), "width": 3}) == {"subject": 2, "width": 3, "layer": None}


@pytest.mark.parametrize(
    ("given_by_user", "words"),
    [
        ({}, r"fmri-made_up-linear needs 'subject' \(Whom\). For example subject=2\."),
        (
            {"subjct": 1},
            "has no parameter 'subjct'. Did you mean 'subject'. Parameters: subject, width, layer, selection",
        ),
        ({"subject": 3}, "'subject' of fmri-made_up-linear is 3. Allowed: 1, 2"),
        ({"subject": 1, "width": 0}, r"'width' of fmri-made_up-linear is 0; it must lie in \[1.0, None\] degrees"),
        ({"subject": 1, "selection": {}}, "has no parameter 'selection'"),
        ({"subject": None}, "'subject' of fmri-made_up-linear must be int, got NoneType"),
    ],
)
def test_wrong_parameters_are_refused(card, given_by_user, words):
    with pytest.raises(InvalidParameterError, match=words):
        validate_parameters(card, given_by_user)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
        | st.lists(inner, max_size=3).map(lambda items: np.fromiter(items, object))
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(
    ANY,
    st.sampled_from(["int", "float", "str", "bool", "list", "str or list", "dict", "any", "numpy.ndarray"]),
    st.sampled_from([None, [1, "a"], "1-3"]),
    st.sampled_from([None, 0.0]),
)
def test_any_value_is_checked_or_refused_by_our_error(value, kind, valid_values, minimum):
    parameter = Parameter(type=kind, valid_values=valid_values, minimum=minimum)
    for check in (
        lambda: validate_value(value, parameter, "'x'"),
        lambda: validate_subject(value, [1, 2]),
        lambda: validate_roi(value, ["V1"]),
        lambda: validate_binary_array(value, 3),
        lambda: validate_selection_keys(value, ["roi"]),
        lambda: get_selected_indices(value),
    ):
        try:
            check()
        except InvalidParameterError as error:
            print(error)  # which needs no more than a sentence


class TestSeveral:
    """A parameter that takes several values at once."""

    parameter = Parameter(type="int or str or list", several=True, valid_values="1-3")

    @pytest.mark.parametrize(
        ("given", "expected"), [(2, 2), ([2], 2), ((3, 1), [3, 1]), (np.array([1, 2]), [1, 2]), ("all", [1, 2, 3])]
    )
    def test_one_a_list_and_all_are_taken(self, given, expected):
        assert validate_value(given, self.parameter, "subject") == expected

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (4, "is 4"),
            ([1, 1], "twice"),
            ([], "empty"),
            ("1", r"Try 1 \(int\)"),
            (True, "True"),
            ([1, "all"], "'all'"),
            (1.0, "1.0"),
        ],
    )
    def test_all_else_is_refused(self, given, words):
        with pytest.raises(InvalidParameterError, match=words):
            validate_value(given, self.parameter, "subject")
