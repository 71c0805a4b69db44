"""C-12: malformed ciphertexts are not taken."""

from typing import Any

import pytest


@pytest.mark.claim("C-12")
def test_c12(audit: Any, attack: str, scheme: str) -> None:
    audit("C-12", attack, scheme)
