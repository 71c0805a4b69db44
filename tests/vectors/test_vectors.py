"""The files are what generate.py makes, every vector holds, and recorded rounds play again."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from merveil.protocols.api import server_session
from merveil.protocols.identity import Roster
from merveil.protocols.registry import names, params_from
from merveil.protocols.session import Phase

HERE = Path(__file__).parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("merveil_vectors", HERE / "generate.py")
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
        assert (HERE / name).read_bytes() == text.encode(), f"{name} differs: run tests/vectors/generate.py"


@pytest.mark.parametrize("v", VECTORS)
def test_each_vector_holds(v: dict[str, Any]) -> None:
    found = GENERATE.run(v["operation"], v["in"])
    assert found == {k: v[k] for k in ("out", "error", "code") if k in v}


def test_bad_vectors_are_named_by_their_fault_and_good_ones_succeed() -> None:
    for p in VECTORS:
        v = p.values[0]
        bad = "error" in v or v["out"] == {"valid": False}
        assert bad is ("_" in v["name"]), v["name"]


@pytest.mark.parametrize("scheme", [name for name in names() if name not in GENERATE.APART])
def test_a_recorded_round_plays_again(scheme: str) -> None:
    """A server fed with the recorded client frames sends the recorded server frames and finds the sum."""
    value = json.loads((HERE / f"round-{scheme.replace('+', '-plus')}.json").read_text())
    fields = dict(line.split("=") for line in value["params"].split("\n"))
    params = params_from(
        {k: float.fromhex(v) if k == "clip" else v if k == "scheme" else int(v) for k, v in fields.items()}
    )
    data = bytes.fromhex(value["roster"])
    server = server_session(
        scheme, params=params, roster=Roster.open(data, data[37:69]), model_hash=b"\x11" * 32,
        config_hash=b"\x22" * 32, round=4,
    )  # fmt: skip
    sent = [f.encode().hex() for f in server.start()]
    recorded = [f["data"] for f in value["frames"] if f["sender"] == 0]
    up = [f for f in value["frames"] if f["sender"] != 0]
    for f in up:
        while len(sent) < len(recorded) and value["frames"].index(f) > _last(
            value["frames"], recorded[len(sent)]
        ):
            sent += [x.encode().hex() for x in server.close_phase()]
        sent += [x.encode().hex() for x in server.receive(f["sender"], bytes.fromhex(f["data"]))]
    if server.phase is not Phase.DONE:
        server.close_phase()
    assert sent == recorded
    assert (
        server.result().codes.tolist() == value["sum"]
        and list(server.result().survivors) == value["survivors"]
    )
    total = [sum(x) for x in zip(*(v for i, v in value["inputs"].items() if int(i) in value["survivors"]))]
    assert total == value["sum"]


def _last(frames: list[dict[str, Any]], data: str) -> int:
    return next(at for at, f in enumerate(frames) if f["data"] == data)
