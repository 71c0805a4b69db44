"""C-22: a site sends no vector without noise that it judged and paid for by its own figures."""

from typing import Any

import pytest


@pytest.mark.claim("C-22")
def test_c22(audit: Any, attack: str, scheme: str) -> None:
    audit("C-22", attack, scheme)
