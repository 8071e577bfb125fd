"""Units of electric and magnetic signals, by any of their usual spellings and signs."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from berg.core.exceptions import InvalidParameterError

_PREFIXES = {
    "": 1.0, "m": 1e-3, "milli": 1e-3, "u": 1e-6, "μ": 1e-6, "micro": 1e-6, "n": 1e-9, "nano": 1e-9,
    "p": 1e-12, "pico": 1e-12, "f": 1e-15, "femto": 1e-15,
}  # fmt: skip
_LENGTHS = {"": 1.0, "c": 1e-2, "centi": 1e-2, "m": 1e-3, "milli": 1e-3}
_SIGNAL = re.compile(
    r"(?P<prefix>femto|pico|nano|micro|milli|[fpnuμm]?)[ -]?(?P<base>volts?|v|teslas?|t)"
    r"(?P<metre> ?(?:/|per) ?(?P<length>centi|milli|[cm]?)(?:m|met(?:er|re)s?)"
    r"|[ *·.]?(?P<inverse>[cm]?)m ?(?:\^|\*\*)? ?\(?[-−]1\)?)?"
)
_SOME_SIGNAL = re.compile(r"volt|tesla|(?<![a-z])([fpnumkμ]?v|[fpnuμ]t)(?![a-z])", re.IGNORECASE)
_NO_UNIT = re.compile(r"(?<![a-z])z(?![a-z])|z-?scor|percent|%|arbitrary|(?<![a-z])a\.?u\.?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class SignalUnit:
    """A unit of an electric or magnetic signal.

    Attributes
    ----------
    quantity
        ``V``, ``T`` or ``T/m``, which are the units of MNE-Python.
    factor
        How much of these it is: 1e-6 of µV.
    """

    quantity: str
    factor: float


def signal_unit(text: str) -> SignalUnit | None:
    """The unit that a text names; None if it is none of an electric or magnetic signal, such as of z-scores.

    Signs and words in either case, with any of the two letters µ, with brackets: ``µV``, ``uV``, ``[microvolts]``,
    ``fT/cm``, ``T m⁻¹``.

    Raises
    ------
    InvalidParameterError
        For volts or tesla in a way that is not known: to take them for plain numbers would be wrong by powers of ten.

    Examples
    --------
    >>> signal_unit("µV"), signal_unit("fT/cm").quantity, signal_unit("z-scored")
    (SignalUnit(quantity='V', factor=1e-06), 'T/m', None)
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    for tried in (plain, re.sub(r"[(\[{].*?[)\]}]", "", plain)):  # a remark in brackets may follow
        found = _parsed(tried)
        if found is not None:
            return found
    if _SOME_SIGNAL.search(plain) and not _NO_UNIT.search(plain):
        raise InvalidParameterError(
            f"The unit '{text}' is no known way to write volts or tesla. Write V, mV, µV, nV, T, pT, fT, T/m or fT/cm; "
            "or z-score, for numbers without a unit."
        )
    return None


def _parsed(text: str) -> SignalUnit | None:
    text = text.strip(" \t[](){}").removeprefix("in ")
    if (text[:1] == "M" and len(text) == 2) or text == "t":  # mega or milli? A t value is no tesla either.
        return None
    found = _SIGNAL.fullmatch(re.sub(r"\s+", " ", text.casefold()))
    if found is None or (found["metre"] and found["base"][0] == "v"):  # V/m is no potential
        return None
    factor, base = _PREFIXES[found["prefix"]], found["base"][0].upper()
    if not found["metre"]:
        return SignalUnit(base, factor)
    return SignalUnit("T/m", float(f"{factor / _LENGTHS[found['length'] or found['inverse'] or '']:.12g}"))


def scale_between(stored: str, wanted: str) -> float | None:
    """The factor from a unit to another; None if one of them is none of a signal.

    >>> scale_between("V", "µV"), scale_between("V", "z-score")
    (1000000.0, None)

    Raises
    ------
    InvalidParameterError
        If they are not of one quantity.
    """
    one, other = signal_unit(stored), signal_unit(wanted)
    if one is None or other is None:
        return None
    if one.quantity != other.quantity:
        raise InvalidParameterError(f"{stored} cannot be told in {wanted}: {one.quantity} is not {other.quantity}.")
    return float(f"{one.factor / other.factor:.12g}")
