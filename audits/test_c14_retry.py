"""C-14: one answer a round."""

from typing import Any

import pytest


@pytest.mark.claim("C-14")
def test_c14(audit: Any, attack: str, scheme: str) -> None:
    audit("C-14", attack, scheme)
