"""Every message of CKKS has a vector, and its recorded round the sum and lengths that the wire page says."""

import json
from pathlib import Path

from merveil.protocols.ckks.messages import Kind

ROUND = Path(__file__).parent / "round-ckks.json"


def test_every_message_has_a_vector() -> None:
    value = json.loads(ROUND.read_text())
    in_round = {f["kind"] for f in value["frames"]}
    assert in_round | {"COMPLAINT"} == {k.name for k in Kind}, "a complaint has a vector of its own"
    assert {f["kind"] for f in value["frames"] if "sha256" not in f} == {"ANSWER"}


def test_the_round_has_its_sum_and_the_lengths_of_the_wire_page() -> None:
    value = json.loads(ROUND.read_text())
    lengths = {f["kind"]: f["bytes"] - 29 - 64 * (f["sender"] > 0) for f in value["frames"]}
    k, t = 5, int(value["params"].split("threshold=")[1].split("\n")[0])
    assert lengths["SHARES"] == 54_304 + 32 * (k + t) + 36_944 * (k - 1)
    assert lengths["RELAY"] == 2 + (k - 1) * (91_250 + 32 * (k + t))
    assert value["survivors"] == [1, 2, 4, 5]
    assert value["sum"] == [sum(column) for column in zip(*value["inputs"].values())]
