"""N-32: a start model made to leak; the attack must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-32")
def test_n32(audit: Any, attack: str, scheme: str) -> None:
    audit("N-32", attack, scheme)
