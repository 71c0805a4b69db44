"""The schema validator for every test of a verb's JSON, and small trees of annotated sets."""

from importlib import util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def schema() -> Any:
    """tests/cli/schema.py: `schema.check(value, schema.load(verb))` lists the mismatches."""
    return _load("cli_schema", Path(__file__).with_name("schema.py"))


@pytest.fixture(scope="session")
def sets() -> Any:
    """tests/mer/sets.py: `sets.make(root, "casme2")` writes a small tree of an annotated set."""
    return _load("cli_sets", Path(__file__).parents[1] / "mer" / "sets.py")


def _load(name: str, path: Path) -> Any:
    spec = util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
