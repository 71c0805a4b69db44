"""C-13: decryptors open the sum of all survivors and nothing else."""

from typing import Any

import pytest


@pytest.mark.claim("C-13")
def test_c13(audit: Any, attack: str, scheme: str) -> None:
    audit("C-13", attack, scheme)
