"""Every message of SecAgg has a vector, and the recorded sparse round a ring and a sum."""

import json
from pathlib import Path

from merveil.protocols.secagg.messages import Kind

HERE = Path(__file__).parent


def test_every_message_has_a_vector() -> None:
    vectors = [v for p in HERE.glob("*.json") for v in json.loads(p.read_text()).get("vectors", [])]
    in_messages = {v["in"]["kind"] for v in vectors if v["operation"] == "decode"}
    assert in_messages | {"MASKED", "SIGNED"} == {k.name for k in Kind}, "those two are in the rounds"


def test_the_sparse_round_has_a_ring_and_a_sum() -> None:
    value = json.loads((HERE / "round-sparse.json").read_text())
    assert "neighbours=0" not in value["params"]
    expected = [sum(value["inputs"][str(i)][j] for i in value["survivors"]) for j in range(3)]
    assert value["sum"] == expected and 4 not in value["survivors"]
