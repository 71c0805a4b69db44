"""C-34: a member with the gate does not train on crafted models of the named kinds."""

from typing import Any

import pytest


@pytest.mark.claim("C-34")
def test_c34(audit: Any, attack: str, scheme: str) -> None:
    audit("C-34", attack, scheme)
