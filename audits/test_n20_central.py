"""N-20: who adds the noise sees the sum without it."""

from typing import Any

import pytest


@pytest.mark.claim("N-20")
def test_n20(audit: Any, attack: str, scheme: str) -> None:
    audit("N-20", attack, scheme)
