"""Loads the reference by its path: test helpers are no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    pytest.importorskip("Crypto", reason="the reference needs pycryptodome")
    spec = importlib.util.spec_from_file_location("secagg_reference", Path(__file__).parent / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
