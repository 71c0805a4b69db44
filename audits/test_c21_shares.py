"""C-21: dropouts and colluders leave the noise that was counted on."""

from typing import Any

import pytest


@pytest.mark.claim("C-21")
def test_c21(audit: Any, attack: str, scheme: str) -> None:
    audit("C-21", attack, scheme)
