"""C-46: lowered parameters are refused, field by field."""

from typing import Any

import pytest


@pytest.mark.claim("C-46")
def test_c46(audit: Any, attack: str, scheme: str) -> None:
    audit("C-46", attack, scheme)
