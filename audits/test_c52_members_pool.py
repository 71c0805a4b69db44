"""C-52: the tolerated members read nothing."""

from typing import Any

import pytest


@pytest.mark.claim("C-52")
def test_c52(audit: Any, attack: str, scheme: str) -> None:
    audit("C-52", attack, scheme)
