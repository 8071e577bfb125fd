"""Check that an encoding model keeps what every encoding model promises; see `check_model`."""

from berg.testing.check import Check
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import CheckResult
from berg.testing.suite import CHECKS, check_model, parametrize_with_checks

__all__ = ["CHECKS", "Check", "CheckResult", "ModelUnderTest", "check_model", "parametrize_with_checks"]
