"""Check that an encoding model keeps what every encoding model promises.

>>> from berg.testing import check_model
>>> {result.outcome for result in check_model("fmri-szinte2024-prf_css")} <= {"passed", "warning", "skipped"}
True
"""

from berg.testing.check import Check
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import CheckResult
from berg.testing.suite import CHECKS, check_model, parametrize_with_checks

__all__ = ["CHECKS", "Check", "CheckResult", "ModelUnderTest", "check_model", "parametrize_with_checks"]
