"""C-03: a flipped bit is never taken silently."""

from typing import Any

import pytest


@pytest.mark.claim("C-03")
def test_c03(audit: Any, attack: str, scheme: str) -> None:
    audit("C-03", attack, scheme)
