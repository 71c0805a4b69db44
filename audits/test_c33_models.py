"""C-33: clients of different models are in no common sum."""

from typing import Any

import pytest


@pytest.mark.claim("C-33")
def test_c33(audit: Any, attack: str, scheme: str) -> None:
    audit("C-33", attack, scheme)
