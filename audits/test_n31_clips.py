"""N-31: the sum of a small cohort gives clips back; the attacks must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-31")
def test_n31(audit: Any, attack: str, scheme: str) -> None:
    audit("N-31", attack, scheme)
