"""C-11: t - 1 pooled key shares open nothing."""

from typing import Any

import pytest


@pytest.mark.claim("C-11")
def test_c11(audit: Any, attack: str, scheme: str) -> None:
    audit("C-11", attack, scheme)
