"""C-31: a coalition's view of the others' frames is worth no more than the server's own."""

from typing import Any

import pytest


@pytest.mark.claim("C-31")
def test_c31(audit: Any, attack: str, scheme: str) -> None:
    audit("C-31", attack, scheme)
