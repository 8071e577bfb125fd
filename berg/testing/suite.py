"""All checks, run on a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from berg.core import model_registry
from berg.core.exceptions import MissingExtraError, MissingFileError, ModelCheckError
from berg.core.model_card import ModelCard
from berg.testing.check import Check
from berg.testing.checks import card, manners, metadata, parameters, refusals, responses, weights
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import CheckResult

CHECKS: dict[str, Check] = {
    name: found
    for module in (card, responses, parameters, refusals, metadata, manners, weights)
    for name, found in vars(module).items()
    if isinstance(found, Check)
}
"""Every check by its name, in the order in which they run."""


def check_model(
    model: str | Path,
    berg_dir: str | Path | None = None,
    *,
    stimulus: NDArray[Any] | None = None,
    raise_failures: bool = False,
    **parameters: Any,
) -> list[CheckResult]:
    """Run all checks on a model: does it keep what every encoding model promises?

    Parameters
    ----------
    model
        A model id, or the file of a card.
    berg_dir
        The BERG directory, for models whose files are there.
    stimulus
        What to encode, first axis: the stimuli; None: four random stimuli as the card's ``input`` says.
    raise_failures
        Raise an error if a check fails, instead of returning the results.
    **parameters
        As for `BERG.get_encoding_model`, such as ``subject=1`` and ``selection={"roi": "V1"}``. If something is
        required and not given, the example in the card is taken; if no device is given, the CPU.

    Raises
    ------
    ModelNotFoundError
        If no model has that id.
    ModelCheckError
        If a check fails and `raise_failures` is set; it lists every failure, its reason and what to do.

    Examples
    --------
    >>> results = check_model("fmri-szinte2024-prf_css")
    >>> [result.name for result in results if result.outcome == "failed"]
    []
    """
    under_test = ModelUnderTest(known_id(model), berg_dir, stimulus=stimulus, **parameters)
    results = [found.run(under_test) for found in CHECKS.values()]
    under_test.release()
    if raise_failures:
        raise_failed(under_test.model_id, results)
    return results


def raise_failed(model_id: str, results: Sequence[CheckResult]) -> None:
    """Raise ModelCheckError, which lists every failure, if a check failed."""
    failed = [result for result in results if result.outcome == "failed"]
    if failed:
        listed = "".join(f"\n- {result.name}: {result.reason} {result.fix}" for result in failed)
        raise ModelCheckError(f"{model_id} fails {len(failed)} of {len(results)} checks:{listed}")


def known_id(model: str | Path) -> str:
    """The id of a model; a card given as a file is registered first.

    Raises
    ------
    MissingFileError, ModelCardError, RegistrationError
    """
    path = Path(model)
    if path.suffix not in (".yaml", ".yml"):
        return str(model)
    if not path.is_file():
        raise MissingFileError(f"There is no card {path}. Give the file of a card, or a model id (berg list).")
    model_registry.get_available_models()
    model_registry.register_card(path.resolve())
    return ModelCard.read(path).model_id


def parametrize_with_checks(
    models: Sequence[str | Path], berg_dir: str | Path | None = None, **parameters: Any
) -> Callable[[Any], Any]:
    """Make one pytest test of each check and model, as a decorator.

    Parameters
    ----------
    models, berg_dir, **parameters
        As for `check_model`; the parameters are those of every model.

    Examples
    --------
    >>> @parametrize_with_checks(["fmri-szinte2024-prf_css"])
    ... def test_my_model(model, check):
    ...     check(model)
    """
    try:
        import pytest
    except ImportError as error:
        raise MissingExtraError('parametrize_with_checks needs pytest:  pip install "berg[dev]"') from error
    cases = [
        pytest.param(under_test, _as_test(found), id=f"{under_test.model_id}-{found.name}")
        for under_test in (ModelUnderTest(known_id(model), berg_dir, **parameters) for model in models)
        for found in CHECKS.values()
    ]
    return pytest.mark.parametrize(("model", "check"), cases)


def _as_test(found: Check) -> Callable[[ModelUnderTest], None]:
    """A check for pytest: raise if the model fails, skip if the check does not apply; warnings pass."""

    def test(model: ModelUnderTest) -> None:
        import pytest

        result = found.run(model)
        if result.outcome == "skipped":
            pytest.skip(result.reason)
        raise_failed(model.model_id, [result])

    return test
