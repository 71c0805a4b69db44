"""C-47: an altered share is never silent."""

from typing import Any

import pytest


@pytest.mark.claim("C-47")
def test_c47(audit: Any, attack: str, scheme: str) -> None:
    audit("C-47", attack, scheme)
