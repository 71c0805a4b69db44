"""C-01: frames of a secure scheme tell the server nothing beyond the sum."""

from typing import Any

import pytest


@pytest.mark.claim("C-01")
def test_c01(audit: Any, attack: str, scheme: str) -> None:
    audit("C-01", attack, scheme)
