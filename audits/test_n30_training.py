"""N-30: who trained stays in what is published; the attacks must win under every scheme."""

from typing import Any

import pytest


@pytest.mark.claim("N-30")
def test_n30(audit: Any, attack: str, scheme: str) -> None:
    audit("N-30", attack, scheme)
