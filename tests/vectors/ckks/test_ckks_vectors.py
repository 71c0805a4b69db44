"""The CKKS files are what generate_ckks.py makes, and every vector holds."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from merveil.protocols.ckks.messages import Kind

HERE = Path(__file__).parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("merveil_ckks_vectors", HERE / "generate_ckks.py")
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
    """The round's frames are so too, but for answers, whose noise is made of floats."""
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
    assert {p.values[0]["operation"] for p in VECTORS} == set(GENERATE.OPERATIONS)
    value = json.loads((HERE / "round-ckks.json").read_text())
    in_round = {f["kind"] for f in value["frames"]}
    assert in_round | {"COMPLAINT"} == {k.name for k in Kind}, "a complaint has a vector of its own"
    assert {f["kind"] for f in value["frames"] if "sha256" not in f} == {"ANSWER"}


def test_the_round_has_its_sum_and_the_lengths_of_the_wire_page() -> None:
    value = json.loads((HERE / "round-ckks.json").read_text())
    lengths = {f["kind"]: f["bytes"] - 29 - 64 * (f["sender"] > 0) for f in value["frames"]}
    k, t = 5, int(value["params"].split("threshold=")[1].split("\n")[0])
    assert lengths["SHARES"] == 54_304 + 32 * (k + t) + 36_944 * (k - 1)
    assert lengths["RELAY"] == 2 + (k - 1) * (91_250 + 32 * (k + t))
    assert value["survivors"] == [1, 2, 4, 5]
    assert value["sum"] == [sum(column) for column in zip(*value["inputs"].values())]
