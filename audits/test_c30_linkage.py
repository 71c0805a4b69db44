"""C-30: frames do not tell which client a person is behind."""

from typing import Any

import pytest


@pytest.mark.claim("C-30")
def test_c30(audit: Any, attack: str, scheme: str) -> None:
    audit("C-30", attack, scheme)
