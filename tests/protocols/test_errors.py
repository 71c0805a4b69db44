"""Errors carry who was wrong, and the documentation lists every code."""

import re
from pathlib import Path

import pytest

from merveil.protocols.errors import (
    AbortCode,
    Aborted,
    LocalError,
    MerveilError,
    RemoteError,
    SessionSpent,
)

# THREATS section 7 and DESIGN section 2 fix these names.
CONTRACT = """
    ROUND_REUSED DOUBLE_CLAIM ROSTER_MISMATCH COHORT_TOO_SMALL BAD_KEY PARAMS_BELOW_FLOOR BELOW_THRESHOLD
    STATE_ROLLBACK STALE_KEY BAD_SHARE MODULUS_TOO_SMALL INPUT_RANGE INPUT_NOT_FINITE SHAPE_MISMATCH
    BAD_CIPHERTEXT KEY_REUSE MODEL_MISMATCH ARCH_MISMATCH STALE_ROSTER IMPLAUSIBLE_SUM
"""


def test_every_contracted_code_exists() -> None:
    assert set(CONTRACT.split()) <= {c.name for c in AbortCode}


def test_the_page_of_codes_lists_each_once_with_its_meaning() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == [c.name for c in AbortCode]
    assert {name: why.strip() for name, why in rows} == {c.name: c.value for c in AbortCode}


def test_an_error_says_its_code_and_who() -> None:
    error = RemoteError("why", [3, 3, 1], AbortCode.BAD_KEY)
    assert error.culprits == {1, 3} and error.code is AbortCode.BAD_KEY and str(error) == "BAD_KEY: why"
    abort = Aborted(AbortCode.BELOW_THRESHOLD, "two missing", [2], released=True)
    assert str(abort) == "BELOW_THRESHOLD: two missing" and abort.culprits == {2} and abort.released
    assert not Aborted(AbortCode.BAD_KEY).released and AbortCode.BAD_KEY.value in str(
        Aborted(AbortCode.BAD_KEY)
    )
    assert LocalError("x").code is None and str(LocalError("x", AbortCode.INPUT_RANGE)) == "INPUT_RANGE: x"


@pytest.mark.parametrize("kind", [LocalError, SessionSpent, RemoteError, Aborted])
def test_all_are_merveil_errors_and_only_spent_is_local(kind: type[Exception]) -> None:
    assert issubclass(kind, MerveilError)
    assert issubclass(kind, LocalError) is (kind in (LocalError, SessionSpent))


def test_meanings_are_distinct() -> None:
    assert len({c.value for c in AbortCode}) == len(AbortCode)
