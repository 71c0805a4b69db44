"""N-02: the sum itself leaks; the attack must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-02")
def test_n02(audit: Any, attack: str, scheme: str) -> None:
    audit("N-02", attack, scheme)
