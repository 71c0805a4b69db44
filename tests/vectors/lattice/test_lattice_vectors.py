"""The lattice vectors are what the code gives, byte for byte."""

import importlib.util
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("merveil_lattice_vectors", HERE / "generate_lattice.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_rebuilt_byte_for_byte() -> None:
    made = load().files()
    assert sorted(made) == sorted(p.name for p in HERE.glob("*.json"))
    for name, text in made.items():
        assert (HERE / name).read_bytes() == text.encode(), f"{name} differs: run generate_lattice.py"
