"""C-42: two stories are not both answered."""

from typing import Any

import pytest


@pytest.mark.claim("C-42")
def test_c42(audit: Any, attack: str, scheme: str) -> None:
    audit("C-42", attack, scheme)
