"""The SecAgg files are what generate_secagg.py makes, and every vector holds."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from merveil.protocols.secagg.messages import Kind

HERE = Path(__file__).parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("merveil_secagg_vectors", HERE / "generate_secagg.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load()
FILES = sorted(p.name for p in HERE.glob("*.json"))
VECTORS = [
    pytest.param(v, id=f"{name}: {v['name']}")
    for name in FILES
    for v in json.loads((HERE / name).read_text()).get("vectors", [])
]


def test_the_files_are_rebuilt_byte_for_byte() -> None:
    made = GENERATE.files()
    assert sorted(made) == FILES
    for name, text in made.items():
        assert (HERE / name).read_bytes() == text.encode(), f"{name} differs: run {GENERATE.__file__}"


@pytest.mark.parametrize("v", VECTORS)
def test_each_vector_holds(v: dict[str, Any]) -> None:
    found = GENERATE.run(v["operation"], v["in"])
    assert found == {k: v[k] for k in ("out", "error", "code") if k in v}


def test_bad_vectors_are_named_by_their_fault_and_good_ones_succeed() -> None:
    for p in VECTORS:
        v = p.values[0]
        bad = "error" in v or v["out"] == {"valid": False}
        assert bad is ("_" in v["name"]), v["name"]


def test_every_operation_and_message_has_a_vector() -> None:
    vectors = [p.values[0] for p in VECTORS]
    assert {v["operation"] for v in vectors} == set(GENERATE.OPERATIONS)
    in_messages = {v["in"]["kind"] for v in vectors if v["operation"] == "decode"}
    assert in_messages | {"MASKED", "SIGNED"} == {k.name for k in Kind}, "those two are in the rounds"


def test_the_sparse_round_has_a_ring_and_a_sum() -> None:
    value = json.loads((HERE / "round-sparse.json").read_text())
    assert "neighbours=0" not in value["params"]
    expected = [sum(value["inputs"][str(i)][j] for i in value["survivors"]) for j in range(3)]
    assert value["sum"] == expected and 4 not in value["survivors"]
