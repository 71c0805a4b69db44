"""C-43: fewer shares than the threshold tell nothing."""

from typing import Any

import pytest


@pytest.mark.claim("C-43")
def test_c43(audit: Any, attack: str, scheme: str) -> None:
    audit("C-43", attack, scheme)
