"""The trees of annotated data sets for the tests of loaders."""

from importlib import util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def sets() -> Any:
    """tests/mer/sets.py: `sets.make(root, "casme2")` writes a small tree of that layout."""
    spec = util.spec_from_file_location("mer_sets", Path(__file__).with_name("sets.py"))
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
