"""C-51: one survivor set a round, and hints on keys are no keys."""

from typing import Any

import pytest


@pytest.mark.claim("C-51")
def test_c51(audit: Any, attack: str, scheme: str) -> None:
    audit("C-51", attack, scheme)
