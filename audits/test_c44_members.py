"""C-44: the server adds no members."""

from typing import Any

import pytest


@pytest.mark.claim("C-44")
def test_c44(audit: Any, attack: str, scheme: str) -> None:
    audit("C-44", attack, scheme)
