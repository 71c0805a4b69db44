"""C-45: substituted keys are refused."""

from typing import Any

import pytest


@pytest.mark.claim("C-45")
def test_c45(audit: Any, attack: str, scheme: str) -> None:
    audit("C-45", attack, scheme)
