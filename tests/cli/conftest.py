"""The schema validator for every test of a verb's JSON."""

from importlib import util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def schema() -> Any:
    """tests/cli/schema.py: `schema.check(value, schema.load(verb))` lists the mismatches."""
    spec = util.spec_from_file_location("cli_schema", Path(__file__).with_name("schema.py"))
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
