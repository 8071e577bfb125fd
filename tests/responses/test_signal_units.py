"""Units of signals: the factors are those of the SI, written out here."""

import pytest

from berg.core.exceptions import InvalidParameterError
from berg.responses.signal_units import scale_between, signal_unit

SPELLINGS = {
    ("V", 1): ["V", "volt", "Volts", "v"],
    ("V", 1e-3): ["mV", "millivolt", "mv"],
    ("V", 1e-6): [
        "µV", "\u03bcV", "uV", "UV", "microvolt", "Microvolts", "micro-volts", "[µV]", "(uV)", "µ V", "㎶", "microV",
        "µV (average reference)", "microvolt (µV)", "in µV",
    ],
    ("V", 1e-9): ["nV", "nanovolts"],
    ("T", 1): ["T", "tesla"],
    ("T", 1e-12): ["pT", "picotesla"],
    ("T", 1e-15): ["fT", "ft", "femtoteslas"],
    ("T/m", 1): ["T/m", "T m⁻¹", "T·m^-1", "tesla per metre", "T / meter"],
    ("T/m", 1e-13): ["fT/cm", "fT cm-1", "femtotesla/cm", "fT per cm"],
    ("T/m", 1e-10): ["pT/cm"],
    ("T/m", 1e-12): ["fT/mm", "pT/m"],
}  # fmt: skip
NONE = [
    "z",
    "z-score",
    "z-scored",
    "Z-scored µV",
    "z-scored beta",
    "a.u.",
    "percent signal change",
    "spikes/s",
    "t",
    "",
]
UNKNOWN = ["MV", "µV²", "uV^2/Hz", "V/m", "kV", "1e-6 V", "10 µV", "volts per something"]


@pytest.mark.parametrize(("unit", "text"), [(unit, text) for unit, texts in SPELLINGS.items() for text in texts])
def test_every_usual_spelling_is_known(unit, text):
    found = signal_unit(text)
    assert (found.quantity, found.factor) == (unit[0], pytest.approx(unit[1], rel=1e-12))


@pytest.mark.parametrize("text", NONE)
def test_other_numbers_have_no_unit_of_a_signal(text):
    assert signal_unit(text) is None


@pytest.mark.parametrize("text", UNKNOWN)
def test_volts_in_an_unknown_way_are_not_taken_for_plain_numbers(text):
    with pytest.raises(InvalidParameterError, match=r"no known way to write volts or tesla\. Write V, mV"):
        signal_unit(text)


def test_a_factor_between_units_is_exact_and_between_quantities_there_is_none():
    assert scale_between("V", "µV") == 1e6
    assert scale_between("T/m", "fT/cm") == 1e13
    assert scale_between("T", "z-score") is None
    with pytest.raises(InvalidParameterError, match="V is not T"):
        scale_between("V", "fT")
