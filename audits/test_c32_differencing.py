"""C-32: a policy that minds gives no two sums that differ by one."""

from typing import Any

import pytest


@pytest.mark.claim("C-32")
def test_c32(audit: Any, attack: str, scheme: str) -> None:
    audit("C-32", attack, scheme)
