"""N-10: a crafted ciphertext reads the key; the attack must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-10")
def test_n10(audit: Any, attack: str, scheme: str) -> None:
    audit("N-10", attack, scheme)
