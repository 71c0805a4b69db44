"""C-41: one vector and one answer a round."""

from typing import Any

import pytest


@pytest.mark.claim("C-41")
def test_c41(audit: Any, attack: str, scheme: str) -> None:
    audit("C-41", attack, scheme)
