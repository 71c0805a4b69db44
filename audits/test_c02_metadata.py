"""C-02: neither numbers in clear nor frame lengths tell a client's clip count."""

from typing import Any

import pytest


@pytest.mark.claim("C-02")
def test_c02(audit: Any, attack: str, scheme: str) -> None:
    audit("C-02", attack, scheme)
