"""N-60: the sums of exact-ridge tell who took part, and the class counts; the attacks must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-60")
def test_n60(audit: Any, attack: str, scheme: str) -> None:
    audit("N-60", attack, scheme)
