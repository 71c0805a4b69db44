"""N-33: sums over different survivors are solved; the attacks must win."""

from typing import Any

import pytest


@pytest.mark.claim("N-33")
def test_n33(audit: Any, attack: str, scheme: str) -> None:
    audit("N-33", attack, scheme)
