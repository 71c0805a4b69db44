"""N-40: the time of an answer leaks; the attack must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-40")
def test_n40(audit: Any, attack: str, scheme: str) -> None:
    audit("N-40", attack, scheme)
