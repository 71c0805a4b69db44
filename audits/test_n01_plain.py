"""N-01: under plain the server reads everything; the attack must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-01")
def test_n01(audit: Any, attack: str, scheme: str) -> None:
    audit("N-01", attack, scheme)
