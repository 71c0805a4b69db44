"""C-48: no wrap, no broken numbers in a sum."""

from typing import Any

import pytest


@pytest.mark.claim("C-48")
def test_c48(audit: Any, attack: str, scheme: str) -> None:
    audit("C-48", attack, scheme)
