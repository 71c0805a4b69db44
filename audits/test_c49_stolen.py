"""C-49: stolen keys open no closed round."""

from typing import Any

import pytest


@pytest.mark.claim("C-49")
def test_c49(audit: Any, attack: str, scheme: str) -> None:
    audit("C-49", attack, scheme)
