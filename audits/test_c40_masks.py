"""C-40: no mask is guessed or predicted."""

from typing import Any

import pytest


@pytest.mark.claim("C-40")
def test_c40(audit: Any, attack: str, scheme: str) -> None:
    audit("C-40", attack, scheme)
