"""C-20: no guess at a clip proves more than DP-SGD's accountant states."""

from typing import Any

import pytest


@pytest.mark.claim("C-20")
def test_c20(audit: Any, attack: str, scheme: str) -> None:
    audit("C-20", attack, scheme)
