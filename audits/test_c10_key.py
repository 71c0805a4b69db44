"""C-10: no decryption of a sum gives a key away."""

from typing import Any

import pytest


@pytest.mark.claim("C-10")
def test_c10(audit: Any, attack: str, scheme: str) -> None:
    audit("C-10", attack, scheme)
