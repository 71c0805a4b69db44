"""C-35: beyond its three sums, exact-ridge tells the server nothing about one client."""

from typing import Any

import pytest


@pytest.mark.claim("C-35")
def test_c35(audit: Any, attack: str, scheme: str) -> None:
    audit("C-35", attack, scheme)
