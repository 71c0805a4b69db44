"""C-50: a lattice key masks one vector."""

from typing import Any

import pytest


@pytest.mark.claim("C-50")
def test_c50(audit: Any, attack: str, scheme: str) -> None:
    audit("C-50", attack, scheme)
