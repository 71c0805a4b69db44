"""N-50: keys of a quorum, stolen later, open stored rounds."""

from typing import Any

import pytest


@pytest.mark.claim("N-50")
def test_n50(audit: Any, attack: str, scheme: str) -> None:
    audit("N-50", attack, scheme)
